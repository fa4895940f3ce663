"""Verdicts, paper tables and the command, on runs made by hand whose differences are known."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import EXAMPLES, RATES, two_tasks, write_run
from unipet.cli.main import main
from unipet.errors import UnipetError
from unipet.report.aggregate import aggregate
from unipet.report.collect import Entry, collect
from unipet.report.comparing import BEST, DIFFERENT, NOT_WORSE, SAME, UNTESTED, WORSE, Group, compare
from unipet.report.latex import escape, latex
from unipet.report.markdown import markdown
from unipet.report.paper import paper_table, wide_csv
from unipet.report.verdicts import pairs_csv, verdicts_text
from unipet.report.writers import WRITERS, Report


def three(root: Path, seeds: int = 3, **changes: Any) -> list[Entry]:
    for method in RATES:
        for seed in range(seeds):
            write_run(root, method, seed, **changes)
    return collect(root)


def only(entries: list[Entry], anyway: bool = False) -> Group:
    (group,) = compare(entries, anyway)
    return group


def test_what_differs_is_found_and_what_does_not_is_said(tmp_path: Path) -> None:
    group = only(three(tmp_path))
    verdicts = {(pair.a, pair.b): pair.verdict for pair in group.pairs}
    best, second = ("good", "alike") if ("good", "alike") in verdicts else ("alike", "good")
    assert verdicts == {(best, second): SAME, (best, "bad"): DIFFERENT, (second, "bad"): DIFFERENT}
    assert group.standings == {best: BEST, second: NOT_WORSE, "bad": WORSE}
    for pair in group.pairs:
        assert pair.basis == "seeds and examples" and (pair.seeds, pair.examples) == (3, EXAMPLES)
        assert pair.low is not None and pair.high is not None and pair.difference is not None
        assert pair.low < pair.difference < pair.high and (pair.low > 0) == (pair.p is not None and pair.p < 0.05)
        assert pair.p is not None and pair.p_adjusted is not None and pair.p <= pair.p_adjusted <= 3 * pair.p
    assert group.ranked and not group.warnings and not group.differences
    text = verdicts_text([group])
    assert "paired over 3 seeds and 400 examples; Holm over 3 pairs" in text
    assert f"not distinguishable from the best: {second} (p " in text and "worse than the best: bad (p < 0.001)" in text


def test_the_same_predictions_are_never_different(tmp_path: Path) -> None:
    for seed in range(3):
        one = write_run(tmp_path, "good", seed)
        other = write_run(tmp_path, "twin", seed)
        (other / "predictions.jsonl").write_bytes((one / "predictions.jsonl").read_bytes())
        record = json.loads((other / "result.json").read_text())
        record["score"] = json.loads((one / "result.json").read_text())["score"]
        (other / "result.json").write_text(json.dumps(record))
    (pair,) = only(collect(tmp_path)).pairs
    assert (pair.difference, pair.p, pair.verdict) == (0.0, 1.0, SAME)


def test_one_seed_speaks_of_the_trained_models_only_and_warns(tmp_path: Path) -> None:
    group = only(three(tmp_path, seeds=1))
    assert {pair.basis for pair in group.pairs} == {"examples"}
    assert any("fewer than three seeds: " in text for text in group.warnings)
    assert any("one seed in common" in text for text in group.warnings)
    assert "the trained models fixed" in verdicts_text([group])


def test_without_predictions_seeds_alone_are_compared(tmp_path: Path) -> None:
    group = only(three(tmp_path, predictions=False))
    assert {pair.basis for pair in group.pairs} == {"seeds"}
    assert any(text == "bad: examples are not compared in 3 of 3 runs: no predictions.jsonl" for text in group.warnings)


def test_nothing_to_test_is_not_a_verdict(tmp_path: Path) -> None:
    group = only(three(tmp_path, seeds=1, predictions=False))
    assert {pair.verdict for pair in group.pairs} == {UNTESTED}
    assert sorted(group.standings.values()) == sorted([BEST, UNTESTED, UNTESTED])
    table = paper_table([group])
    assert "<u>" not in markdown(table) and "underline" not in latex(table).split("caption")[0]
    assert "nothing can be tested" in verdicts_text([group])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": {"fingerprint": "f1"}}, 'data fingerprint differs: "f0" (good, bad); "f1" (alike)'),
        (
            {"data": {"selection": {"by": "validation"}}, "config": {"selection": "validation"}},
            "task.selection differs",
        ),
        ({"metric": "f1"}, "metric differs"),
    ],
)
def test_a_difference_in_protocol_is_named_and_not_ranked(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    for seed in range(3):
        write_run(tmp_path, "good", seed)
        write_run(tmp_path, "bad", seed)
        write_run(tmp_path, "alike", seed, **changes)
    entries = collect(tmp_path)
    group = only(entries)
    assert not group.ranked and not group.pairs and not group.standings
    assert any(named in text for text in group.differences), group.differences
    assert "not ranked: " in verdicts_text([group]) and "--anyway" in verdicts_text([group])
    table = markdown(paper_table([group]))
    assert "**" not in table and "<u>" not in table and "not ranked: " in table

    if "metric" not in changes:
        asked = only(entries, anyway=True)
        assert asked.ranked and len(asked.pairs) == 3 and asked.differences == group.differences
        assert "ranked although" in verdicts_text([asked]) and "ranked although" in markdown(paper_table([asked]))


def test_what_is_not_protocol_may_differ(tmp_path: Path) -> None:
    """Every method of `three` has a data_dir of its own; a record without a configuration says nothing against it."""
    entries = three(tmp_path)
    bare = [Entry(one.record, {}, (), one.directory) for one in entries]
    assert only(bare).ranked and only(entries).ranked


def test_a_limit_of_its_own_is_a_budget_of_its_own(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "good", seed)
        write_run(tmp_path, "alike", seed, budget={"name": "none", "max_steps": 5})
    assert [(one.budget, one.labels) for one in compare(collect(tmp_path))] == [
        ("max_steps=5", ("alike",)),
        ("none", ("good",)),
    ]


def test_budgets_are_ranked_apart_unless_asked(tmp_path: Path) -> None:
    for seed in range(3):
        for name, steps in (("small", 5), ("large", 50)):
            write_run(
                tmp_path, "good", seed, budget={"name": name, "max_steps": steps}, rate=0.6 if steps == 5 else 0.8
            )
            write_run(tmp_path, "bad", seed, budget={"name": name, "max_steps": steps})
    entries = collect(tmp_path)
    assert [(one.budget, len(one.pairs)) for one in compare(entries)] == [
        ("large, max_steps=50", 1),
        ("small, max_steps=5", 1),
    ]
    assert len(paper_table(compare(entries)).blocks) == 2
    group = only(entries, anyway=True)
    assert (
        len(group.pairs) == 6
        and group.standings["good [large, max_steps=50]"] == BEST
        and group.standings["good [small, max_steps=5]"] == WORSE
    )
    assert group.differences[0] == "budgets differ: large, max_steps=50; small, max_steps=5"


def test_less_is_better_for_some_metrics(tmp_path: Path) -> None:
    entries = three(tmp_path, metric="perplexity")
    group = only(entries)
    assert group.rows[0].label == "bad" and group.standings["bad"] == BEST
    assert all(pair.difference is not None and pair.difference > 0 for pair in group.pairs if pair.a == "bad")
    assert any("perplexity cannot be computed on resampled examples" in text for text in group.warnings)
    assert "perplexity ↓" in markdown(paper_table([group]))


def test_other_examples_are_not_paired(tmp_path: Path) -> None:
    three(tmp_path)
    path = tmp_path / "good-t-0-none" / "predictions.jsonl"
    path.write_text(path.read_text().replace('{"id": "0"', '{"id": "zero"'))
    group = only(collect(tmp_path))
    assert {pair.basis for pair in group.pairs} == {"seeds"}
    assert any("not scored on the same examples" in text for text in group.warnings)


def test_lost_runs_and_seeds_are_said(tmp_path: Path) -> None:
    three(tmp_path)
    path = tmp_path / "good-t-1-none" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "score": None}))
    group = only(collect(tmp_path))
    assert any(text.startswith("runs without a score: good (1 of 3)") for text in group.warnings)
    assert {pair.seeds for pair in group.pairs if "good" in (pair.a, pair.b)} == {2}


def test_equal_means_are_ties_and_all_of_them_are_best(tmp_path: Path) -> None:
    """Also where the seeds differ and only the means agree; a third row is judged against both."""
    for method, rates in (("one", (0.81, 0.8, 0.79)), ("two", (0.79, 0.81, 0.8)), ("bad", (0.3, 0.3, 0.3))):
        for seed, rate in enumerate(rates):
            write_run(tmp_path, method, seed, predictions=False, record={"score": rate})
    group = only(collect(tmp_path))
    assert group.standings == {"one": BEST, "two": BEST, "bad": WORSE} and group.best == ("one", "two")
    assert "best mean (equal): one and two" in verdicts_text([group])
    table = paper_table([group])
    assert markdown(table).count("**0.8000") == 2 and latex(table).count(r"\mathbf{0.8000}") == 2
    assert wide_csv(table).count(",best,") == 2
    from unipet.report.figures import scores
    from unipet.report.page.document import page

    assert page(collect(tmp_path)).count("★ best") == 2
    marks = [line for line in scores([group]).axes[0].lines if line.get_marker() == "D"]
    assert [str(mark.get_markerfacecolor()) for mark in marks].count("#0b5fa5") == 2


@pytest.mark.parametrize("score", [0.0, 0.5, -0.25])
def test_all_equal_is_no_winner(tmp_path: Path, score: float) -> None:
    for method in ("a", "b"):
        for seed in range(2):
            write_run(tmp_path, method, seed, predictions=False, record={"score": score})
    group = only(collect(tmp_path))
    assert set(group.standings.values()) == {BEST} and group.pairs[0].verdict == SAME


# --- one run counts once ---


@pytest.mark.parametrize("copies", [1, 3])
def test_one_run_is_one_run_wherever_its_records_lie(tmp_path: Path, copies: int) -> None:
    for seed in range(2):
        for copy in range(copies):
            write_run(tmp_path / "runs" / ("nested/" * copy), "good", seed)
    entries = collect(tmp_path / "runs")
    (row,) = aggregate(entries)
    assert (row.scored, row.runs, len(entries), row.repeated) == (2, 2, 2, 0)
    assert row.std == pytest.approx(abs(row.scores[0] - row.scores[1]) / 2**0.5)


def test_a_seed_counts_once_whatever_its_run_id(tmp_path: Path) -> None:
    """A record of an older identity and one of today, of the same configuration, data and seed."""
    for seed in range(2):
        write_run(tmp_path / "old", "good", seed, record={"run_id": f"old{seed}"})
        write_run(tmp_path / "new", "good", seed, 0.7, record={"run_id": f"new{seed}", "finished": "2027-01-01"})
    (group,) = compare(collect(tmp_path))
    (row,) = group.rows
    assert (row.scored, row.runs, row.repeated) == (2, 2, 2) and max(row.scores) < 0.75, "the last that finished"
    assert any("several runs of one seed" in text and "good (2)" in text for text in group.warnings)


def test_one_run_id_on_two_data_sets_is_two_runs(tmp_path: Path) -> None:
    """Older identities left the data out: neither result is lost, neither is averaged with the other."""
    for name in ("a", "b"):
        write_run(
            tmp_path / name,
            "good",
            record={"run_id": "same"},
            data={"fingerprint": name},
            config={"data_dir": f"in/{name}"},
        )
    rows = aggregate(collect(tmp_path))
    assert sorted(row.label for row in rows) == ["good · data=a", "good · data=b"] and [row.runs for row in rows] == [
        1,
        1,
    ]


def test_two_spellings_of_a_place_are_one_configuration(tmp_path: Path) -> None:
    for seed, place in enumerate(("data", "./data", "elsewhere/../data", "/abs/data")):
        write_run(tmp_path, "good", seed, config={"data_dir": place})
    (row,) = aggregate(collect(tmp_path))
    assert (row.scored, row.label) == (4, "good")


# --- tables ---------------------------------------------------------------------------------------------------------


def test_the_table_has_methods_as_rows_and_tasks_as_columns(tmp_path: Path) -> None:
    groups = two_tasks(tmp_path)
    means = {(row.method, row.task): (row.score, row.std) for group in groups for row in group.rows}
    table = paper_table(groups, ["good", "bad"])
    lines = [line for line in markdown(table).splitlines() if line.startswith("| ")]
    assert lines[0] == "| method | parameters, % | t (accuracy) | u\\_2 (synthetic) (accuracy) |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| good", "| bad", "| alike"]
    mean, std = means["bad", "u_2"]
    assert mean is not None and std is not None
    assert lines[3].endswith(f"| {mean:.4f} ± {std:.4f} |") and "| 0.300 |" in lines[3]
    assert lines[4].endswith("| - |") and sum(line.count("**") for line in lines) == 4
    rows = list(csv.DictReader(io.StringIO(wide_csv(table))))
    assert [row["method"] for row in rows] == ["good", "bad", "alike"]
    assert float(rows[1]["u_2 (synthetic) accuracy"]) == mean and rows[2]["u_2 (synthetic) accuracy"] == ""
    assert float(rows[1]["u_2 (synthetic) accuracy std"]) == pytest.approx(std)
    assert {row["t accuracy standing"] for row in rows} == {BEST, NOT_WORSE, WORSE}


def test_a_budget_without_any_score_adds_no_column(tmp_path: Path) -> None:
    """A skipped run knows its task and no metric: it stands in the column of the task's others."""
    write_run(tmp_path, "good", 0)
    none = {"status": "skipped", "score": None, "metric": None, "metrics": {}}
    write_run(tmp_path, "good", 0, budget={"name": "tight", "max_steps": 1}, record=none)
    table = paper_table(compare(collect(tmp_path)))
    assert [(one.task, one.metric) for one in table.columns] == [("t", "accuracy")] and len(table.blocks) == 2


