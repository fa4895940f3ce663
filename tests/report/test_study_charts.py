"""The charts, figures and LaTeX of a study: effects with intervals, ranks, tuning effort."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted import cell, planted
from unipet.report.averages import averages
from unipet.report.cases import study
from unipet.report.comparing import Group, compare
from unipet.report.contrasts import contrasts
from unipet.report.effect_rows import effects
from unipet.report.figures import write_figures
from unipet.report.page.charts import charts
from unipet.report.page.comparisons import comparisons_of
from unipet.report.page.document import page
from unipet.report.study_figures import study_figures
from unipet.report.study_latex import study_latex
from unipet.report.tuning import Curve

ENTRIES = [
    planted(
        0.5 + 0.1 * (form == "parallel") + 0.02 * seed * (composition == "add"), cell(form, composition), seed, task
    )
    for task, form, composition, seed in product(
        ("t1", "t2", "t3"), ("parallel", "sequential"), ("add", "multiply"), (0, 1, 2)
    )
]
CURVE = Curve("t1", "tiny", "none", "accuracy", "bn", "", "random", (0.5, 0.6, 0.65), (0.4, 0.5, 0.6), (0.6, 0.7, 0.7))


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return compare(ENTRIES)


def texts(spec: dict[str, Any], rows: list[dict[str, Any]], group: str) -> list[str]:
    import vl_convert

    chosen = [{**each, "value": group} if each["name"] == "group" else each for each in spec["params"]]
    whole = {**spec, "params": chosen, "width": 600, "data": {"name": "rows", "values": rows}}
    return re.findall(r"<text[^>]*>([^<]*)</text>", vl_convert.vegalite_to_svg(whole))


def test_the_page_draws_effects_ranks_and_tuning_effort(groups: list[Group]) -> None:
    some, over = effects(study(groups)), averages(groups)
    comparisons = comparisons_of(ENTRIES, groups)
    drawn = charts(comparisons, effects=some, averages=over, tuning=[CURVE])
    rows = drawn["tuning"].rows
    assert [(row["trials"], row["best"], row["low"]) for row in rows] == [(1, 0.5, 0.4), (2, 0.6, 0.5), (3, 0.65, 0.6)]
    said = texts(drawn["tuning"].spec, rows, "0")
    assert "trials" in said and "best selection score expected" in said and "bn" in said
    assert "form: parallel → sequential" in texts(drawn["effects"].spec, drawn["effects"].rows, comparisons[0].id)
    varied = [row for row in drawn["effects"].rows if row["label"].startswith("composition")]
    assert varied and all(row["low"] < row["mean"] < row["high"] for row in varied)
    labels = [line.label for line in over[0].lines]
    assert set(labels) <= set(texts(drawn["ranks"].spec, drawn["ranks"].rows, "0"))


def test_the_page_has_them_with_their_numbers(groups: list[Group]) -> None:
    asked = contrasts(["form=parallel vs sequential"], study(groups))
    html = page(ENTRIES, groups, tuning=[CURVE], contrasts=asked)
    assert 'data-chart="tuning" data-shows="0"' in html and 'data-chart="ranks" data-shows="0"' in html
    assert (
        "form=parallel vs sequential" in html
        and "Friedman over 3 tasks" in html
        and "Contrasts: first - second" in html
    )


def test_latex_has_a_table_of_each(groups: list[Group]) -> None:
    known = study(groups)
    text = study_latex(effects(known), contrasts(["form=parallel vs sequential"], known), averages(groups))
    for name in ("contrasts", "effects", "averages"):
        assert rf"\label{{tab:comparison:{name}}}" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert r"parallel $\rightarrow$ sequential" in text and "3 tasks (3 +)" in text
    assert study_latex([], [], []) == ""


def test_figures_are_written_of_what_there_is(groups: list[Group], tmp_path: Path) -> None:
    known = study(groups)
    figures = study_figures(effects(known), contrasts(["form=parallel vs sequential"], known), averages(groups))
    assert list(figures) == ["effects", "contrasts", "ranks"] and study_figures([], [], []) == {}
    labels = [label.get_text() for label in figures["effects"].axes[0].get_yticklabels()]
    assert any(label.startswith("form: parallel → sequential") for label in labels)
    assert "critical difference" in figures["ranks"].axes[0].texts[0].get_text()
    written = write_figures(tmp_path, groups, more=lambda: figures)
    assert {path.stem for path in written} >= {"effects", "contrasts", "ranks", "scores"}
