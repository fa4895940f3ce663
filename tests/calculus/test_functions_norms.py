"""LayerNorms inside a function, a block's output as input, gates over padding, low rank at an embedding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unipet
from tests.support.tiny import TINY, tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Heads, Widths


def filled(model: nn.Module, insertion: dict[str, Any]) -> nn.Module:
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("where", ["in", "out"])
def test_a_bottleneck_s_norm(where: str) -> None:
    function: Any = FUNCTIONS["bottleneck"](size=3, norm=where, eps=1e-3)  # type: ignore[call-arg]
    slots = function.slots(Widths(5, 4))
    width = 5 if where == "in" else 4
    assert {name: spec.shape for name, spec in slots["norm"].items()} == {"weight": (width,), "bias": (width,)}
    params = {f"{slot}.{name}": torch.randn(spec.shape) for slot, own in slots.items() for name, spec in own.items()}
    norm = nn.LayerNorm(width, eps=1e-3)
    norm.load_state_dict({"weight": params["norm.weight"], "bias": params["norm.bias"]})
    u = torch.randn(2, 5)
    z = F.linear(norm(u) if where == "in" else u, params["down.weight"], params["down.bias"]).relu()
    expected = F.linear(z, params["up.weight"], params["up.bias"])
    assert torch.allclose(function.delta(u, params, False), norm(expected) if where == "out" else expected, atol=1e-6)


def test_a_prefix_with_queries_of_its_own() -> None:
    function: Any = FUNCTIONS["prefix"](size=3, activation="relu", norm="in", scaled=False)  # type: ignore[call-arg]
    widths = Widths(8, 8, 2, 2, 4)
    params = {
        f"{slot}.{name}".rstrip("."): torch.randn(spec.shape)
        for slot, own in function.slots(widths).items()
        for name, spec in own.items()
    }
    x, W = torch.randn(2, 5, 8), torch.randn(8, 8)

    def project(u: Tensor) -> Tensor:
        return (u @ W.T).unflatten(-1, (2, 4)).transpose(1, 2)

    heads = Heads(torch.randn(2, 2, 5, 4), 0.5, 2, x, project)
    normed = F.layer_norm(x, (8,), params["norm.weight"], params["norm.bias"])
    k, v = (params[slot].view(3, 2, 4).transpose(0, 1) for slot in ("keys", "values"))
    expected = ((project(normed) @ k.transpose(-1, -2)).relu() @ v).transpose(1, 2).flatten(2)
    assert torch.allclose(function.delta(heads, params, False), expected, atol=1e-5)


@pytest.mark.parametrize("option", [{"norm": "in"}, {"scaled": False}])
def test_a_shared_softmax_has_no_queries_of_its_own(option: dict[str, Any]) -> None:
    insertion = {"function": {"name": "prefix", **option}, "position": "attn.heads", "composition": "gated"}
    with pytest.raises(unipet.UnipetError, match=f"function.{next(iter(option))}"):
        unipet.adapt(tiny_bert(), {"name": "x", "insertions": {"a": insertion}})


def test_queries_of_its_own_need_a_plain_projection() -> None:
    insertion = {"function": {"name": "prefix", "norm": "in"}, "position": "attn.heads"}
    if "llama" in TINY:
        with pytest.raises(unipet.UnipetError, match="rotary"):
            unipet.adapt(TINY["llama"](), {"name": "x", "insertions": {"a": insertion}})


def test_the_block_s_output_as_input() -> None:
    """x = N(h + r), r the block's residual; the function's result is added before N."""
    given = {
        "function": {"name": "bottleneck", "size": 3},
        "position": {"site": "ffn", "input": "block_output"},
    }
    model = filled(tiny_bert(), given)
    layer = model.bert.encoder.layer[0]
    seen: dict[str, Tensor] = {}
    layer.intermediate.register_forward_pre_hook(lambda module, args: seen.update(r=args[0]))
    layer.output.LayerNorm.register_forward_hook(lambda module, args, out: seen.update(sum=args[0], out=out))
    model(**tiny_batch())
    item = adaptation(model).items[0]
    h = F.linear(layer.intermediate(seen["r"]), layer.output.dense.weight, layer.output.dense.bias)
    x = F.layer_norm(
        h + seen["r"],
        h.shape[-1:],
        layer.output.LayerNorm.weight,
        layer.output.LayerNorm.bias,
        layer.output.LayerNorm.eps,
    )
    expected = h + item.parts.function.delta(x, item.params(), False) + seen["r"]
    assert torch.allclose(seen["sum"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "position",
    [{"site": "ffn", "form": "sequential"}, {"site": "ffn.up"}, {"site": "attn.q"}],
)
def test_only_a_block_has_an_output(position: dict[str, Any]) -> None:
    insertion = {"function": "bottleneck", "position": {**position, "input": "block_output"}}
    with pytest.raises(unipet.UnipetError, match=r"position\.input: 'block_output' given"):
        unipet.adapt(tiny_bert(), {"name": "x", "insertions": {"a": insertion}})
