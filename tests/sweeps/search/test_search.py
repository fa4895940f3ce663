"""A search over a sweep's directory: equal effort, a choice by the selection split, final runs with fresh seeds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.support.searching import FLAGS, LR, by_rate, searched, sweep_in, trials_run
from unipet.cli.main import main
from unipet.config import RunConfig
from unipet.runs.sweep_files import read_jobs
from unipet.sweeps import worker
from unipet.sweeps.search.stage_files import read_stages

SEARCH = ["search=random", "search.trials=4", "search.final_seeds=[1001,1002]"]


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_trials_then_a_choice_then_fresh_seeds_then_a_table(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = searched(monkeypatch)
    assert main(["train", "-m", *FLAGS, "method=lora,bitfit", LR, *SEARCH, "search.seeds=[0,1]"]) == 0
    out = capsys.readouterr().out
    trials = trials_run(ran)
    assert len(trials) == 2 * 4 * 2 and len(ran) == len(trials) + 2 * 2
    rates = {
        name: {config.optim.lr for config in trials if config.method["name"] == name} for name in ("lora", "bitfit")
    }
    assert rates["lora"] == rates["bitfit"] and len(rates["lora"]) == 4, "every method gets the same draws"
    assert all(config.trial.scored_on == "selection" for config in trials)
    finals = [config for config in ran if config.trial.role == "final"]
    for name in rates:
        chosen = {config.optim.lr for config in finals if config.method["name"] == name}
        best = max(
            rates[name],
            key=lambda lr: next(by_rate(c) or 0 for c in trials if c.optim.lr == lr and c.method["name"] == name),
        )
        assert chosen == {best}, "by the selection split, not by what is reported, which says the opposite"
        assert [c.seed for c in finals if c.method["name"] == name] == [1001, 1002]
    assert all(config.trial.scored_on == "evaluation" for config in finals)
    rows = list(csv.DictReader(io.StringIO((sweep_in(here) / "comparison.csv").read_text())))
    assert [(row["method"], row["seeds"], row["variant"]) for row in rows] and {row["seeds"] for row in rows} == {"2"}
    assert len(rows) == 2, "trials are not in the table"
    assert "16 trials and 4 other jobs" in out and "search=random: chosen by the mean over seeds [0, 1]" in out
    states = read_jobs(sweep_in(here))
    assert [(state.role, state.study, state.trial) for state in states[:3]] == [
        ("trial", 0, 0),
        ("trial", 0, 0),
        ("trial", 0, 1),
    ]
    assert [state.role for state in states[16:]] == ["final"] * 4


def test_the_same_command_and_a_resume_repeat_the_same_trials(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = searched(monkeypatch)
    command = ["train", "-m", *FLAGS, "method=lora,bitfit", LR, *SEARCH]
    assert main(command) == 0
    before = {
        path.name: path.read_bytes()
        for path in sweep_in(here).rglob("*")
        if path.parent.name in ("stages", "trials", "jobs")
    }
    again = searched(monkeypatch)
    assert main(command) == 0 and len(again) == len(first)
    assert [(c.method["name"], c.optim.lr, c.seed) for c in again] == [
        (c.method["name"], c.optim.lr, c.seed) for c in first
    ]
    after = {
        path.name: path.read_bytes() for path in sweep_in(here).rglob("*") if path.parent.name in ("stages", "trials")
    }
    assert after == {name: before[name] for name in after}
    third = searched(monkeypatch)
    assert main(["sweep", "resume", str(sweep_in(here))]) == 0 and third == [], "nothing is missing"


@pytest.mark.parametrize("moment", [3, 8, 11])
def test_a_search_that_was_killed_goes_on_with_the_same_trials(
    here: Path, monkeypatch: pytest.MonkeyPatch, moment: int, tmp_path: Path
) -> None:
    command = ["train", "-m", *FLAGS, "method=lora,bitfit", LR, *SEARCH]
    whole = searched(monkeypatch)
    assert main([*command, "runs_dir=whole"]) == 0
    count = 0

    def dying(config: RunConfig) -> float | None:
        nonlocal count
        count += 1
        if count == moment:
            raise KeyboardInterrupt
        return by_rate(config)

    cut = searched(monkeypatch, dying)
    with pytest.raises(KeyboardInterrupt):
        from unipet.sweeps.directory import read_sweep
        from unipet.sweeps.launch import go

        begun(command)
        go(read_sweep(sweep_in(here)))
    rest = searched(monkeypatch)
    assert main(["sweep", "resume", str(sweep_in(here))]) == 0
    said = [(c.method["name"], c.optim.lr, c.seed, c.trial.role) for c in whole]
    assert [(c.method["name"], c.optim.lr, c.seed, c.trial.role) for c in [*cut[: moment - 1], *rest]] == said


def begun(command: list[str]) -> None:
    """Write the sweep's directory, and run nothing."""
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan
    from unipet.sweeps import launch
    from unipet.sweeps.hydra_main import Flags, environment

    with environment(launch.SWEEP_ID, "x"), composer(None) as composing:
        texts = command[2:]
        launch.begun(plan(texts, True, composing), Flags(multirun=True), texts, composing)


