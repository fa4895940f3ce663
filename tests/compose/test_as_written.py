"""A text field gets the text as written, and a method means the same, on the command line, in files and from Python."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import unipet
from unipet import UnipetError
from unipet.calculus import functions
from unipet.calculus.functions.base import Function, Params, Slots, TensorSpec, Widths
from unipet.calculus.library import load_method
from unipet.calculus.options import option
from unipet.calculus.yaml_reader import write_yaml
from unipet.compose.composer import composer
from unipet.compose.override_text import override
from unipet.compose.overrides import plan
from unipet.config import ModelConfig, RunConfig, TaskConfig
from unipet.runs.record_files import read_config

WRITTEN = "no yes on off 010 1.50 1_000 12:30 1e3 1e-3 0o10 0x1F True FALSE null Null ~ +5 .5 1. .inf nan inf 2020-01-01".split()
NUMBERS: dict[str, Any] = {
    "1e-3": 0.001,
    "010": 10,
    "4": 4,
    "4.0": 4,
    "1E2": 100,
    ".5": 0.5,
    "+2": 2,
    "0o10": 8,
    "0x1F": 31,
}


@dataclass(frozen=True)
class Labelled(Function):
    """A function of one's own with options of every kind of text."""

    label: str = option("x")
    labels: list[str] = option([])
    note: str | None = option(None)
    strength: float = option(3.0)
    size: int = option(4)

    def slots(self, widths: Widths) -> Slots:
        return {"shift": {"": TensorSpec((widths.h,), "table")}}

    def delta(self, u: Any, params: Params, training: bool) -> torch.Tensor:
        return self.strength * params["shift"]

    @property
    def starts_at_zero(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    unipet.register_function("labelled", Labelled)
    yield
    functions.FUNCTIONS.pop("labelled")


def composed(*overrides: str, directory: Path | None = None) -> RunConfig:
    with composer(str(directory) if directory else None) as composing:
        return plan(overrides, False, composing).config


def in_a_file(directory: Path, group: str, text: str) -> Path:
    path = directory / group / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_of_a_task_file(tmp_path: Path) -> None:
    lines = [f"labels: [{', '.join(WRITTEN)}]", "subset: 1.10", "revision: 0123", "name: no", "max_length: 0o20"]
    lines += ["rename: {1.10: 010, no: yes}", "label: 12:30", "hub: null", "data_dir: ~/d", "selection_size: 010"]
    in_a_file(tmp_path, "task", "\n".join(lines))
    task = composed("task=mine", directory=tmp_path).task
    assert (task.labels, task.subset, task.revision, task.name) == (WRITTEN, "1.10", "0123", "no")
    assert (task.rename, task.label, task.hub) == ({"1.10": "010", "no": "yes"}, "12:30", None)
    assert (task.max_length, task.selection_size) == (16, 10)


@pytest.mark.parametrize(
    "package", ["# @package _global_\ntask: {labels: [no, 1.10, ~], max_length: 8}\nruns_dir: 1e3\nseed: 0o7"]
)
def test_texts_of_an_experiment_file(tmp_path: Path, package: str) -> None:
    in_a_file(tmp_path, "experiment", package)
    config = composed("experiment=mine", directory=tmp_path)
    assert (config.task.labels, config.task.max_length, config.runs_dir, config.seed) == (
        ["no", "1.10", "~"],
        8,
        "1e3",
        7,
    )


@pytest.mark.parametrize("text", [one for one in WRITTEN if one not in ("null", "Null", "~")])
def test_a_text_on_the_command_line(text: str) -> None:
    config = composed(f"task.subset={text}", f"runs_dir={text}", f"task.labels=[{text},'{text}']")
    assert (config.task.subset, config.runs_dir, config.task.labels) == (text, text, [text, text])


def test_lists_mappings_and_no_value_on_the_command_line() -> None:
    listed = [text for text in WRITTEN if text != "~"]
    task = composed(
        f"task.labels=[{','.join(listed)}]", "task.rename={a: 1.10, 010: no, 1e3: 'x'}", "task.subset=null"
    ).task
    assert task.labels == listed
    assert task.rename == {"a": "1.10", "010": "no", "1e3": "x"}
    assert task.subset is None
    assert composed("task.rename={a: 1.10}", "task.rename.b=010").task.rename == {"a": "1.10", "b": "010"}
    with pytest.raises(UnipetError, match=r"task\.label"):
        composed("task.label=null")


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [("1.10,1.20", ["1.10", "1.20"]), ("no,010,null", ["no", "010", None]), ("choice(1e3,'a,b')", ["1e3", "a,b"])],
)
def test_a_sweep_of_texts(sweep: str, expected: list[str | None]) -> None:
    from unipet.compose.expand import sweep_jobs

    texts = [f"task.subset={sweep}"]
    with composer(None) as composing:
        jobs = list(sweep_jobs(plan(texts, True, composing), composing))
    assert [job.config.task.subset if job.config else job.mistake for job in jobs] == expected


