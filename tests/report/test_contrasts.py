"""Contrasts that are asked for: which runs they pair, what they say, and what is said of a mistake."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.pages import method, write_run
from tests.support.planted import cell, planted
from unipet.cli.main import main
from unipet.errors import UnipetError
from unipet.report import statistics
from unipet.report.cases import study
from unipet.report.collect import Entry
from unipet.report.comparing import compare
from unipet.report.contrasts import Contrast, contrasts, same
from unipet.report.effect_rows import contrasts_csv, contrasts_text

GAINS = [0.02, 0.05, 0.02]


def runs(**more: Any) -> list[Entry]:
    """Two forms, two compositions, three seeds; multiply is better than add by `GAINS`, whatever the form."""
    return [
        planted(0.5 + 0.1 * seed + (composition == "multiply") * gain, cell(form, composition), seed, **more)
        for form in ("parallel", "sequential")
        for composition in ("add", "multiply")
        for seed, gain in enumerate(GAINS)
    ]


def asked(entries: list[Entry], *texts: str, anyway: bool = False) -> list[Contrast]:
    return contrasts(texts, study(compare(entries), anyway))


@pytest.mark.parametrize(
    "key", ["method.insertions.ffn.composition", "composition", "method.insertions.ffn.composition.name"]
)
def test_the_interval_is_students_by_hand(key: str) -> None:
    (contrast,) = asked(runs(), f"{key}=multiply vs add")
    (one,) = contrast.estimates
    # mean 0.03, standard deviation 0.03 / √3, standard error 0.01; t(2) = 4.302653
    assert one.difference == pytest.approx(0.03) and (one.pairs, one.seeds, one.basis) == (2, 3, "seeds")
    assert (one.low, one.high) == (pytest.approx(0.03 - 0.04302653), pytest.approx(0.03 + 0.04302653))
    assert one.p == pytest.approx(0.0955, abs=1e-4) and one.verdict == "not distinguishable"
    (turned,) = asked(runs(), f"{key}=add vs multiply")
    assert turned.estimates[0].difference == pytest.approx(-0.03)


def test_methods_are_compared_by_name_over_tasks_whatever_their_learning_rates() -> None:
    rng = np.random.default_rng(0)
    gains = {"t1": rng.normal(0.05, 0.01, 4), "t2": rng.normal(0.01, 0.01, 4)}
    entries = [
        planted(0.5 + (name == "new") * gain, name, seed, task, lr=0.1 if name == "new" else 0.2)
        for task, some in gains.items()
        for seed, gain in enumerate(some)
        for name in ("old", "new")
    ]
    (contrast,) = asked(entries, "method=new vs old")
    expected = statistics.stratified([statistics.Stratum(some) for some in gains.values()], "seeds")
    assert [each.task for each in contrast.estimates] == ["t1", "t2", "over tasks"]
    over = contrast.estimates[-1]
    assert (over.difference, over.low) == (
        pytest.approx(float(expected.difference)),
        pytest.approx(float(expected.low)),
    )
    assert over.tuned == ("optim.lr",) and "tuned apart in optim.lr" in contrasts_text([contrast])
    rows = list(csv.DictReader(io.StringIO(contrasts_csv([contrast]))))
    assert [row["task"] for row in rows] == ["t1", "t2", "over tasks"] and rows[0]["a"] == "new"


def test_p_values_are_corrected_over_all_contrasts_that_are_asked_for() -> None:
    entries = [planted(0.5 + at * 0.01 * (1 + seed), f"m{at}", seed) for at in range(3) for seed in range(4)]
    three = asked(entries, "method=m1 vs m0", "method=m2 vs m0", "method=m2 vs m1")
    values = [each.estimates[0].p for each in three]
    assert all(p is not None for p in values)
    assert [each.estimates[0].p_adjusted for each in three] == statistics.holm([p for p in values if p is not None])
    assert asked(entries, "method=m1 vs m0")[0].estimates[0].p_adjusted == values[0]


def test_a_grid_of_learning_rates_is_paired_at_equal_rates() -> None:
    entries = [
        planted(0.5 + lr + (form == "parallel") * 0.1, cell(form), lr=lr)
        for form in ("parallel", "sequential")
        for lr in (0.1, 0.2)
    ]
    (contrast,) = asked(entries, "form=parallel vs sequential")
    (one,) = contrast.estimates
    assert (one.pairs, one.difference, one.tuned) == (2, pytest.approx(0.1), ())


def test_a_method_tuned_on_each_task_is_one_method() -> None:
    """Each task has its own variant of `a`, and a name means whichever stands there; two on one task are told by label."""
    entries = [
        planted(0.5 + gain + (name == "a") * 0.1, cell(size=size if name == "a" else 8, name=name), seed, task)
        for seed, gain in enumerate(GAINS)
        for name in ("a", "b")
        for task, size in (("t", 8), ("u", 16))
    ]
    (contrast,) = asked(entries, "method=a vs b")
    (one,) = [each for each in contrast.estimates if each.pairs == 2]
    assert one.difference == pytest.approx(0.1)
    with pytest.raises(UnipetError, match=r"a has several variants here"):
        asked([*entries, planted(0.5, cell(size=32, name="a"), 0, "t")], "method=a vs b")


def test_variants_of_two_methods_are_paired_at_equal_options_or_named_by_label() -> None:
    entries = [
        planted(0.5 + size / 100 + (name == "b"), cell(size=size, name=name)) for name in ("a", "b") for size in (8, 16)
    ]
    (contrast,) = asked(entries, "method=b vs a")
    assert (contrast.estimates[0].pairs, contrast.estimates[0].difference) == (2, pytest.approx(1.0))
    entries += [planted(0.2, "c")]
    with pytest.raises(UnipetError, match=r"several variants here\. Name one by its label: a · size=16, a · size=8"):
        asked(entries, "method=a vs c")
    (contrast,) = asked(entries, "method=a · size=16 vs c")
    assert contrast.estimates[0].difference == pytest.approx(0.46)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("composition", "not a contrast"),
        ("composition=add", "not a contrast"),
        ("composition=add vs add", "both sides are the same"),
        (
            "composition=add vs multiplyy",
            "no run with a score has composition=multiplyy. There are: add, multiply. Did you mean 'multiply'",
        ),
        ("compositon=add vs multiply", "Did you mean 'composition'?"),
        ("method=nobody vs bn", "no run with a score has method=nobody"),
    ],
)
def test_a_mistake_is_explained(text: str, said: str) -> None:
    with pytest.raises(UnipetError) as raised:
        asked(runs(), text)
    assert said in str(raised.value)


def test_runs_that_differ_in_more_say_in_what() -> None:
    entries = [
        planted(0.5, cell(), config={"max_length": 64}),
        planted(0.6, cell("sequential"), config={"max_length": 128}),
    ]
    (contrast,) = asked(entries, "form=parallel vs sequential")
    assert not contrast.estimates and "the closest differ also in task.max_length (64 | 128)" in contrast.why_not
    assert "not tested: no two runs differ in this alone" in contrasts_text([contrast])


def test_a_method_that_has_no_score_yet_does_not_stop_the_report() -> None:
    (contrast,) = asked([planted(0.5, "old"), planted(None, "new")], "method=new vs old")
    assert contrast.why_not == "no run of new has a score"


def test_values_are_recognised_however_they_are_spelt() -> None:
    assert same("4.0", "4") and same("attn.q+attn.v", "[attn.q, attn.v]") and same("add", "add")
    assert not same("4.0", "40") and not same("attn.q", "[attn.q, attn.v]")


def test_the_command_writes_contrasts_effects_and_averages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for task in ("t1", "t2"):
        for name, score in (("low", 0.5), ("high", 0.7)):
            for seed in (0, 1):
                scaling = {"name": "constant", "value": 4.0 if name == "high" else 1.0}
                write_run(Path("runs"), method(name, scaling=scaling), seed, score + 0.01 * seed, task=task)
    files = [
        part for name in ("effects", "contrasts", "averages", "improvement") for part in (f"--{name}", f"{name}.csv")
    ]
    assert main(["report", "runs", *files, "--contrast", "scaling=4.0 vs 1.0", "--contrast", "method=high vs low"]) == 0
    said = capsys.readouterr().out
    assert "main effects (difference = after - before" in said and "contrasts (difference = first - second" in said
    assert "over 2 tasks, tiny, budget none" in said and "+0.2000" in said
    heads = {
        name: Path(f"{name}.csv").read_text().splitlines()
        for name in ("effects", "contrasts", "averages", "improvement")
    }
    assert [len(lines) for lines in heads.values()] == [4, 7, 3, 2]
    assert main(["report", "runs", "--contrast", "nothing"]) != 0
