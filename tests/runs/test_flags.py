"""Flags: raised for runs that learned nothing, lost it again or answer one thing; silent for runs that did learn."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import EXAMPLES, write_run
from unipet.report.aggregate import aggregate
from unipet.report.cases import study
from unipet.report.collect import collect
from unipet.report.comparing import BEST, compare
from unipet.report.contrasts import contrasts
from unipet.report.effect_rows import contrasts_csv, contrasts_text
from unipet.report.figures import scores
from unipet.report.latex import latex
from unipet.report.markdown import markdown
from unipet.report.page.document import page
from unipet.report.paper import paper_table, wide_csv
from unipet.report.table import csv_table, markdown_table, text_table
from unipet.report.verdicts import pairs_csv, verdicts_text
from unipet.runs.flags import diverged, of_parts, raised
from unipet.runs.record import InsertionRow, Record


def labelled(guesses: list[Any], labels: list[Any]) -> list[dict[str, Any]]:
    return [{"prediction": one, "label": other} for one, other in zip(guesses, labels, strict=True)]


def texts(given: list[str], references: list[str]) -> list[dict[str, Any]]:
    return [{"prediction": one, "references": [other]} for one, other in zip(given, references, strict=True)]


@pytest.mark.parametrize(
    ("rows", "regression", "names"),
    [
        (labelled([0, 1, 1, 0], [0, 1, 0, 0]), False, ["at_majority"]),
        (labelled([0, 1, 0, 0], [0, 1, 0, 0]), False, []),
        (labelled([1, 1, 1, 1], [0, 1, 1, 1]), False, ["one_answer"]),
        (labelled([0, 0, 0, 0], [0, 1, 1, 1]), False, ["one_answer", "below_majority"]),
        (labelled([1, 0, 0, 1], [0, 1, 0, 0]), False, ["below_majority"]),
        (labelled([1, 0, 0, 0], [1, 1, 0, 0]), False, []),
        (labelled([1, 1], [1, 1]), False, []),  # there is one right answer
        (labelled([[0, 0], [0, -1]], [[0, 1], [0, 0]]), False, ["one_answer"]),
        (labelled([[0, 1], [None, 0]], [[0, 1], [1, 0]]), False, []),
        (labelled([[1, 1], [1, 0]], [[0, 0], [0, 0]]), False, ["below_majority"]),
        (labelled([2.5, 2.5000001, 2.5], [1.0, 3.0, 3.5]), True, ["one_answer"]),
        (labelled([9.0, 1.0, 0.0], [1.0, 3.0, 3.5]), True, ["below_mean"]),
        (labelled([1.2, 2.8, 3.6], [1.0, 3.0, 3.5]), True, []),
        (texts(["a", "a", "a"], ["x", "y", "z"]), False, ["one_answer"]),
        (texts(["", " ", ""], ["x", "y", "z"]), False, ["one_answer", "empty_texts"]),
        (texts(["a", "", "c"], ["x", "y", "z"]), False, ["empty_texts"]),
        (texts(["a", "b", "c"], ["x", "y", "z"]), False, []),
        ([], False, []),
    ],
)
def test_answers(rows: list[dict[str, Any]], regression: bool, names: list[str]) -> None:
    found = raised(rows, regression, [])
    assert [flag.name for flag in found] == names
    assert all(len(flag.text) > 10 for flag in found)


def test_an_insertion_that_did_not_move_is_flagged() -> None:
    tensors = ["ffn/a/down", "ffn/a/up", "ffn/b/down", "ffn/b/up"]
    row = InsertionRow(name="ffn", modules=["a", "b"], shapes={"down": [1, 2], "up": [2, 1]}, untrained=tensors)
    (flag,) = of_parts(Record(insertions=[row]))
    assert flag.name == "unmoved" and "'ffn'" in flag.text
    row.untrained = tensors[:3]  # such as experts that no step was routed to
    assert of_parts(Record(insertions=[row])) == []


FALLING = [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.12, 0.1, 0.1]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (FALLING, ""),
        ([*FALLING, 0.1, 0.3, 0.1], ""),  # one noisy batch
        ([*FALLING, 0.6, 0.7, 0.7], "fell to"),
        ([*FALLING, 4.0, 9.0, 30.0], "fell to"),
        ([0.7, 0.69, 0.7, 0.71, 0.7, 0.69, 0.7], ""),  # learned nothing, which is another flag
        ([0.7, 1.5, 3.0, 6.0, 6.0, 6.0], "began at"),
        ([*FALLING, None], "not a finite"),
        ([*FALLING, float("nan")], "not a finite"),
        ([*FALLING, float("inf")], "not a finite"),
        ([0.1, 9.0], ""),  # too few to speak of a course
        ([], ""),
    ],
)
def test_a_training_that_lost_what_it_had_gained_diverged(losses: list[Any], said: str) -> None:
    assert said in diverged(losses) if said else diverged(losses) == ""
    steps = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    assert bool([one for one in raised([], False, [*steps, {"step": 1, "selection/f1": 0.1}]) if one]) == bool(said)


def test_a_run_flags_itself(tmp_path: Path) -> None:
    """A learning rate of nearly nothing: whatever the drawn head answers, it is below or at the majority."""
    from tests.support.running import HEAD_ONLY, tiny_config
    from unipet.runs.run import run

    config = tiny_config(tmp_path, HEAD_ONLY, optim__lr=50.0, optim__warmup_ratio=0.0)
    record = run(config)
    (directory,) = (tmp_path / "runs").glob("tiny*")
    rows = [json.loads(line) for line in (directory / "predictions.jsonl").read_text().splitlines()]
    steps = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    again = [flag.to_dict() for flag in raised(rows, False, steps)]
    assert record["flags"] == again == json.loads((directory / "result.json").read_text())["flags"]


def flagged_best(root: Path) -> None:
    """`bad` has the best score although it gives one answer: the others are worse still."""
    for seed in range(3):
        write_run(root, "alike", seed, 0.3)
        directory = write_run(root, "bad", seed, 0.5)
        lines = [json.loads(line) for line in (directory / "predictions.jsonl").read_text().splitlines()]
        for line in lines:
            line.update(prediction=1, score=float(line["label"] == 1))
        (directory / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        record = json.loads((directory / "result.json").read_text()) | {"score": 0.5}
        if seed == 0:  # a record of today; the others are from before there were flags
            record["flags"] = [{"name": "one_answer", "text": "all 400 examples got the same answer (1)"}]
        (directory / "result.json").write_text(json.dumps(record))


def test_flags_stand_in_every_output_and_beside_the_verdict(tmp_path: Path) -> None:
    flagged_best(tmp_path)
    entries = collect(tmp_path)
    groups, rows = compare(entries), aggregate(entries)
    assert groups[0].standings["bad"] == BEST
    bad = next(row for row in rows if row.method == "bad")
    assert [(one.name, len(one.seeds), one.runs) for one in bad.flags] == [("one_answer", 3, 3)]
    table = paper_table(groups)
    for text in (text_table(rows), markdown_table(rows)):
        assert "0.5000 ± 0.0000 †" in text and f"† bad: one_answer: seed 0: all {EXAMPLES} examples" in text
    assert "† flagged: bad: one_answer" in verdicts_text(groups)
    assert "**0.5000 ± 0.0000** †" in markdown(
        table
    ) and "† one\\_answer (one answer for every example): bad" in markdown(table)
    assert r"$^\dagger$ \\" in latex(table) and r"$^\dagger$ one\_answer" in latex(table)
    read = {row["method"]: row for row in csv.DictReader(io.StringIO(csv_table(rows)))}
    assert (read["bad"]["flags"], read["alike"]["flags"]) == ("one_answer", "below_majority")
    wide = {row["method"]: row for row in csv.DictReader(io.StringIO(wide_csv(table)))}
    assert wide["bad"]["t accuracy flags"] == "one_answer"
    pairs = {(row["a"], row["b"]): row["flags"] for row in csv.DictReader(io.StringIO(pairs_csv(groups)))}
    assert "bad: one_answer" in pairs["bad", "alike"]
    (contrast,) = contrasts(["method=bad vs alike"], study(groups))
    assert "† with runs that are flagged: bad on t: one_answer" in contrasts_text([contrast])
    assert "bad on t: one_answer" in contrasts_csv([contrast])
    html = page(entries)
    assert '"bad \\u2020"' in html or '"bad †"' in html, "charts"
    assert "Flagged, and the best mean all the same: bad: one_answer" in html and 'class="chip flag">one_answer' in html
    assert any(label.get_text().startswith("bad †") for label in scores(groups).axes[0].get_yticklabels())


def test_a_record_with_neither_flags_nor_predictions_says_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, "good", predictions=False)
    (row,) = aggregate(collect(tmp_path))
    assert row.flags == () and "†" not in text_table([row])
