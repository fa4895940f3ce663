"""One schema: what limits a key of a run stands on its field, and is enforced on every way to a run."""

from __future__ import annotations

import copy
import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import resolved, tiny_config
from unipet.calculus.options import parse_options
from unipet.calculus.yaml_reader import write_yaml
from unipet.compose.composer import composer
from unipet.compose.override_text import value_text
from unipet.compose.overrides import plan
from unipet.compose.parse_run_config import check_run_config
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.record_files import read_config
from unipet.runs.run import run

#: Texts that are the user's own: names of files, columns, splits and labels. Everything else is one of a few.
OWN_TEXTS = {
    *("task.name", "task.text", "task.label", "task.labels", "task.choices", "task.verbalizers", "task.target"),
    *(
        "task.references",
        "task.separator",
        "task.languages",
        "task.hub",
        "task.subset",
        "task.revision",
        "task.data_dir",
    ),
    *("task.train_split", "task.evaluation_split", "task.selection_split", "task.reported_set"),
    *("model.name", "model.path", "model.revision", "model.package", "model.sha256", "model.sites"),
    *("budget.name", "optim.name", "tracking.project", "tracking.group", "runs_dir", "imports"),
    *(
        "launcher.partition",
        "launcher.account",
        "launcher.address",
        "trial.search",
        "trial.study",
        "trial.beside",
        "trial.budget",
    ),
}
#: Texts that name a row of a table: the table is what limits them.
ROWS = {
    *("task.kind", "task.metrics", "task.selection_metric", "task.bleu_tokenizer", "task.generator"),
    *("tracking.name", "launcher.name", "search.name"),
}


def keys(cls: type, where: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Every key of a configuration with its type (of a list: that of its values, and never null) and its limits."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from keys(typing.cast("type", hint), f"{where}{field.name}.")
            continue
        if isinstance(hint, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
        yield f"{where}{field.name}", hint, dict(field.metadata)


def wrong_values(hint: Any, limits: dict[str, Any]) -> list[Any]:
    """For each limit of a key one value just outside it, for a choice one that is none, and one of another type."""
    item = typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint
    outside = {
        "low": lambda end: math.nextafter(end, -math.inf) if item is float else end - 1,
        "above": float,
        "high": lambda end: math.nextafter(end, math.inf) if item is float else end + 1,
        "below": float,
    }
    found: list[Any] = [
        change(limits[name])
        for name, change in outside.items()
        if limits.get(name) is not None and not math.isinf(limits[name])
    ]
    found += ["surely_not"] if limits.get("choices") or limits.get("pattern") or item in (int, float) else []
    found += [""] if limits.get("filled") else []
    found += [math.inf] if item is float else []
    return [[each] for each in found] if item is not hint else found


LIMITED = [
    (key, value) for key, hint, limits in keys(RunConfig) for value in wrong_values(hint, limits) if key != "method"
]


def test_every_number_and_every_choice_has_its_limit_on_its_field() -> None:
    numbers, texts = set(), set()
    for key, hint, limits in keys(RunConfig):
        kind = typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint
        if kind in (int, float):
            numbers.add(key)
            assert any(limits.get(name) is not None for name in ("low", "above")), (
                f"{key}: say low=-math.inf if it is free"
            )
        elif (
            kind is str and typing.get_origin(hint) is not dict and not (limits.get("choices") or limits.get("pattern"))
        ):
            texts.add(key)
    assert len(numbers) >= 30
    assert texts == OWN_TEXTS | ROWS, (
        "a text is one of its field's choices, fits its pattern, or says here what else it is"
    )


def test_a_default_is_allowed() -> None:
    given = dataclasses.asdict(RunConfig())
    given["task"]["name"] = given["model"]["name"] = given["model"]["path"] = "x"
    assert dataclasses.asdict(parse_options(RunConfig, given, "", "a run")) == given


def test_the_limits_are_many() -> None:
    assert len(LIMITED) > 90 and {"seed", "precision", "task.decoding.num_beams", "task.drop"} <= {
        key for key, _ in LIMITED
    }


def put(tree: Any, key: str, value: Any) -> Any:
    """`tree`, of dataclasses or mappings, with another value at a dotted key."""
    *parents, last = key.split(".")
    for name in parents:
        tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    tree.update({last: value}) if isinstance(tree, dict) else setattr(tree, last, value)
    return tree


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return tiny_config(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize(("key", "value"), LIMITED, ids=[f"{key}={value!r}" for key, value in LIMITED])
def test_a_limit_is_enforced_from_python_and_from_a_finished_run_s_file(
    good: RunConfig, tmp_path: Path, key: str, value: Any
) -> None:
    config = copy.deepcopy(good)
    content = resolved(config)
    put(config, key, value)
    with pytest.raises(UnipetError) as from_python:
        run(config)
    put(content, key, value)
    (tmp_path / "config.yaml").write_text(write_yaml(content))
    with pytest.raises(UnipetError) as from_file:
        read_config(tmp_path / "config.yaml")
    given = repr(value[0] if isinstance(value, list) else value)
    for word in (key, given, "llowed: "):
        assert word in str(from_python.value)
    assert str(from_file.value) == f"{tmp_path / 'config.yaml'}: not the configuration of a run: {from_python.value}"


def test_every_limit_is_enforced_from_the_command_line_in_the_same_words(good: RunConfig) -> None:
    with composer(None) as composing:
        for key, value in LIMITED:
            config = copy.deepcopy(good)
            put(config, key, value)
            with pytest.raises(UnipetError) as from_python:
                check_run_config(config)
            with pytest.raises(UnipetError) as from_command_line:
                plan([f"{key}={value_text(value)}"], False, composing)
            assert str(from_command_line.value) == str(from_python.value)


def test_a_key_that_no_dataclass_has_is_named_with_the_nearest_one(good: RunConfig, tmp_path: Path) -> None:
    content = resolved(good)
    content["optim"]["lrr"] = 1
    (tmp_path / "config.yaml").write_text(write_yaml(content))
    with pytest.raises(UnipetError) as from_file:
        read_config(tmp_path / "config.yaml")
    with composer(None) as composing, pytest.raises(UnipetError) as from_command_line:
        plan(["optim.lrr=1"], False, composing)
    for error in (from_file, from_command_line):
        assert "optim.lrr: optim has no option 'lrr'. It has: batch_size, " in str(error.value)
        assert "Did you mean 'lr'?" in str(error.value)


def test_a_group_of_another_kind_is_an_error_from_python(good: RunConfig) -> None:
    config = copy.deepcopy(good)
    put(config, "task.decoding", {"num_beams": 2})
    with pytest.raises(UnipetError, match=r"task\.decoding: \{'num_beams': 2\} given; allowed: a DecodingConfig"):
        run(config)


def test_a_whole_number_stays_as_it_was_given(good: RunConfig, tmp_path: Path) -> None:
    """`run_id` is a hash of it: the file of a run from Python is that run's."""
    config = copy.deepcopy(good)
    config.optim.epochs = 2
    (tmp_path / "config.yaml").write_text(write_yaml(resolved(config)))
    assert repr(read_config(tmp_path / "config.yaml").optim) == repr(config.optim)
