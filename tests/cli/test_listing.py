"""`unipet list` of the values of a dimension, and of one value's options."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from unipet.calculus.composition import COMPOSITIONS
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Function
from unipet.calculus.mixture import REDUCERS, ROUTERS
from unipet.calculus.objectives import REGULARISERS
from unipet.calculus.options import option
from unipet.calculus.scaling import SCALINGS
from unipet.cli.commands.listing import TOPICS
from unipet.cli.commands.option_list import KEYS, OptionRow, option_rows, values_of
from unipet.cli.main import main

TABLES = {
    "functions": FUNCTIONS,
    "compositions": COMPOSITIONS,
    "scalings": SCALINGS,
    "routers": ROUTERS,
    "reducers": REDUCERS,
    "objectives": REGULARISERS,
}
OWN = """\
from dataclasses import dataclass
import unipet
from unipet.calculus.functions.base import Function
from unipet.calculus.options import option

@dataclass(frozen=True)
class Turned(Function):
    \"\"\"A map of a test's own.\"\"\"
    turns: int = option(3, low=1)
    def slots(self, widths):
        return {}
    def delta(self, u, params, training):
        return u
    @property
    def starts_at_zero(self):
        return False

unipet.register_function("own_turned", Turned)
"""


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["list", *argv]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    return out


@pytest.mark.parametrize("topic", TABLES)
def test_a_topic_has_every_value_with_what_it_is(capsys: pytest.CaptureFixture[str], topic: str) -> None:
    lines = printed(capsys, topic).splitlines()
    listed = {words[0]: words[1] for line in lines if not line.startswith("   ") and (words := line.split(None, 1))}
    assert set(listed) == set(TABLES[topic])
    assert all(listed.values())


def test_every_topic_is_in_the_list_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.findall(r"^(\w+):$", printed(capsys), re.MULTILINE) == list(TOPICS)
    assert set(KEYS) == set(TABLES) <= set(TOPICS)


@pytest.mark.parametrize(("topic", "name"), [(topic, name) for topic, table in TABLES.items() for name in table])
def test_every_value_has_its_options(topic: str, name: str) -> None:
    options = [row.name for row in values_of(topic)[name].options if "." not in row.name]
    choice = TABLES[topic][name]
    if isinstance(choice, type):
        assert options == [field.name for field in dataclasses.fields(choice)]
    else:
        assert sorted(options) == sorted(choice.options)


def test_a_function_is_shown_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "functions", "low_rank")
    assert "A linear map of rank `size`" in out and "method.insertions.NAME.function.OPTION" in out
    rows = [tuple(re.split(r"\s{2,}", line)) for line in out.splitlines()]
    assert ("dropout", "0.0", "a finite number at least 0 and at most 0.999") in rows
    assert ("freeze", "[]", "a list of: down, up") in rows
    assert ("bias", "false", "true or false") in rows


def test_options_inside_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "functions", "prefix")
    assert re.search(r"^reparam +null +a mapping or null$", out, re.MULTILINE)
    assert re.search(r"^reparam\.hidden +800 +a whole number from 1$", out, re.MULTILINE)


def test_several_values_and_one_without_options(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "compositions", "add", "concat")
    assert "It has no options." in out and re.search(r"^after +auto +auto, start, first$", out, re.MULTILINE)


def test_a_router_shows_what_of_a_mixture_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "routers", "learned")
    assert re.findall(r"^(\w+) {2,}\S+ {2,}", out, re.MULTILINE) == ["option", "top_k", "noise", "pool"]
    assert "method.insertions.NAME.mixture.OPTION" in out
    assert "It has no options of its own." in printed(capsys, "routers", "soft")


def test_the_key_of_a_regulariser_s_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert "method.objective.consistency.OPTION" in printed(capsys, "objectives", "consistency")


def test_a_function_of_a_users_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_turning.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("unipet.calculus.functions.FUNCTIONS", own := dict(FUNCTIONS))
    out = printed(capsys, "functions", "own_turned", "--import", "own_turning")
    assert "own_turned" in own and "A map of a test's own." in out
    assert re.search(r"^turns +3 +a whole number from 1$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["functions", "low_rnk"], ["unipet list functions: unknown 'low_rnk'", "Did you mean 'low_rank'?"]),
        (["compositions", "ad"], ["unipet list compositions: unknown 'ad'", "Did you mean 'add'?"]),
        (["scalings", "learned", "lerned"], ["unipet list scalings: unknown 'lerned'", "Did you mean 'learned'?"]),
        (["router"], ["unipet list: unknown 'router'", "Did you mean 'routers'?"]),
        (["methods", "mam"], ["takes no name, given 'mam'", "functions, compositions", "unipet describe method=NAME"]),
        (["budgets", "none"], ["unipet list budgets takes no name, given 'none'"]),
        (["reducers", "fixed", "expert=1"], ["unipet list reducers takes no overrides, given expert=1."]),
    ],
    ids=lambda part: " ".join(part),
)
def test_a_wrong_name_is_one_error(capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]) -> None:
    assert main(["list", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert [word for word in words if word not in err] == []


def test_defaults_are_written_as_yaml() -> None:
    @dataclasses.dataclass(frozen=True)
    class Choice(Function):
        must: int = option(dataclasses.MISSING)
        empty: str = option("")
        sentence: str = option("a: b\n")
        shares: list[float] = option([0.5, 1.0], low=0, high=1)
        anything: Any = option(None)

    assert list(option_rows(Choice)) == [
        OptionRow("must", "(required)", "a whole number"),
        OptionRow("empty", '""', "a text"),
        OptionRow("sentence", r'"a: b\n"', "a text"),
        OptionRow("shares", "[0.5, 1.0]", "a list, each a finite number at least 0 and at most 1"),
        OptionRow("anything", "null", "any value"),
    ]