def test_an_experiment_s_sweep_of_texts(tmp_path: Path) -> None:
    params = "hydra: {mode: MULTIRUN, sweeper: {params: {task.subset: 1.10, seed: '0,1', task.label: no}}}"
    in_a_file(tmp_path, "experiment", f"# @package _global_\n{params}\n")
    from unipet.compose.expand import sweep_jobs

    with composer(str(tmp_path)) as composing:
        jobs = list(sweep_jobs(plan(["experiment=mine"], True, composing), composing))
    assert [(one.config.task.subset, one.config.task.label, one.config.seed) for one in jobs if one.config] == [
        ("1.10", "no", 0),
        ("1.10", "no", 1),
    ]


METHOD = """\
name: {name}
insertions:
  a:
    function: {{name: labelled, label: {text}, labels: [{text}, 'x'], note: {text}, strength: {number}, size: 0o10}}
    position: {{site: attn.q, layers: [00, 1]}}
    scaling: {number}
    ratio: {number}
"""


@pytest.mark.parametrize("text", [one for one in WRITTEN if one not in ("null", "Null", "~")])
@pytest.mark.parametrize("number", ["1e-3", "010"])
def test_a_method_file_is_the_same_on_both_ways(tmp_path: Path, text: str, number: str) -> None:
    path = in_a_file(tmp_path, "method", METHOD.format(name="mine", text=text, number=number))
    read = load_method(path)
    assert read == load_method(composed("method=mine", directory=tmp_path).method)
    assert read == load_method(composed(override("method", str(path))).method)
    function: Any = read.insertions[0].function
    assert (function.label, function.labels, function.note) == (text, [text, "x"], text)
    assert (function.strength, function.size, read.insertions[0].ratio) == (NUMBERS[number], 8, NUMBERS[number])
    assert read.insertions[0].position.layers == [0, 1]
    assert load_method(read.to_dict()) == read and type(function.label) is str


@pytest.mark.parametrize("text", [one for one in WRITTEN if one not in ("null", "Null", "~")])
def test_a_method_s_option_on_the_command_line(tmp_path: Path, text: str) -> None:
    in_a_file(tmp_path, "method", METHOD.format(name="mine", text="x", number="1"))
    key = "method.insertions.a.function"
    config = composed("method=mine", f"{key}.label={text}", f"{key}.labels=[{text}]", directory=tmp_path)
    function: Any = load_method(config.method).insertions[0].function
    assert (function.label, function.labels) == (text, [text])


@pytest.mark.parametrize("number", [one for one in NUMBERS if one not in ("010", "0o10", "0x1F")])
def test_a_method_s_number_on_the_command_line(number: str) -> None:
    method = load_method(composed(f"method.insertions.attention.scaling={number}").method)
    assert method.insertions[0].scaling == load_method({**method.to_dict()}).insertions[0].scaling
    assert getattr(method.insertions[0].scaling, "value") == NUMBERS[number]  # noqa: B009


