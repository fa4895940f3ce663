"""Which tests `make test` leaves to `make matrix`: the same question on further architectures, and what takes long."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.architectures import ARCHS
from tests.support.checkout import ROOT
from tests.support.selection import SLOW, STRUCTURES, mark


def item(name: str, file: str = "calculus/test_x.py", **parameters: Any) -> Any:
    """A collected test with these parameters."""
    markers: list[str] = []
    shown = f"{name}[{'-'.join(map(str, parameters.values()))}]" if parameters else name
    return SimpleNamespace(
        name=shown,
        nodeid=f"tests/{file}::{shown}",
        path=ROOT / "tests" / file,
        callspec=SimpleNamespace(params=parameters),
        markers=markers,
        add_marker=markers.append,
    )


def test_there_is_one_architecture_of_each_structure() -> None:
    assert {kind: ARCHS[name].kind for kind, name in STRUCTURES.items()} == {kind: kind for kind in STRUCTURES}


def test_the_same_question_is_left_to_the_matrix() -> None:
    """Its method and other parameters count: a question that no architecture of STRUCTURES is asked stays."""
    same = [item("test_a", arch=arch, method="lora") for arch in ("bert", "gpt2", "llama", "vit")]
    fused = [item("test_a", arch=arch, method="fused") for arch in ("gpt2", "gpt_neox")]
    another = [item("test_b", arch="gpt2"), item("test_b", file="tasks/test_x.py", arch="bert"), item("test_c")]
    mark([*same, *fused, *another])
    assert [one.markers for one in same] == [[], ["matrix"], [], ["matrix"]]
    assert not any(one.markers for one in [*fused, *another])


def test_what_takes_long_is_named_by_file_and_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SLOW, "calculus/test_x.py", ("test_long",))
    here, there = item("test_long", size=3), item("test_long", file="tasks/test_x.py", size=3)
    mark([here, there])
    assert (here.markers, there.markers) == (["slow"], [])


@pytest.mark.parametrize("file", SLOW)
def test_what_takes_long_exists(file: str) -> None:
    tree = ast.parse((ROOT / "tests" / Path(file)).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(SLOW[file]) <= functions
