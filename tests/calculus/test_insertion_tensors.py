"""Every tensor of an insertion has a name of its own, whichever of its parts learns or freezes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import unipet
from tests.support.tiny import tiny_bert
from unipet.calculus import functions
from unipet.calculus.functions.base import Function, Heads, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option


@dataclass(frozen=True)
class Named(Function):
    """Δ = a vector that the user may call anything."""

    slot: str = option("value")
    frozen_as: str = option("")

    def slots(self, widths: Widths) -> Slots:
        return {self.slot: {"": TensorSpec((widths.h,), "table", "zeros")}}

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        return {self.frozen_as: torch.ones(widths.h)} if self.frozen_as else {}

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        return params[self.slot]

    @property
    def starts_at_zero(self) -> bool:
        return True


@dataclass(frozen=True)
class NamedMatrix(functions.FUNCTIONS["low_rank"]):  # type: ignore[misc]
    """A matrix that freezes a tensor besides."""

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        return {"magnitude": torch.ones(widths.h)}


@pytest.fixture(autouse=True)
def named() -> Iterator[None]:
    unipet.register_function("named", Named)
    unipet.register_function("named_matrix", NamedMatrix)
    yield
    del functions.FUNCTIONS["named"], functions.FUNCTIONS["named_matrix"]


def method(function: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "x", "insertions": {"part": {"function": function, "position": "attn.q", **more}}}


@pytest.mark.parametrize(
    ("given", "name", "first", "second"),
    [
        (method({"name": "named", "slot": "scale"}, scaling="learned"), "scale", "slots of the function", "scaling"),
        (method({"name": "named", "slot": "gate"}, scaling="input_gate"), "gate", "slots of the function", "scaling"),
        (
            method({"name": "named_matrix"}, composition="normalise"),
            "magnitude",
            "frozen tensors of the function",
            "slots of the composition",
        ),
        (
            method({"name": "named", "slot": "value", "frozen_as": "value"}),
            "value",
            "slots of the function",
            "frozen tensors of the function",
        ),
    ],
)
def test_two_tensors_of_one_name_are_an_error(given: dict[str, Any], name: str, first: str, second: str) -> None:
    model = tiny_bert()
    with pytest.raises(unipet.UnipetError) as caught:
        unipet.adapt(model, given)
    message = str(caught.value)
    assert (
        message.startswith(f"method.insertions.part.function: the name {name!r} ") and " This is at bert." in message
    ), message
    assert message.index(first) < message.index(second)
    assert not hasattr(model, "_unipet")


def test_names_apart_are_kept_apart() -> None:
    model = tiny_bert()
    unipet.adapt(model, method({"name": "named", "frozen_as": "mask"}, scaling="learned"))
    assert {name.rpartition("/")[2] for name in unipet.parameters(model)} == {"value", "scale"}
