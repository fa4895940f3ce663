"""Commands that we print: pasted into a shell they compose the configuration that they speak of, whatever its values are."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import resolved
from unipet import UnipetError
from unipet.cli.commands.train import arguments
from unipet.compose.composer import Composer, composer
from unipet.compose.override_text import command_line, override, value_text
from unipet.compose.overrides import plan
from unipet.config import RunConfig
from unipet.report.collect import Entry
from unipet.report.page.command import command_of
from unipet.runs.record import Record

PIECES = ["'", '"', "\\", "${x}", ",", "=", "[", "]", "{", "}", "(", ")", " ", "é", "$", "\n", "#", ":", "~", "`"]
WORDS = """null Null ~ true FALSE nan inf -inf .inf 1 010 0o10 0x1F 1.10 1e3 1e-3 1_000 12:30 no yes on off - -- + @ & * ! % | > ?
    a=b a,b a:b ${} ${a ${oc.env:HOME} \\${x} \\\\${x} \\\\\\${x} ${x}\\ '${x}' $x $${x} \\ \\\\ \\\\\\ \\' \\" \\\\'
    ' '' " "" [] {} [a,b] {a:b}
    choice(a,b) range(1,3) glob(*) tag(x) a/b ./a ../a ~/a /a <<""".split()
NASTY = list(
    dict.fromkeys(
        ["", " ", "  a", "a  ", "\t", "a\tb", "日本", "\u200b", *WORDS, *PIECES]
        + [f"a{one}b" for one in PIECES]
        + [f"{one}{other}" for one, other in itertools.product(PIECES[:8], PIECES[:12])]
    )
)


@pytest.fixture(scope="module")
def composing() -> Iterator[Composer]:
    with composer(None) as made:
        yield made


@pytest.fixture(scope="module")
def usual(composing: Composer) -> RunConfig:
    return plan([], False, composing).config


def repeated(config: RunConfig, composing: Composer) -> RunConfig:
    """What the command that the page prints for `config` composes."""
    command = shlex.split(command_of(Entry(Record(), json.loads(json.dumps(resolved(config))))))
    assert command[:2] == ["unipet", "train"]
    return plan(command[2:], False, composing).config


def test_there_are_many_nasty_values() -> None:
    assert len(NASTY) >= 174


@pytest.mark.parametrize("text", NASTY, ids=map(ascii, NASTY))
def test_the_printed_command_composes_the_same_configuration(text: str, composing: Composer, usual: RunConfig) -> None:
    """`text` wherever a configuration holds one: alone, in a list, in a mapping, in a path."""
    changes: dict[str, Any] = {"separator": text, "labels": [text, "x"], "rename": {"a": text}}
    changes |= {"subset": text} if text else {}  # a name says something
    task = replace(usual.task, **changes, data_dir=f"/{text}")
    model = replace(usual.model, revision=text, path=f"/{text}")
    config = replace(usual, task=task, model=model, runs_dir=f"/r{text}")
    assert resolved(repeated(config, composing)) == resolved(config)


def test_a_shell_gives_the_command_back() -> None:
    argument = override("task.labels", NASTY)
    script = command_line("train", [argument]).replace("unipet", "printf '%s\\n'", 1)
    given = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert given.stdout.decode() == f"train\n{argument}\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": []},
        {"labels": ["a,b", "c"], "text": ["{a}: {b}", "it's"]},
        {"rename": {"a.b": "c", "1.10": "010", "x y": "é", "k:=,{}[]()\\": "v"}},
        {"rename": {}, "submission": {"MINE": "test/a b"}},
        {"max_train": 5, "selection_size": 7, "group_references": True},
        {"name": "mine", "generator": None, "hub": "nobody/mine", "subset": None},
    ],
    ids=str,
)
def test_lists_mappings_and_tasks_of_one_s_own_come_back(
    changes: dict[str, Any], composing: Composer, usual: RunConfig
) -> None:
    config = replace(usual, task=replace(usual.task, **changes))
    assert asdict(repeated(config, composing)) | {"method": {}} == asdict(config) | {"method": {}}


def test_a_mapping_that_a_preset_fills_is_emptied_and_changed(composing: Composer) -> None:
    config = plan(["task=mnli"], False, composing).config
    assert config.task.submission
    for given in ({}, {"NEW": "test"}, {**config.task.submission, "NEW": "1.10"}):
        changed = replace(config, task=replace(config.task, submission=given))
        assert repeated(changed, composing).task == changed.task


def test_a_key_that_no_override_can_hold_prints_no_command(usual: RunConfig) -> None:
    config = replace(usual, task=replace(usual.task, rename={"it's": "x"}))
    assert command_of(Entry(Record(), resolved(config))) == ""
    with pytest.raises(UnipetError, match="no override can hold this key"):
        value_text({"é": 1})


@pytest.mark.parametrize(
    "changes",
    [
        ["method=mam", "method.insertions.ffn.scaling=2.0", "method.insertions.attention.composition=gated"],
        ["method=lora", "method.insertions.attention.scaling.alpha=1e-5", "method.unfreeze=[head,norm]"],
        ["method=lora", "method.insertions.attention.position.layers=[0,1]", "optim.lr=1e-5", "seed=2"],
        ["method=prefix", "budget=params_0p1", "budget.max_steps=7", "model=gpt2", "task=e2e", "precision=bf16"],
    ],
    ids=str,
)
def test_methods_and_presets_come_back(changes: list[str], composing: Composer) -> None:
    config = plan(changes, False, composing).config
    assert resolved(repeated(config, composing)) == resolved(config)


def test_a_sweep_s_job_is_repeated_with_its_configuration_directory(tmp_path: Path) -> None:
    own = tmp_path / "it's, mine" / "method" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: mine\ninsertions: {a: {function: low_rank, position: attn.q}}\n")
    flags = ("--config-dir", str(own.parent.parent))
    command = shlex.split(
        command_of(Entry(Record(), {}, ("method=mine", override("runs_dir", "it's, ${x}")), None, flags))
    )
    read, overrides = arguments(command[2:])
    with composer(read.config_dir) as composing:
        config = plan(overrides, False, composing).config
    assert (config.method["name"], config.runs_dir) == ("mine", "it's, ${x}")


@pytest.mark.parametrize("value", ["/a b's", "/it's", "/a,b", "/a,b c", "/a(b", "/{x", 'say "x"', "/é", "a=b:c#d"])
def test_what_an_error_advises_composes_to_what_was_typed(value: str, composing: Composer) -> None:
    """A path that the grammar does not take, or takes for a sweep: the error's last line is the override that works."""
    for key in ("task.data_dir", "runs_dir", "model.path"):
        typed = f"{key}={value}"
        try:
            config = plan([typed], False, composing).config
        except UnipetError as error:
            advice = str(error)[str(error).rindex(shlex.quote(override(key, value))) :]
            config = plan(shlex.split(advice), False, composing).config
        found: Any = config
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value


@pytest.mark.parametrize("given", ["mine/method/mine.yaml", "mine"])
def test_a_method_without_its_insertions_needs_a_name_of_its_own(given: str, tmp_path: Path) -> None:
    own = tmp_path / "mine" / "method" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: mine\ninsertions: {a: {function: low_rank, position: attn.q}}\nunfreeze: [head, norm]\n")
    other = "+method.insertions.b={function: low_rank, position: ffn}"
    with composer(str(tmp_path / "mine")) as composing:
        choice = override("method", str(tmp_path / given) if "/" in given else given)
        for more in ([], [other], ["method.unfreeze=[all]"]):
            with pytest.raises(UnipetError, match=r"none of the insertions of 'mine' is left.*method\.name=NAME"):
                plan([choice, "~method.insertions.a", *more], False, composing)
            named = plan([choice, "~method.insertions.a", "method.name=bare", *more], False, composing).config
            assert named.method["name"] == "bare" and "a" not in named.method["insertions"]
        kept = plan([choice, other, "method.insertions.a.function.size=2"], False, composing).config
        assert set(kept.method["insertions"]) == {"a", "b"}
