"""The page's part about mixtures: a table of the ways of evaluating experts, and pictures of their use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.pages import method, write_run
from unipet.report.collect import collect
from unipet.report.page.comparisons import comparisons_of
from unipet.report.page.document import page
from unipet.report.page.experts import expert_tables, expert_uses

WAYS = {"merged": 0.8, "mean_of_outputs": 0.7, "ensemble_logits": 0.75, "random": 0.6, "best_expert": 0.65}


def report(shift: float, **changes: Any) -> dict[str, Any]:
    return {
        "use_steps": [6, 12],
        "use": {"ffn": [[0.5, 0.5], [0.96, 0.04]]},
        "collapsed": {},
        "similarity": {"ffn": {"down": {"a": 0.1, "b": 0.3}}},
        "ways": {name: {"score": score + shift, "loss": 1.0} for name, score in WAYS.items()},
        "barrier": 0.25,
        **changes,
    }


def study(root: Path) -> Path:
    mixed = method("mixed", mixture={"experts": 2})
    write_run(root, mixed, 0, 0.8, mixture=report(0.0))
    write_run(root, mixed, 1, 0.82, mixture=report(0.02, collapsed={"ffn": ["a"]}))
    write_run(root, method("plain"), 0, 0.7)
    return root


def test_the_table_has_means_over_runs_and_no_row_without_a_mixture(tmp_path: Path) -> None:
    (table,) = expert_tables(comparisons_of(collect(study(tmp_path))))
    (row,) = table.rows
    assert row[1] == "2" and [float(cell) for cell in row[2:7]] == [0.81, 0.71, 0.76, 0.61, 0.66]
    assert row[7:] == ("-", "-", "0.25", "0.20")


def test_a_best_expert_that_the_reported_examples_chose_is_an_oracle(tmp_path: Path) -> None:
    """Records from before call it the best expert, and say what chose it; those from now on name it."""
    mixed = method("mixed", mixture={"experts": 2})
    new = {("oracle_expert" if name == "best_expert" else name): {"score": score} for name, score in WAYS.items()}
    write_run(tmp_path, mixed, 0, 0.8, mixture=report(0.0, best_by="evaluation"))
    write_run(tmp_path, mixed, 1, 0.8, mixture=report(0.0, best_by="evaluation", ways=new))
    (table,) = expert_tables(comparisons_of(collect(tmp_path)))
    cells = dict(zip(table.heads, table.rows[0], strict=True))
    assert cells["best single expert"] == "-"
    assert float(cells["oracle: best single expert on these examples"]) == 0.65


def test_the_picture_stacks_the_shares_of_each_interval(tmp_path: Path) -> None:
    (use,) = expert_uses(comparisons_of(collect(study(tmp_path))))
    boxes = [shape for shape in use.drawing.shapes if shape.kind == "box"]
    assert len(boxes) == 4 and boxes[0].height == boxes[1].height and boxes[2].height == 24 * boxes[3].height
    assert (
        boxes[1].y == boxes[0].y + boxes[0].height
        and use.drawing.description == "At the end: expert 0 96%, expert 1 4%"
    )


def test_the_page_has_the_part_only_where_there_is_a_mixture(tmp_path: Path) -> None:
    html = page(collect(study(tmp_path / "mixed")))
    assert 'id="experts"' in html and "ensemble of logits" in html and "Use of experts:" in html
    write_run(tmp_path / "plain", method("plain"), 0, 0.7)
    assert 'id="experts"' not in page(collect(tmp_path / "plain"))
