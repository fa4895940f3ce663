"""Methods that nobody means, from Python and from files: one short error with the key, soon, whatever is in them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import unipet
from tests.support.architectures import ARCHS
from unipet.calculus.library import load_method
from unipet.errors import UnipetError


def insertion(**changes: Any) -> dict[str, Any]:
    return {"function": "low_rank", "position": {"site": "attn.q"}, **changes}


def of(**changes: Any) -> dict[str, Any]:
    return {"name": "nasty", "insertions": {"one": insertion(**changes)}}


def deep(levels: int) -> list[Any]:
    tree: list[Any] = []
    for _ in range(levels):
        tree = [tree]
    return tree


def inside_itself() -> dict[str, Any]:
    method = of()
    method["insertions"]["one"]["function"] = {"name": "low_rank", "size": method}
    return method


def bomb() -> Any:
    tree: Any = "x"
    for _ in range(12):
        tree = [tree] * 10
    return tree


def at(**position: Any) -> dict[str, Any]:
    return of(position={"site": "attn.q", **position})


LONG, DIGITS = "x" * 90_000, "9" * 5000
#: what it is -> (the method, how the error begins, what it says)
NASTY: dict[str, tuple[Any, str, str]] = {
    "inside itself": (inside_itself(), "method.insertions.one.function.size", "inside itself"),
    "nested without end": (of(function=deep(5000)), "method.insertions.one.function", "levels deep"),
    "a bomb of aliases": (of(function={"name": bomb()}), "method.insertions.one.function.name", "values"),
    "a number without end": (of(scaling=10**5000), "method.insertions.one.scaling", "digits"),
    "a number beyond every float": (of(scaling=10**390), "method.insertions.one.scaling", "a finite number"),
    "a ratio beyond every float": (of(ratio=10**390), "method.insertions.one.ratio", "a finite number"),
    "an alpha beyond every float": (
        of(scaling={"name": "alpha_over_rank", "alpha": 10**390}),
        "method.insertions.one.scaling.alpha",
        "a finite number",
    ),
    "a text without end": (of(function="x" * 10**6), "method.insertions.one.function", "characters"),
    "a long function": (of(function=LONG), "method.insertions.one.function.name", "unknown 'xxx"),
    "a long option": (of(function={"name": "low_rank", LONG: 1}), "method.insertions.one.function.xxx", "no option"),
    "a long key": ({**of(), LONG: 1}, "method.xxx", "no option"),
    "a long name": ({**of(), "name": LONG}, "method.name", "at most 100"),
    "a long insertion": ({"name": "n", "insertions": {LONG: insertion()}}, "method.insertions.xxx", "may not be called"),
    "an insertion without a name": ({"name": "n", "insertions": {"": insertion()}}, "method.insertions.", "empty"),
    "an insertion with a line break": ({"name": "n", "insertions": {"a\nb": insertion()}}, "method.insertions", "printed"),
    "a key that is no text": ({"name": "n", "insertions": {1: insertion(), "1": insertion()}}, "method.insertions", "no text"),
    "unfreeze: 5": ({**of(), "unfreeze": 5}, "method.unfreeze", "unknown 5"),
    "unfreeze: true": ({**of(), "unfreeze": True}, "method.unfreeze", "unknown True"),
    "unfreeze: a mapping": ({**of(), "unfreeze": [{"a": 1}]}, "method.unfreeze", "unknown {'a': 1}"),
    "layers without end": (at(layers="0-" + DIGITS), "method.insertions.one.position.layers", "given"),
    "tokens without end": (at(tokens="first:" + DIGITS), "method.insertions.one.position.tokens", "given"),
    "a group without end": (at(layers="spindle:1/" + DIGITS), "method.insertions.one.position.layers", "given"),
    "bytes": (of(function=b"low_rank"), "method.insertions.one.function", "given"),
    "a set": (of(position={"site": {"attn.q"}}), "method.insertions.one.position.site", "given"),
    "a complex number": (of(scaling=1j), "method.insertions.one.scaling", "given"),
    "an object": (of(composition=object()), "method.insertions.one.composition", "given"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NASTY)
def test_it_is_one_short_error(kind: str) -> None:
    method, key, words = NASTY[kind]
    began = time.process_time()
    with pytest.raises(UnipetError) as refused:
        load_method(method)
    said = str(refused.value)
    assert said.startswith(key) and words in said, said[:300]
    assert len(said) < 2000 and time.process_time() - began < 2


def test_a_file_is_bounded_as_well(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text in (
        "name: n\ninsertions: &a [*a]\n",
        f"name: n\ninsertions: {'[' * 500}{']' * 500}\n",
        "name: n\nname: m\n",
    ):
        path.write_text(text)
        with pytest.raises(UnipetError, match=r"mine\.yaml, line"):
            load_method(path)


def test_an_absent_insertion_whose_experts_bring_the_functions_is_checked_like_any_other() -> None:
    one = {"position": {"site": "attn.q", "layers": []}, "mixture": {"experts": {"a": "block_sum"}, "router": "fixed"}}
    with pytest.raises(UnipetError, match=r"^method\.insertions\.one\.mixture\.experts: .*two or more functions"):
        load_method({"name": "nasty", "insertions": {"one": one}})


def test_a_function_of_the_base_weight_is_refused_where_h_is_the_module_s_input() -> None:
    given = of(function={"name": "vector", "through": "weight"}, position={"site": "ffn.mid"}, composition="multiply")
    with pytest.raises(UnipetError, match=r"^method\.insertions\.one\.position\.site: .*h is the module's input"):
        unipet.adapt(ARCHS["bert"].build(), given)


def test_a_bias_beside_a_start_from_the_base_weight_starts_at_zero() -> None:
    model = ARCHS["bert"].build()
    unipet.adapt(model, of(function={"name": "low_rank", "size": 2, "init": "svd", "from_start": True, "bias": True}))
    biases = [value for name, value in model.named_parameters() if "unipet" in name and name.endswith("up.bias")]
    assert biases and not any(bias.any() for bias in biases)


@pytest.mark.parametrize("composition", ["hadamard", "normalise"])
def test_a_gate_is_refused_beside_a_composition_of_the_weight(composition: str) -> None:
    with pytest.raises(
        UnipetError, match=r"^method\.insertions\.one\..*it changes the weight, which is the same for all inputs"
    ):
        load_method(of(composition=composition, scaling="input_gate"))
