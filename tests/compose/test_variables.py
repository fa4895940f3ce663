"""Variables of a design space: what follows from them, how a space is chosen, and mistakes in either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unipet.cli.main import main
from unipet.compose.composer import composer
from unipet.compose.overrides import plan
from unipet.errors import UnipetError

SPACE = """# A space.
defaults:
  - override /method: null
method:
  name: mine
  variables: {which: [low, shift], layers: [0, 2], amount: much}
  insertions:
    low:
      function: {name: low_rank, size: "${unipet.when:${method.variables.which},low,4}"}
      position: {site: attn.q, layers: "${method.variables.layers}"}
      scaling: "${unipet.pick:${method.variables.amount},{little: 0.5, much: 2.0}}"
    shift:
      function: {name: vector}
      position: {site: ffn, layers: "${unipet.when:${method.variables.which},shift,${method.variables.layers},[]}"}
search:
  space: {optim.lr: "choice(1e-3,1e-4)"}
"""


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SPACE)
    return tmp_path


def method(*texts: str) -> Any:
    from unipet.calculus.library import load_method

    with composer(None) as composing:
        return load_method(plan([*texts], False, composing).config.method)


def test_values_follow_from_variables(here: Path) -> None:
    both = method("space=mine.yaml")
    assert [spec.name for spec in both.insertions] == ["low", "shift"]
    assert [spec.position.layers for spec in both.insertions] == [[0, 2], [0, 2]]
    assert (both.insertions[0].function.size, both.insertions[0].scaling.value) == (4, 2.0)
    (one,) = method("space=mine.yaml", "method.variables.which=shift").insertions
    assert one.name == "shift", "a variable may be one name, too"
    (one,) = method("space=mine.yaml", "method.variables.which=[low]", "method.variables.amount=little").insertions
    assert (one.name, one.scaling.value) == ("low", 0.5)  # type: ignore[attr-defined]
    assert "variables" not in method("space=mine.yaml").to_dict()


def test_a_space_is_chosen_by_either_key_from_a_file_or_a_directory(here: Path) -> None:
    (here / "conf" / "space").mkdir(parents=True)
    (here / "conf" / "space" / "mine.yaml").write_text("# @package _global_\n" + SPACE)
    names = []
    for texts, directory in (
        (["space=mine.yaml"], None),
        (["search.space=mine.yaml"], None),
        (["search.space=mine"], "conf"),
    ):
        with composer(directory) as composing:
            todo = plan([*texts, "search=grid"], True, composing)
        names.append((todo.config.method["name"], [each.key for each in todo.space]))
    assert names == [("mine", ["optim.lr"])] * 3
    with composer(None) as composing:  # a mapping is what it always was
        todo = plan(["search.space={optim.lr: 'choice(1e-3,1e-2)'}", "search=grid"], True, composing)
    assert todo.config.method["name"] == "lora"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["method.variables.amount=lots"], "unipet.pick: unknown 'lots'. Allowed: little, much"),
        (["method.variables.which=[]"], "each of them is absent"),
        (["method=lora"], "a design space (search.space, space) has its own method"),
        (['optim.lr="${unipet.pick:${task.name},{other: 1e-3}}"'], "optim.lr: unipet.pick: unknown"),
        (['optim.lr="${unipet.pick:${task.name},3}"'], "optim.lr: unipet.pick: the second argument is a mapping"),
        (["method.variables.layers=[9]"], "layer 9 does not exist"),
    ],
)
def test_a_mistake_is_one_error(here: Path, capsys: pytest.CaptureFixture[str], texts: list[str], message: str) -> None:
    assert main(["describe", "space=mine.yaml", "model=minilm", *texts]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def test_a_file_that_is_none_is_named(here: Path) -> None:
    (here / "broken.yaml").write_text("# x\nmethod: [\n")
    for name, says in (("broken.yaml", "broken.yaml"), ("absent.yaml", "search.space: no file absent.yaml")):
        with pytest.raises(UnipetError, match=says), composer(None) as composing:
            plan([f"search.space={name}", "search=grid"], True, composing)
