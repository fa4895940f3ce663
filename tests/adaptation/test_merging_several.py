"""Several insertions at one weight, on its two sides: merged in whichever order they act, whole or but for one that stays."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.functions import built

#: A turn, a change with an offset, and one that cannot fold.
FUNCTIONS: dict[str, dict[str, Any]] = {
    "turn": {"function": {"name": "reflection", "size": 4}, "composition": "replace"},
    "shift": {"function": {"name": "low_rank", "size": 2, "bias": True}, "composition": "add"},
    "stays": {"function": {"name": "bottleneck", "size": 2}, "composition": "add"},
}


def randomised(spec: dict[str, Any], arch: str) -> nn.Module:
    model = built(ARCHS[arch]).double()
    unipet.adapt(model, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return model


@pytest.mark.parametrize("sides", list(product(("input", "output"), repeat=2)))
@pytest.mark.parametrize("names", list(product(FUNCTIONS, repeat=2)))
def test_what_is_merged_computes_the_same(names: tuple[str, str], sides: tuple[str, str]) -> None:
    insertions = {
        f"i{number}": FUNCTIONS[name]
        | {"position": {"site": ["attn.q", "ffn.down"], "form": "sequential", "side": side}}
        for number, (name, side) in enumerate(zip(names, sides, strict=True))
    }
    spec = {"name": "x", "insertions": insertions, "unfreeze": []}
    model, batch = randomised(spec, "bert"), ARCHS["bert"].batch()
    with torch.no_grad():
        before = model(**batch).logits
        summary = unipet.merge(model, partial=True)
        after = model(**batch).logits
    assert torch.allclose(after, before, rtol=0, atol=1e-9 * float(before.abs().max())), summary
    for number, name in enumerate(names):
        assert name != "stays" or summary[f"i{number}"] != "folded"
    if "stays" not in names:
        assert set(summary.values()) == {"folded"}
    elif names != ("stays", "stays") and sides[0] == sides[1]:
        # What acts nearer to the weight than the one that stays can fold, what acts farther away cannot.
        nearer = 0 if sides[0] == "output" else 1
        assert (summary[f"i{nearer}"] == "folded") == (names[nearer] != "stays")


@pytest.mark.parametrize("role", ["embed", "embed.tokens", "head.tokens"])
def test_what_embeds_tokens_has_no_input_side(role: str) -> None:
    position = {"site": role, "form": "sequential", "side": "input"}
    spec = {"name": "x", "insertions": {"i": FUNCTIONS["turn"] | {"position": position}}}
    with pytest.raises(unipet.UnipetError, match=rf"insertions\.i\.position\.side: at {role}, no function can"):
        unipet.describe(spec, built(ARCHS["bert"]))