@pytest.mark.parametrize(
    ("insertion", "words"),
    [
        ("function: {name: low_rank, size: '16'}", "size: '16' given; allowed: a whole number from 1"),
        ("function: {name: low_rank, size: 1_000}", "size: '1_000' given; allowed: a whole number from 1"),
        ("function: {name: low_rank, dropout: no}", "dropout: 'no' given; allowed: a finite number at least 0"),
        ("function: {name: low_rank, bias: yes}", "bias: 'yes' given; allowed: true or false"),
        ("function: {name: low_rank, init: 3}", "init: unknown '3'"),
        ("function: 1.50", r"function: 1\.5 given; allowed: a function"),
        ("function: low_rank, scaling: true", "scaling: True given; allowed: a finite number"),
        ("function: low_rank, scaling: '4'", "scaling.name: unknown '4'"),
    ],
)
def test_a_mistake_is_the_same_on_both_ways(tmp_path: Path, insertion: str, words: str) -> None:
    text = f"name: mine\ninsertions: {{a: {{{insertion}, position: attn.q}}}}\n"
    path = in_a_file(tmp_path, "method", text)
    with pytest.raises(UnipetError, match=words):
        load_method(path)
    with pytest.raises(UnipetError, match=words):
        load_method(composed("method=mine", directory=tmp_path).method)


def test_in_python_a_number_is_no_text() -> None:
    for wrong in (1, True, 1.5):
        spec = {"function": {"name": "labelled", "label": wrong}, "position": "attn.q"}
        with pytest.raises(UnipetError, match=f"label: {wrong} given; allowed: a text"):
            load_method({"name": "mine", "insertions": {"a": spec}})


def test_a_configuration_s_texts_come_back_from_its_file(tmp_path: Path) -> None:
    config = RunConfig(task=TaskConfig(name="no", labels=list(WRITTEN), subset="1.10", rename={"no": "010"}))
    config = RunConfig(task=config.task, model=ModelConfig(name="1e3", path="0x1F"), runs_dir="null")
    (tmp_path / "config.yaml").write_text(write_yaml(asdict(config)))
    assert read_config(tmp_path / "config.yaml") == config


def test_mistakes_in_a_user_s_file_name_file_and_line(tmp_path: Path) -> None:
    for text, words in (
        ("name: mine\nname: yours\n", r"task/mine\.yaml, line 2: the key 'name' stands twice"),
        ("name: !!python/name:os.system x\n", r"mine\.yaml, line 1: the tag"),
        ("- a\n", r"mine\.yaml: \['a'\] given; allowed: a mapping of keys"),
        ("name: [\n", r"mine\.yaml, line 2"),
    ):
        in_a_file(tmp_path, "task", text)
        with pytest.raises(UnipetError, match=words):
            composed("task=mine", directory=tmp_path)


def test_home_directories_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = str(tmp_path)
    in_a_file(tmp_path / "c", "task", "name: mine\ndata_dir: ~/d\nhub: null\n")
    (tmp_path / "m").mkdir()
    (tmp_path / "mine.yaml").write_text("name: mine\nunfreeze: [head]\n")
    config = composed(
        "task=mine", "runs_dir=~/runs", "model=~/m", "model.sites='~/s'", "method=~/mine.yaml", directory=tmp_path / "c"
    )
    assert (config.runs_dir, config.task.data_dir) == (f"{home}/runs", f"{home}/d")
    assert (config.model.path, config.model.sites, config.method["name"]) == (f"{home}/m", f"{home}/s", "mine")
    assert RunConfig(runs_dir="~/r").runs_dir == f"{home}/r" and TaskConfig(data_dir="~").data_dir == home
    with composer(None) as composing:
        swept = plan(["model.path=~/m,~/n", "model.name=x", "runs_dir=~/runs"], True, composing)
    assert str(swept.sweep_dir).startswith(f"{home}/runs/sweeps/") and swept.config.model.path == f"{home}/m"
    assert load_method("~/mine.yaml").name == "mine"
    assert composed("runs_dir=~nobody_at_all/x").runs_dir == "~nobody_at_all/x"


def test_what_hydra_reads_for_others_is_put_back() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    composed("seed=1")
    assert OverridesParser.create().parse_override("task.subset=1.10").value() == 1.1
    assert math.isclose(OverridesParser.create().parse_override("a=1e-3").value(), 0.001)
