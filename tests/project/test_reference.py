"""docs/reference.md is what the code says now: every option of a method, every key of a run."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from typing import Any

import pytest

from tests.support.checkout import ROOT
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.mixture import Mixture
from unipet.calculus.sites.position import Position
from unipet.cli.commands.option_list import KEYS, values_of
from unipet.config import OptimConfig, RunConfig

TEXT = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_md_is_not_stale(maker: Any) -> None:
    assert maker.text() == TEXT, "run `make docs`"


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    (found,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(text: str) -> dict[str, list[str]]:
    """First cell -> the others, of every row of the tables in a text."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return {first.strip(" `"): [cell.strip() for cell in more] for first, *more in cells}


@pytest.mark.parametrize(
    ("topic", "word"),
    [
        ("functions", "Function"),
        ("compositions", "Composition"),
        ("scalings", "Scaling"),
        ("objectives", "Regulariser"),
    ],
)
def test_every_value_has_a_section_with_all_its_options(topic: str, word: str) -> None:
    for name, value in values_of(topic).items():
        if topic != "functions" or FUNCTIONS[name].__module__.startswith("unipet."):  # not one that a test registered
            assert list(rows(section(f"{word} `{name}`"))) == [row.name for row in value.options], name
    assert KEYS[topic] in TEXT


@pytest.mark.parametrize("kind", [Mixture, Position])
def test_every_option_of_a_mixture_and_of_a_position(kind: type) -> None:
    assert list(rows(section(kind.__name__))) == [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(("title", "topic"), [("Routers", "routers"), ("Reducers", "reducers")])
def test_every_router_and_reducer(title: str, topic: str) -> None:
    assert list(rows(section(title))) == list(values_of(topic))


def test_every_key_of_a_run() -> None:
    config = RunConfig()
    known = rows(TEXT)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            assert field.name == "method" or field.name in known
        elif field.name != "trial":  # which no user sets
            for inner in dataclasses.fields(value):
                key = f"{field.name}.{inner.name}"
                assert key in known or any(other.startswith(f"{key}.") for other in known), key


def test_a_row_says_default_limits_and_comment() -> None:
    optim = rows(section("`optim`"))
    assert optim["optim.clip"] == [
        "`1.0`",
        "a finite number at least 0",
        "gradient norm; 0 switches clipping off",  # of conf/optim/adamw.yaml
    ]
    assert optim["optim.batch_size"][2] == "examples per optimiser step, whatever the micro-batch"  # of the code
    assert float(optim["optim.lr"][0].strip("`")) == OptimConfig().lr
    assert rows(section("Position"))["tokens"][1] == "all, first:k or last:k with k at least 1"  # of the error


def test_a_comment_above_a_field_and_one_beside_it(maker: Any) -> None:
    said = maker.comments_in_code(RunConfig)
    assert said["imports"].startswith("Your own modules") and said["rerun"].startswith("run again")
    assert "seed" not in said


def test_links_within_the_page_lead_to_headings(maker: Any) -> None:
    anchors = [maker.anchor(title) for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)]
    assert len(set(anchors)) == len(anchors), "two headings with one anchor"
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert len(links) > 50 and set(links) <= set(anchors)


def test_every_row_has_as_many_cells_as_its_table() -> None:
    for block in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
