"""Successive halving and racing: who goes on from rung to rung, and with which right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.searching import FLAGS, by_rate, searched, sweep_in, trials_run
from unipet.cli.main import main
from unipet.config import RunConfig, SearchConfig
from unipet.sweeps.search.confidence import worse_p
from unipet.sweeps.search.rungs import shares
from unipet.sweeps.search.stage_files import read_stages

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 6e-3, 1e-2, 3e-2, 2e-4, 9e-2]
VALUES = f"optim.lr=choice({','.join(map(str, RATES))})"


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_shares_of_a_training() -> None:
    assert shares(SearchConfig(rungs=3, eta=3)) == [0.1111, 0.3333, 1.0]
    assert shares(SearchConfig(rungs=2, eta=2)) == [0.5, 1.0]


def test_halving_lets_the_best_third_go_on_from_where_it_was(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = searched(monkeypatch)
    flags = ["search=halving", "search.trials=9", "search.final_seeds=[5]"]
    assert main(["train", "-m", *FLAGS, "method=lora", VALUES, *flags]) == 0
    steps: dict[float, list[RunConfig]] = {}
    for config in trials_run(ran):
        steps.setdefault(config.trial.until, []).append(config)
    assert {until: len(runs) for until, runs in steps.items()} == {0.1111: 9, 0.3333: 3, 1.0: 1}
    scores = {lr: by_rate(next(c for c in ran if c.optim.lr == lr)) or 0.0 for lr in RATES}
    best = sorted(RATES, key=lambda lr: -scores[lr])
    assert {config.optim.lr for config in steps[0.3333]} == set(best[:3])
    assert [config.optim.lr for config in steps[1.0]] == best[:1]
    assert {config.trial.after for config in steps[0.3333]} == {0.1111} and steps[1.0][0].trial.after == 0.3333
    verdicts = [verdict for stage in read_stages(sweep_in(here)) for verdict in stage.verdicts]
    kinds = [verdict.kind for verdict in verdicts]
    assert kinds.count("stopped") == 7 and kinds.count("no score") == 1 and kinds.count("chosen") == 1
    out = capsys.readouterr().out
    assert "stopped after 0.1111 of its training: 4 of 8 there, the best 3 went on" in out
    assert (ran[-1].optim.lr, ran[-1].trial.role, ran[-1].trial.until) == (best[0], "final", 1.0)


def test_a_race_stops_only_what_is_provably_worse(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quality = {1e-4: 0.5, 1e-3: 0.9, 2e-3: 0.89, 4e-3: 0.7}
    ran = searched(monkeypatch, lambda config: quality[config.optim.lr], examples=400)
    flags = ["search=racing", "search.trials=4", "search.rungs=2", "search.final_seeds=[5]"]
    values = f"optim.lr=choice({','.join(map(str, quality))})"
    assert main(["train", "-m", *FLAGS, "method=lora", values, *flags]) == 0
    last = {config.optim.lr for config in trials_run(ran) if config.trial.until == 1.0}
    assert last == {1e-3, 2e-3}, "0.89 cannot be told from 0.9 by 400 examples"
    stopped = [v for stage in read_stages(sweep_in(here)) for v in stage.verdicts if v.kind == "stopped"]
    assert len(stopped) == 2 and all(v.confidence is not None and 0.95 <= v.confidence <= 1 for v in stopped)
    assert "worse than trial" in capsys.readouterr().out and ran[-1].optim.lr == 1e-3


def test_a_race_without_a_clear_loser_runs_everything(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = searched(monkeypatch, lambda config: 0.8 + config.optim.lr, examples=100)
    flags = ["search=racing", "search.trials=3", "search.rungs=2"]
    assert main(["train", "-m", *FLAGS, "method=lora", "optim.lr=choice(0.001,0.002,0.003)", *flags]) == 0
    assert sum(config.trial.until == 1.0 for config in trials_run(ran)) == 3


def test_a_race_needs_a_score_of_every_example(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["method=lora", "task=stsb", "model=minilm", "optim.lr=choice(1e-3,2e-3)", "search=racing"]
    assert main(["train", "-m", *flags]) == 2
    err = capsys.readouterr().err
    assert "has no score of every example between two limits" in err


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_equal_trials_are_called_worse_no_more_often_than_said(share: float) -> None:
    """Looked at after every example, the p-value is below 0.05 in at most 5 % of races between equals."""
    rng, level, races = np.random.default_rng(0), 0.05, 600
    wrong = 0
    for _ in range(races):
        differ = rng.random(300) < share
        differences = np.where(differ, rng.choice([-1.0, 1.0], 300), 0.0)
        wrong += worse_p(list(differences), level) <= level
    assert wrong / races <= level + 3 * (level * (1 - level) / races) ** 0.5


def test_worse_trials_are_found() -> None:
    rng = np.random.default_rng(1)
    differences = rng.choice([-1.0, 0.0, 1.0], 500, p=[0.05, 0.75, 0.2])
    assert worse_p(list(differences), 1e-3) < 1e-3
    assert worse_p(list(-differences), 1e-3) > 0.5, "the better one is not called worse"
    assert worse_p([], 0.05) == 1.0
    more = [worse_p(list(differences[:n]), 1e-3) for n in range(0, 500, 25)]
    assert more == sorted(more, reverse=True), "what was once sure stays so"
