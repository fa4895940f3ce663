"""What Hydra complains of in ways of its own is one short error all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipet.compose.composer import composer
from unipet.compose.hydra_errors import translate
from unipet.compose.overrides import plan
from unipet.errors import UnipetError

#: a task's file -> what the error says
FILES = {
    "defaults: null": "defaults: None given; allowed: a list",
    "defaults: 5": "defaults: 5 given; allowed: a list",
    "defaults: [null]": "defaults: None given; allowed: `_self_`",
    "defaults: ['']": "defaults: '' given",
    "defaults: [{a: 1, b: 2}]": "defaults: {'a': 1, 'b': 2} given",
    "defaults: [{a: [[1]]}]": "defaults: {'a': [[1]]} given",
    "defaults: [mine]": "leads back to its own file",
    f"defaults: [{{name: {'x' * 3000}}}]": "unknown 'xxx",
}


@pytest.mark.parametrize("text", FILES, ids=lambda text: text[:30])
def test_a_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(f"{text}\nname: mine\n")
    with composer(str(tmp_path)) as composing, pytest.raises(UnipetError) as refused:
        plan(["task=mine"], False, composing)
    assert FILES[text] in str(refused.value) and len(str(refused.value)) < 2000


LONG = "x" * 4000
#: overrides that are refused, in one run as in several
REFUSED = {
    "an interval the wrong way round": "method=interval(1,0)",
    "an interval of methods": "method=interval(0,1)",
    "an interval of tasks": "task=interval(0,1)",
    "no key": LONG,
    "a comma too many": "seed=" + "9," * 3000,
    "a long name": f"method={LONG}",
    "a long key": f"{LONG}=1",
    "a long name inside a method": f"method.{LONG}=1",
    "many together": f"method=[{'lora,' * 1000}mam]",
    "a part alone": f"position={LONG}",
    "a regulariser alone": f"objective={LONG}",
    "a long number": "seed=" + "9" * 4000,
    "a long text for a number": f"optim.lr={LONG}",
}


@pytest.mark.parametrize("word", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("multirun", [False, True])
def test_an_override(word: str, multirun: bool) -> None:
    with composer(None) as composing, pytest.raises(UnipetError) as refused:
        plan([word], multirun, composing)
    assert len(str(refused.value)) < 3000


def test_a_plugin_that_is_not_there_is_named() -> None:
    with composer(None) as composing, pytest.raises(UnipetError, match="pip install hydra-nevergrad-sweeper"):
        plan(["hydra/sweeper=nevergrad"], True, composing)


def test_many_values_without_several_runs() -> None:
    with composer(None) as composing, pytest.raises(UnipetError, match="several values need -m") as refused:
        plan(["seed=" + "9," * 3000 + "9"], False, composing)
    assert len(str(refused.value)) < 3000


def test_a_mistake_of_this_package_is_not_taken_for_one_of_the_user_s() -> None:
    with pytest.raises(KeyError), translate(["method=lora"]):
        {}["ours"]
