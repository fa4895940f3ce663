"""The roles of routed and shared experts on the base models that have them, against what their own forward passes compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.activations import same
from tests.support.architectures import HIDDEN, SPARSE
from unipet.adaptation.adapted import adaptation
from unipet.calculus.insertion import Insertion
from unipet.calculus.sites import ARCHITECTURES, ROLES, architecture_of, parse_table, table_data
from unipet.errors import UnipetError

everywhere = pytest.mark.parametrize("arch", list(SPARSE))
ROUTED = [role for role in ROLES if role.startswith("experts")]
SHARED = [role for role in ROLES if role.startswith("shared")]


def seen(
    arch: str, roles: list[str]
) -> tuple[nn.Module, dict[tuple[str, int, int | None], tuple[Tensor, Any]], dict[str, Any]]:
    """A pass with a zero vector at every role: (role, layer, expert) -> h and x; and what modules took and yielded, by path."""
    model = SPARSE[arch].build()
    insertions = {
        role.replace(".", "_"): {
            "function": "vector",
            "position": {"site": role, "optional": True, "form": "sequential"},
        }
        for role in roles
    }
    taken: dict[str, Any] = {}
    for path, module in model.named_modules():
        module.register_forward_hook(lambda m, args, out, path=path: taken.update({path: (args, out)}))
    unipet.adapt(model, {"name": "probe", "insertions": insertions})
    found: dict[tuple[str, int, int | None], tuple[Tensor, Any]] = {}

    def note(item: Insertion, args: tuple[Any, ...]) -> None:
        assert item.site.layer is not None
        found[item.site.role, item.site.layer, item.site.expert] = (args[0].clone(), args[1])

    for item in adaptation(model).items:
        item.register_forward_pre_hook(note)
    with torch.no_grad():
        model(**SPARSE[arch].batch(3, 7), use_cache=False)
    return model, found, taken


@everywhere
def test_the_places_inside_an_expert_are_what_it_computes(arch: str) -> None:
    model, found, taken = seen(arch, ROUTED)
    table = architecture_of(model, ARCHITECTURES)
    assert set(ROUTED) <= set(table.roles())
    layers = {layer for _, layer, _ in found}
    for layer in layers:
        (x_SD, index_SK, weight_SK), out = taken[f"model.layers.{layer}.mlp.experts"]
        experts = model.get_submodule(f"model.layers.{layer}.mlp.experts")
        total = torch.zeros_like(x_SD)
        for expert in index_SK.unique().tolist():
            place, token = torch.where(expert == index_SK.T)
            x = x_SD[token]
            gate, up = (x @ experts.gate_up_proj[expert].T).chunk(2, -1)
            mid = nn.functional.silu(gate) * up
            y = mid @ experts.down_proj[expert].T
            for role, h in (("gate", gate), ("up", up), ("mid", mid), ("down", y)):
                (own,) = found[f"experts.{role}", layer, expert][0]
                assert same(own, h), (role, expert)
            total.index_add_(0, token, y * weight_SK[token, place, None])
        h_BTD = found["experts", layer, None][0]
        assert h_BTD.dim() == 3 and h_BTD.shape[-1] == HIDDEN
        assert same(h_BTD.flatten(0, 1), total) and same(out, total)


@everywhere
def test_a_block_is_its_routed_and_its_shared_experts(arch: str) -> None:
    _, found, taken = seen(arch, ["ffn", "experts", "shared", "shared.gate", "shared.up", "shared.mid", "shared.down"])
    for layer in {layer for role, layer, _ in found if role == "experts"}:
        block, routed = found["ffn", layer, None][0], found["experts", layer, None][0]
        if arch != "qwen2_moe":
            assert same(block, routed) and ("shared", layer, None) not in found
            continue
        shared, down = found["shared", layer, None][0], found["shared.down", layer, None][0]
        (stream,), _ = taken[f"model.layers.{layer}.mlp"]
        gate = torch.sigmoid(taken[f"model.layers.{layer}.mlp.shared_expert_gate"][1]).view(*block.shape[:2], 1)
        assert same(shared, down) and same(block, routed + gate * shared)
        acts, up = found["shared.gate", layer, None][0], found["shared.up", layer, None][0]
        assert same(found["shared.mid", layer, None][0], nn.functional.silu(acts) * up)
        assert stream.shape == block.shape


def test_a_dense_layer_between_has_the_usual_roles() -> None:
    _, found, _ = seen("qwen2_moe", ["ffn", "ffn.up", "ffn.down", "experts"])
    assert {layer for role, layer, _ in found if role == "ffn.up"} == {1}
    assert {layer for role, layer, _ in found if role == "experts"} == {0, 2}
    assert {layer for role, layer, _ in found if role == "ffn"} == {0, 1, 2}


@everywhere
def test_attention_norms_and_streams_are_those_of_llama(arch: str) -> None:
    roles = ["embed", "attn.q", "attn.k", "attn.v", "attn.heads", "attn.o", "attn", "attn.post", "ffn.post", "layer"]
    model = SPARSE[arch].build()
    for role in roles:
        spec = {
            "name": "p",
            "insertions": {"p": {"function": "low_rank", "position": {"site": role, "form": "sequential"}}},
        }
        before = model(**SPARSE[arch].batch()).logits
        unipet.adapt(model, spec)
        for tensor in unipet.parameters(model).values():
            tensor.data.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
        assert not torch.equal(model(**SPARSE[arch].batch()).logits, before), role
        unipet.eject(model)
        assert torch.equal(model(**SPARSE[arch].batch()).logits, before)


@everywhere
def test_a_table_is_written_and_read_again(arch: str) -> None:
    table = architecture_of(SPARSE[arch].build(), ARCHITECTURES)
    assert parse_table(table_data(table)) == table


def test_a_users_own_table_may_name_places_inside_of_experts() -> None:
    model = SPARSE["mixtral"].build()
    roles = {"experts.up": {"h": "mlp.experts", "at": "expert.up"}, "attn.q": "self_attn.q_proj"}
    table = {"name": "own", "model_types": ["mixtral"], "stacks": {"decoder": {"layers": "layers", "roles": roles}}}
    spec = {"name": "p", "insertions": {"p": {"function": "low_rank", "position": {"site": "experts.up"}}}}
    assert len(unipet.adapt(model, spec, sites=table).insertions[0].modules) == 8
    unipet.eject(model)
    roles["experts.up"] = {"h": "self_attn", "at": "expert.up"}
    with pytest.raises(UnipetError, match="does not keep its experts as"):
        unipet.adapt(model, spec, sites=table)