def test_a_trial_without_a_score_is_not_chosen_and_fails_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(monkeypatch)
    values = "optim.lr=choice(0.09,0.001,0.08)"
    assert main(["train", "-m", *FLAGS, "method=lora", values, "search=grid", "search.final_seeds=[5]"]) == 0
    out = capsys.readouterr().out
    assert "optim.lr=0.001" in out and "3 trials and 1 other jobs" in out
    assert (
        main(
            [
                "train",
                "-m",
                *FLAGS,
                "method=bitfit",
                "optim.lr=choice(0.09,0.08)",
                "search=grid",
                "search.final_seeds=[5]",
            ]
        )
        == 1
    )
    assert "none: no trial has a score" in capsys.readouterr().out


def test_a_study_that_failed_is_another_study_s_no_concern(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = searched(monkeypatch, lambda config: None if config.method["name"] == "bitfit" else by_rate(config))
    assert main(["train", "-m", *FLAGS, "method=lora,bitfit", LR, *SEARCH]) == 1
    assert {config.method["name"] for config in ran if config.trial.role == "final"} == {"lora"}
    assert "1 without a choice" in capsys.readouterr().out


def test_a_budget_ends_a_study(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = searched(monkeypatch)
    assert (
        main(
            ["train", "-m", *FLAGS, "method=lora", LR, "search=random", "search.trials=9", "search.budget='250 steps'"]
        )
        == 0
    )
    assert len(trials_run(ran)) == 3, "a run takes 100 steps: after two there is room for a third, then for none"
    ran = searched(monkeypatch)
    more = ["search.budget='1 gpu_hour'", "search.batch=2", "search.seeds=[0,1]"]
    assert main(["train", "-m", *FLAGS, "method=lora", LR, "search=random", "search.trials=9", *more]) == 0
    assert len(trials_run(ran)) == 4, "a batch of two trials with two seeds takes two hours"


def test_several_objectives_choose_what_nothing_dominates(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = searched(monkeypatch)  # parameters grow with the learning rate
    values = "optim.lr=choice(0.0001,0.001,0.01,0.0005)"
    flags = ["search=grid", "search.objectives=[score,params]", "search.final_seeds=[5]"]
    assert main(["train", "-m", *FLAGS, "method=lora", values, *flags]) == 0
    assert sorted(c.optim.lr for c in ran if c.trial.role == "final") == [0.0001, 0.0005, 0.001]


def test_a_failed_trial_is_not_tried_again_once_the_search_went_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(monkeypatch)
    assert main(["train", "-m", *FLAGS, "method=lora", "optim.lr=choice(0.09,0.001)", "search=grid"]) == 0
    again = searched(monkeypatch, lambda config: 1.0)
    assert main(["sweep", "resume", str(sweep_in(here))]) == 0 and again == []
    (second,) = [stage for stage in read_stages(sweep_in(here)) if stage.number == 1]
    assert [verdict.trial for verdict in second.verdicts] == [1]


def test_a_report_leaves_trials_out_and_ranks_equal_effort_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(monkeypatch)
    assert main(["train", "-m", *FLAGS, "method=lora", LR, *SEARCH]) == 0
    assert main(["train", "-m", *FLAGS, "method=bitfit", "optim.lr=0.01", "seed=1001,1002"]) == 0
    capsys.readouterr()
    assert main(["report", "runs"]) == 0
    out = capsys.readouterr().out
    assert (
        "tuning effort differs" in out
        and '"random: 4 trials of 1 seed"  lora' in out
        and '"no search"                   bitfit' in out
    )
    assert "not ranked" in out and "selection" not in out.split("tuning effort")[0]
    assert main(["report", "runs", "--anyway"]) == 0 and "best mean" in capsys.readouterr().out
    assert main(["runs", "trial.role=trial", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == 4 and {row["trial.role"] for row in listed} == {"trial"}


def test_two_searches_of_equal_effort_are_ranked(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(monkeypatch)
    for method in ("lora", "bitfit"):
        assert main(["train", "-m", *FLAGS, f"method={method}", LR, *SEARCH]) == 0
    capsys.readouterr()
    assert main(["report", "runs"]) == 0 and "tuning effort" not in capsys.readouterr().out


SCALE = "search.space_of={lora: {method.insertions.attention.scaling.alpha: 'choice(8,16,32)'}}"


def test_a_method_has_keys_of_its_own_and_the_draws_of_all(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["train", "-m", *FLAGS, "method=lora,bitfit", LR, SCALE, *SEARCH]
    ran = searched(monkeypatch)
    assert main(command) == 0
    trials = {name: [c for c in trials_run(ran) if c.method["name"] == name] for name in ("lora", "bitfit")}
    assert [c.optim.lr for c in trials["lora"]] == [c.optim.lr for c in trials["bitfit"]] and len(trials["lora"]) == 4
    alphas = [c.method["insertions"]["attention"]["scaling"]["alpha"] for c in trials["lora"]]
    assert len(set(alphas)) > 1 and {str(alpha) for alpha in alphas} <= {"8", "16", "32"}
    best = max(trials["lora"], key=lambda config: by_rate(config) or 0)
    finals = [c for c in ran if c.trial.role == "final" and c.method["name"] == "lora"]
    assert {str(c.method["insertions"]["attention"]["scaling"]["alpha"]) for c in finals} == {
        str(best.method["insertions"]["attention"]["scaling"]["alpha"])
    }
    again = searched(monkeypatch)
    assert main(["sweep", "resume", str(sweep_in(here))]) == 0 and again == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["search=random", LR, "search.space_of={lroa: {optim.lr: 'choice(1e-3,1e-4)'}}"],
            "search.space_of: unknown 'lroa'. Allowed: lora.",
        ),
        (
            ["search=random", "search.space_of={lora: {optim.lr: 'choice(1e-3,1e-4)'}}"],
            "search.trials: 8 given, but the space has 2 combinations",
        ),
        (["search=random", "seed=1,2", LR], "seed: search=random gives every run its seed"),
        (
            ["search=random", LR, "search.seeds=[0,1]", "search.final_seeds=[1,2]"],
            "search.final_seeds: 1 is among search.seeds",
        ),
        (
            ["search=random", LR, "search.seeds=[0,0]"],
            "search.seeds: [0,0] given; allowed: one or more different seeds",
        ),
        (["search=random", LR, "search.final_seeds=[]"], "search.final_seeds: [] given"),
        (["search=random", LR, "task.selection=none"], "task.selection=none holds no examples out"),
        (
            ["search=random", LR, "task.selection=validation", "task.selection_split=validation"],
            "task.selection_split and task.evaluation_split are both 'validation'",
        ),
        (["search=random", "optim.lr=1e-3,1e-2"], "search=random: nothing to search"),
        (["search=grid", LR], "search=grid: optim.lr is an interval, of which a grid has no list"),
        (["search=grid", "optim.lr=choice(1e-3,2e-3,3e-3)", "search.trials=2"], "the space has 3 combinations"),
        (["search=random", "optim.lr=choice(1e-3,2e-3)"], "search.trials: 8 given, but the space has 2 combinations"),
        (["search=random", LR, "search.sampler=gp"], "search.sampler: 'gp' given, and search=random does not read it"),
        (
            ["search=random", LR, "search.objectives=[params]"],
            "search.objectives: [params] given; allowed: score, then costs",
        ),
        (["search=halving", LR, "search.objectives=[score,params]"], "search=halving: it compares scores alone"),
        (["search=random", LR, "search.budget=many"], "search.budget"),
        (["search=random", LR, "hydra/launcher=joblib"], "hydra/launcher"),
        (["search.name=tombola", LR], "search.name"),
    ],
)
def test_mistakes_are_one_clear_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], texts: list[str], message: str
) -> None:
    ran = searched(monkeypatch)
    assert main(["train", "-m", *FLAGS, "method=lora", *texts]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and ran == []
    assert not (here / "runs").exists(), "all or nothing"


def test_workers_wait_for_each_other_between_stages(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds no job does not end while another one's trial may bring further jobs."""
    searched(monkeypatch)
    begun(["train", "-m", *FLAGS, "method=lora", LR, *SEARCH])
    from unipet.sweeps.directory import read_sweep

    sweep = read_sweep(sweep_in(here))
    first, second = (worker.Worker(sweep, name, alone=False) for name in ("a", "b"))
    held = [first.next_claim()[0] for _ in range(4)]
    assert all(each is not None for each in held) and second.next_claim() == (None, None)
    assert second.next_stage() == worker.WAIT_S
    for each in held:
        first.do(each)  # type: ignore[arg-type]
    assert second.next_stage() == 0.0 and second.next_claim()[0] is not None
    assert first.next_stage() is None, "the last stage is there: nothing comes after it"


def test_a_plan_counts_every_trial_and_final_run() -> None:
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan
    from unipet.sweeps.search.beginning import planned

    texts = [
        *FLAGS,
        "method=lora,bitfit",
        LR,
        "search=optuna",
        "search.trials=6",
        "search.seeds=[0,1]",
        "search.final_seeds=[5]",
    ]
    with composer(None) as composing:
        jobs = list(planned(plan(texts, True, composing), composing))
    assert [job.number for job in jobs] == list(range(2 * (6 * 2 + 1)))
    assert all(job.config is not None for job in jobs) and len({tuple(job.differing) for job in jobs}) == len(jobs)
    assert [job.config.seed for job in jobs if job.config and job.config.trial.scored_on == "evaluation"] == [5, 5]


def test_a_choice_among_equals_says_that_it_is_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(monkeypatch, lambda config: 0.5 if config.optim.lr < 0.003 else 0.4)
    values = "optim.lr=choice(0.004,0.002,0.001)"
    assert main(["train", "-m", *FLAGS, "method=lora", values, "search=grid", "search.final_seeds=[5]"]) == 0
    (chosen,) = [v for stage in read_stages(sweep_in(here)) for v in stage.verdicts if v.kind == "chosen"]
    assert chosen.trial == 1 and chosen.text == "best of 3 trials, the first of 2 equal ones: 1, 2"
