"""docs/tasks.md has every key of a task with its default, and an example of every kind that the package takes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.checkout import ROOT
from unipet.config import DecodingConfig, TaskConfig
from unipet.tasks import KINDS, check_task
from unipet.tasks.scoring import METRICS

TEXT = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def keys(of: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration and its default; keys of nested ones with a dot."""
    for field in dataclasses.fields(of):
        factory = field.default_factory
        if factory is not dataclasses.MISSING and dataclasses.is_dataclass(factory()):
            yield from keys(type(factory()), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.default if factory is dataclasses.MISSING else factory()


def test_every_key_and_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \| (\S.*) \|$", TEXT, re.MULTILINE)
    listed = {key: yaml.safe_load(default) for key, default, _ in rows}
    assert len(listed) == len(rows), "a key has two rows"
    assert listed == dict(keys(TaskConfig))


def test_there_is_an_example_of_every_kind() -> None:
    assert sorted(example["kind"] for example in EXAMPLES) == sorted(KINDS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["kind"])
def test_an_example_is_a_task(example: dict[str, Any]) -> None:
    decoding = DecodingConfig(**example.pop("decoding", {}))
    check_task(TaskConfig(**example, decoding=decoding))


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_named(metric: str) -> None:
    assert f"`{metric}`" in TEXT
