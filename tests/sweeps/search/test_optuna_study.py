"""Optuna's proposals: made from the records alone, so that they are the same whoever asks, and whenever."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.searching import FLAGS, LR, by_rate, searched, sweep_in, trials_run
from unipet.cli.main import main
from unipet.compose.search_space import SearchedKey, SearchSpace
from unipet.config import RunConfig, SearchConfig
from unipet.runs.record import Record
from unipet.sweeps.search.draws import Choice, random_choices
from unipet.sweeps.search.study import Done, Study, Trial

pytest.importorskip("optuna", reason="optuna is not installed: pip install unipet[optuna]")
from unipet.sweeps.search.optuna_study import proposals, propose

SPACE = SearchSpace(
    [
        SearchedKey("optim.lr", "optim.lr", (), 1e-4, 1e-1, log=True),
        SearchedKey("size", "size", ("4", "8", "16")),
        SearchedKey("k", "k", (), 1, 30, whole=True),
    ]
)


def studied(search: SearchConfig) -> Study:
    """A study to its end; the best is near 10^-2.5 and k = 10. Every second trial of size 16 fails."""
    study = Study(
        0, "", [Trial(n, choice) for n, choice in enumerate(random_choices(SPACE, search.startup, 0))], search, SPACE
    )
    while (asked := propose(study)).runs:
        study.trials += [Trial(len(study.trials) + at, choice) for at, choice in enumerate(asked.new)]
        for run in asked.runs:
            trial = study.trials[run.trial]
            trial.runs = {1.0: {0: Done(recorded(run.trial, trial.choice), None)}}
    return study


def recorded(number: int, choice: Choice) -> Record:
    rate, size, k = choice
    record = Record(status="failed") if size == "16" and number % 2 else Record(status="ok")
    record.score = 1 - abs(math.log10(float(rate)) + 2.5) / 3 - abs(int(k) - 10) / 60
    record.params.trainable = int(size)
    return record


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("objectives", [["score"], ["score", "params"]], ids=len)
def test_a_study_is_the_same_each_time(sampler: str, objectives: list[str]) -> None:
    search = SearchConfig(name="optuna", trials=14, startup=4, batch=3, sampler=sampler, objectives=objectives)
    first, again = studied(search), studied(search)
    choices = [trial.choice for trial in first.trials]
    assert choices == [trial.choice for trial in again.trials] and len(set(choices)) == 14
    assert all(1e-4 <= float(c[0]) <= 1e-1 and c[1] in ("4", "8", "16") and 1 <= int(c[2]) <= 30 for c in choices)
    other = SearchConfig(name="optuna", trials=14, startup=4, batch=3, sampler=sampler, objectives=objectives, seed=1)
    assert [trial.choice for trial in studied(other).trials[4:]] != choices[4:]


def test_proposals_are_better_than_draws() -> None:
    means = {}
    for kind, startup in (("random", 60), ("tpe", 8)):
        study = studied(SearchConfig(name="optuna", trials=60, startup=startup, batch=1))
        scores = [trial.score(1.0, [0]) for trial in study.trials[8:]]
        known = [score for score in scores if score is not None]
        means[kind] = sum(known) / len(known)
    assert means["tpe"] > means["random"] + 0.05


def test_a_gaussian_process_proposes() -> None:
    study = studied(SearchConfig(name="optuna", trials=5, startup=3, batch=1, sampler="gp"))
    assert len({trial.choice for trial in study.trials}) == 5


def test_a_space_that_is_used_up_ends_the_study() -> None:
    space = SearchSpace([SearchedKey("a", "a", ("1", "2", "3"))])
    search = SearchConfig(name="optuna", trials=9, startup=2)
    study = Study(0, "", [Trial(n, choice) for n, choice in enumerate(random_choices(space, 2, 0))], search, space)
    for trial in study.trials:
        trial.runs = {1.0: {0: Done(Record(status="ok", score=1.0), None)}}
    (third,) = propose(study).new
    study.trials.append(Trial(2, third))
    study.trials[2].runs = {1.0: {0: Done(Record(status="failed"), None)}}
    assert not propose(study).runs and {trial.choice[0] for trial in study.trials} == {"1", "2", "3"}


def test_a_sweep_with_proposals_goes_on_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        "train",
        "-m",
        *FLAGS,
        "method=lora,bitfit",
        LR,
        "search=optuna",
        "search.trials=6",
        "search.batch=2",
        "search.startup=2",
    ]

    def score(config: RunConfig) -> float:
        return by_rate(config) or 0.1  # nothing fails: a failed trial of the last stage would be tried again

    whole = searched(monkeypatch, score)
    assert main(command) == 0
    assert {name: sum(c.method["name"] == name for c in trials_run(whole)) for name in ("lora", "bitfit")} == {
        "lora": 6,
        "bitfit": 6,
    }
    sweep = sweep_in(tmp_path)
    proposed = {path.name: path.read_bytes() for path in (sweep / "trials").iterdir()}
    for path in [*(sweep / "stages").glob("[2-9].json"), *(sweep / "trials").glob("?-[45].yaml")]:
        path.unlink()  # as if it had been killed after its first stage of proposals
    for path in (sweep / "jobs").iterdir():
        if int(path.stem) >= 8:
            path.unlink()
    rest = searched(monkeypatch, score)
    assert main(["sweep", "resume", str(sweep)]) == 0
    assert {path.name: path.read_bytes() for path in (sweep / "trials").iterdir()} == proposed and len(proposed) == 12
    said = [(c.method["name"], c.optim.lr, c.seed) for c in whole]
    assert [(c.method["name"], c.optim.lr, c.seed) for c in rest] == said[8:]


def test_files_that_changed_meanwhile_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine" / "optim" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# A test's own.\nname: own\nweight_decay: 0.1\n")
    command = ["train", "-m", *FLAGS, "--config-dir", "mine", "optim=own", "method=lora", LR]

    def meddled(config: RunConfig) -> float:
        own.write_text("# A test's own.\nname: own\nweight_decay: 0.2\n")
        return 0.5

    ran = searched(monkeypatch, meddled)
    assert main([*command, "search=optuna", "search.trials=4", "search.startup=2", "search.batch=2"]) == 2
    assert "a configuration file has changed since the search began" in capsys.readouterr().err and len(ran) == 2


def test_a_subset_is_one_truth_value_for_each_of_its_texts() -> None:
    layers = SearchedKey("layers", "layers", ("0", "1", "2", "3"), subset=True)
    space = SearchSpace([layers, SearchedKey("size", "size", ("4", "8"))])
    search = SearchConfig(name="optuna", trials=20, startup=4, sampler="tpe")
    study = Study(0, "", [Trial(n, each) for n, each in enumerate(random_choices(space, 4, 0))], search, space)
    while (asked := propose(study)).runs:
        study.trials += [Trial(len(study.trials) + at, choice) for at, choice in enumerate(asked.new)]
        for run in asked.runs:
            trial, record = study.trials[run.trial], Record(status="ok")
            record.score = 0.1 * str(trial.choice[0]).count("3") - 0.01 * len(str(trial.choice[0]))
            trial.runs = {1.0: {0: Done(record, None)}}
    chosen = [str(trial.choice[0]) for trial in study.trials]
    assert len({study.trials[n].choice for n in range(20)}) == 20 and all(each != "[]" for each in chosen)
    assert sum("3" in each for each in chosen[10:]) >= sum("0" in each for each in chosen[10:])


def test_what_a_study_refuses_is_not_proposed() -> None:
    from unipet.sweeps.search.candidates import Candidates
    from unipet.sweeps.search.judging import BUDGET, Refused

    def key(choice: Choice) -> str:
        if choice[1] == "16":
            raise Refused(BUDGET, "16 is too many")
        return repr(choice)

    search = SearchConfig(name="optuna", trials=12, startup=2)
    known = [choice for choice in random_choices(SPACE, 20, 0) if choice[1] != "16"][:2]
    study = Study(0, "", [Trial(n, choice) for n, choice in enumerate(known)], search, SPACE)
    study.candidates = Candidates(key, {repr(choice): choice for choice in known})
    for trial in study.trials:
        trial.runs = {1.0: {0: Done(recorded(trial.number, trial.choice), None)}}
    new = proposals(study, 10)
    assert len(new) == 10 and {choice[1] for choice in new} == {"4", "8"}
    assert study.candidates.discarded.counts.keys() == {BUDGET}