def test_the_latex_is_well_formed_and_holds_the_same_numbers(tmp_path: Path) -> None:
    groups = two_tasks(tmp_path)
    table = paper_table(groups)
    text = latex(table)
    body = re.search(r"\\begin\{tabular\}\{(\w+)\}(.*)\\end\{tabular\}", text, re.DOTALL)
    assert body is not None
    rows = [line for line in body[2].splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {row.count(" & ") for row in rows} == {len(body[1]) - 1} and len(rows) == 2 + 3
    assert all(row.count("$") % 2 == 0 for row in rows) and text.count("{") == text.count("}")
    assert r"u\_2" in text and not re.search(r"(?<!\\)[_%#](?!.*Made by)", body[2])
    for group in groups:
        for row in group.rows:
            assert row.score is not None and f"{row.score:.4f}" in text
    assert text.count(r"\mathbf") == 2 and text.count(r"\underline") == 1
    assert re.search(r"\\underline\{\$[\d.]+ \\pm [\d.]+\$\}", text)


def test_no_name_breaks_a_table(tmp_path: Path) -> None:
    name = r"50%_of{a}\b & <b>|*x*| #1 $y$ ~^ “ä”"
    for seed in range(2):
        write_run(tmp_path / "a", "good", seed)
        write_run(tmp_path / str(seed), "bad", seed, record={"method": name})
    table = paper_table(compare(collect(tmp_path)))
    row = next(line for line in latex(table).splitlines() if line.startswith("50"))
    assert len(re.findall(r"(?<!\\)&", row)) == 2 and r"50\%\_of\{a\}\textbackslash{}b \&" in row and "“" not in row
    assert re.sub(r"\\.", "", next(x for x in markdown(table).splitlines() if "50%" in x)).count("|") == 4
    assert next(csv.DictReader(io.StringIO(wide_csv(table))))["method"] == name
    assert escape("a  b\nc") == "a b c"


def test_pairs_hold_every_number(tmp_path: Path) -> None:
    group = only(three(tmp_path))
    rows = list(csv.DictReader(io.StringIO(pairs_csv([group]))))
    assert len(rows) == 3 and {row["metric"] for row in rows} == {"accuracy"}
    assert float(rows[0]["p"]) == group.pairs[0].p and rows[0]["verdict"] == group.pairs[0].verdict


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_writes_every_file_or_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_tasks(tmp_path / "runs")
    names = ("latex", "markdown", "csv", "rows", "pairs")
    options = [word for name in names for word in (f"--{name}", str(tmp_path / "out" / name))]
    assert main(["report", str(tmp_path / "runs"), *options, "--figures", str(tmp_path / "out" / "figures")]) == 0
    shown = capsys.readouterr().out
    assert "best mean: " in shown and "0.8" in shown
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names, "figures"])

    def broken(report: Report) -> str:
        raise UnipetError("nothing to write")

    monkeypatch.setitem(WRITERS, "rows", ("", broken))
    both = ("--latex", str(tmp_path / "late.tex"), "--rows", str(tmp_path / "late.csv"))
    assert main(["report", str(tmp_path / "runs"), *both]) == 2
    assert "nothing to write" in capsys.readouterr().err and not list(tmp_path.glob("late.*"))
