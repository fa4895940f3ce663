"""Traps that other libraries fell into, one test each. The matrix asks every pair about the general ones (batches.py)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import unipet
from tests.support.matrix import randomise
from tests.support.tiny import TINY, tiny_batch
from unipet.adaptation.adapted import adaptation
from unipet.config import conf_dir


def insertions(method: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((conf_dir() / "method" / f"{method}.yaml").read_text())["insertions"]
    return found


def adapted(given: dict[str, Any], seed: int = 1) -> Any:
    model = TINY["bert"](head=False)
    torch.manual_seed(0)
    unipet.adapt(model, {"name": "test", "insertions": given, "unfreeze": []})
    randomise(model, seed=seed)
    return model.eval()


def states(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**batch).last_hidden_state
    return found


def test_a_gated_low_rank_map_obeys_alpha() -> None:
    """adapters 1.3: alpha 1 and alpha 64 give the same, because the gate takes alpha/r's place."""
    deltas = []
    for alpha in (1.0, 2.0, 64.0):
        gated = next(one for one in insertions("unipelt").values() if one["function"]["name"] == "low_rank")
        gated["scaling"] = {"name": "input_gate", **({} if isinstance(gated["scaling"], str) else gated["scaling"])}
        gated["scaling"]["alpha"] = alpha
        model = adapted({"attention": {**gated, "position": {"site": "attn.q"}}})
        item, x = adaptation(model).items[0], torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
        item.context.masks_BS["encoder"] = None
        deltas.append(item(torch.zeros(1, 4, 32), x).detach())
    assert deltas[0].abs().max() > 1e-3
    assert torch.allclose(deltas[1], 2 * deltas[0], atol=1e-6) and torch.allclose(deltas[2], 64 * deltas[0], atol=1e-4)


@pytest.mark.parametrize(
    ("first", "second"),
    [("c3a", "c3a"), ("lora", "lora"), ("lora", "ia3"), ("lora", "hira"), ("hira", "lora"), ("dora", "lora"), ("oft", "lora"),
     ("road", "c3a"), ("pissa", "vera"), ("beft", "dora")],
)  # fmt: skip
def test_two_methods_at_one_site_merge_to_what_they_compute(first: str, second: str) -> None:
    """peft's C3A: with two adapters the forward pass and the merged weight differ by 0.57."""
    given = {f"one_{name}": part for name, part in insertions(first).items()}
    given |= {f"two_{name}": part for name, part in insertions(second).items()}
    model, batch = adapted(copy.deepcopy(given)), tiny_batch()
    alone = states(adapted({name: part for name, part in given.items() if name.startswith("one_")}), batch)
    before = states(model, batch)
    assert (before - alone).abs().max() > 1e-3, "the second does nothing"
    unipet.merge(model)
    assert not hasattr(model, "_unipet")
    assert torch.allclose(states(model, batch), before, atol=2e-5)


def test_the_random_pair_trains_vectors_not_matrices() -> None:
    """adapters 1.3 trains full matrices in VeRA's place: 4352 numbers at width 32 and rank 8, where the paper has 160."""
    pair = insertions("vera")["attention"]
    pair["function"]["size"] = 8
    report = unipet.describe({"name": "test", "insertions": {"a": pair}, "unfreeze": []}, TINY["bert"](head=False))
    model = adapted({"a": pair})
    assert all(parameter.dim() == 1 for parameter in unipet.parameters(model).values())
    assert report.trainable == report.stored == 2 * 2 * (32 + 8) == 160


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_a_base_model_that_was_left_on_a_disk_is_refused_and_stays_as_it_was(method: str) -> None:
    """Accelerate keeps offloaded layers on the meta device until they compute; an insertion there would have no tensors."""
    model = TINY["bert"](head=False)
    model.encoder.layer[1].to("meta")
    before = dict(model.named_parameters())
    with pytest.raises(unipet.UnipetError, match=r"16 parameters .*encoder.layer.1.*device_map=\"cpu\""):
        unipet.adapt(model, method)
    assert dict(model.named_parameters()) == before and all(parameter.requires_grad for parameter in before.values())
