"""The site tables against the models: what a table says of a role is compared with what happens in a forward pass."""

from __future__ import annotations

import functools
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

import unipet
from tests.support.activations import Pass, layer_lists, probe, same, table_of
from tests.support.architectures import ARCHS, HIDDEN, LAYERS, SPARSE
from tests.support.checkout import ROOT
from unipet.calculus.sites import ARCHITECTURES, FILES, ROLES, Stack, base_of, prefix_of
from unipet.calculus.sites.resolve import has_module
from unipet.calculus.sites.table import OF_TOKENS
from unipet.cli.commands.picture import DrawnLayer

SITES = ROOT / "unipet" / "calculus" / "sites"
everywhere = pytest.mark.parametrize("arch", list(ARCHS))
#: The vocabulary of every architecture; `cross.` only with cross-attention, ffn.gate only where there is a gate.
COMMON = "embed attn.q attn.k attn.v attn.heads attn.o attn attn.post ffn.up ffn.down ffn ffn.post layer norm".split()
CROSS = [role for role in ROLES if role.startswith("cross")]
ACTIVATIONS = [ACT2FN[name] for name in ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")]

seen_in = functools.cache(probe)  # the pass in which nothing is changed, once for each architecture


def places(name: str) -> list[tuple[Pass, str, Stack, int]]:
    """Every layer of every stack."""
    seen = seen_in(name)
    return [(seen, stack, table, i) for stack, table in seen.table.stacks.items() for i in range(LAYERS)]


def blocks(stack: Stack) -> list[str]:
    return ["attn", *(["cross"] if "cross" in stack.roles else []), "ffn"]


def entering(seen: Pass, stack: Stack, name: str, layer: int, block: str) -> Tensor:
    """The stream that a block reads and is added to, from the posts of the blocks before it."""
    if block == "attn" or stack.parallel:
        return seen.layers[name, layer][0]
    return seen.one("cross.post" if block == "ffn" and "cross" in stack.roles else "attn.post", name, layer)


@everywhere
def test_layers_are_the_models_own(arch: str) -> None:
    """h of `layer` leaves one layer and is x of the next; the lists are those that the model has."""
    for seen, stack, table, layer in places(arch):
        assert prefix_of(seen.model) + table.layers == layer_lists(seen.model)[stack][0]
        stream_in, stream_out = seen.layers[stack, layer]
        assert same(seen.one_x("layer", stack, layer), stream_in) and same(seen.one("layer", stack, layer), stream_out)
        assert same(seen.one("ffn.post", stack, layer), stream_out)
        if layer:
            assert same(stream_in, seen.layers[stack, layer - 1][1])


@everywhere
def test_projections_are_what_attention_computes_with(arch: str) -> None:
    """q, k, v and heads against the arguments and the result of the attention function itself."""
    for seen, stack, table, layer in places(arch):
        hidden, heads, kv_heads, width = table.geometry(seen.model.config)
        root = f"{layer_lists(seen.model)[stack][0]}.{layer}."
        calls = {path: call for path, call in seen.attention.items() if path.startswith(root)}
        assert len(calls) == (0 if "attn.heads" in seen.table.without else len(blocks(table)) - 1)
        for path, (query, key, value, result) in calls.items():
            tokens = seen.layers["encoder", 0][0].shape[1] if "cross" in table.roles else key.shape[2]
            of_encoder = "cross" in table.roles and key.shape[2] == tokens  # the two have different numbers of tokens
            block = "cross" if of_encoder else "attn"
            q, k, v = (seen.one(f"{block}.{one}", stack, layer) for one in ("q", "k", "v"))
            assert (q.shape[-1], k.shape[-1], v.shape[-1]) == (heads * width, kv_heads * width, kv_heads * width)
            module = seen.model.get_submodule(path)
            assert same(v, value.transpose(1, 2).flatten(2))
            assert _same_but_turned(q, query, getattr(module, "q_norm", None))
            assert _same_but_turned(k, key, getattr(module, "k_norm", None))
            assert not same(q, k) and not same(k, v)
            assert same(seen.one(f"{block}.heads", stack, layer), result)
            assert same(seen.one_x(f"{block}.o", stack, layer), result), "heads are what the output projection reads"
            assert hidden == HIDDEN


def _same_but_turned(projected: Tensor, used: Tensor, norm: Any) -> bool:
    """Rotary positions turn each head's vector, which keeps its length; some models norm it first, or scale queries."""
    heads = projected.unflatten(-1, (used.shape[1], -1)).transpose(1, 2)
    with torch.no_grad():
        heads = heads if norm is None else norm(heads)
    scaled = heads * (used.norm() / heads.norm())
    return same(scaled, used) or same(heads.norm(dim=-1), used.norm(dim=-1))


@everywhere
def test_blocks_read_and_join_the_stream_as_the_table_says(arch: str) -> None:
    """x of every role of a block, its output, and what the residual add and the norms make of it."""
    for seen, stack, table, layer in places(arch):
        drawn = DrawnLayer(table, base_of(seen.model).get_submodule(table.layers)[layer]).norms()  # type: ignore[index]
        for block in blocks(table):
            stream = entering(seen, table, stack, layer, block)
            read, h = seen.one_x(block, stack, layer), seen.one(block, stack, layer)
            before = any(same(read, one) for one in seen.normed(stream))
            assert before or same(read, stream), f"x of {block} is neither the stream nor its norm"
            assert before == ((block, "before") in drawn)
            roles = (
                ("q", "heads", "post") if block == "cross" else ("q", "k", "v", "qkv", "heads", "up", "gate", "post")
            )
            for role in (f"{block}.{one}" for one in roles):
                assert (role, stack, layer) not in seen.x or same(seen.one_x(role, stack, layer), read), role
            last = f"{block}.down" if block == "ffn" else f"{block}.o"
            assert same(h, seen.one(last, stack, layer)), f"{block} is what its last projection yields"
            if (post := f"{block}.post") not in table.roles:
                assert table.parallel and post in seen.table.without
                continue
            after = seen.one(post, stack, layer)
            whole = stream + h + (seen.one("attn", stack, layer) if table.parallel else 0)
            normed = any(same(after, one) for one in seen.normed(whole))
            inside = any(same(after, stream + one) for one in seen.normed(h))
            assert normed or inside or same(after, whole)
            assert (normed, inside) == ((block, "after") in drawn, (block, "inside") in drawn)


@pytest.mark.parametrize("arch", [arch for arch, tiny in ARCHS.items() if tiny.kind == "encoder-decoder"])
def test_cross_attention_reads_the_encoder(arch: str) -> None:
    seen = seen_in(arch)
    last = seen.layers["encoder", LAYERS - 1][1]
    for layer in range(LAYERS):
        for role in ("cross.k", "cross.v"):
            x = seen.one_x(role, "decoder", layer)
            assert same(x, last) or any(same(x, one) for one in seen.normed(last))


@everywhere
def test_the_feed_forward_block_from_the_inside(arch: str) -> None:
    """mid is what the last projection reads: the activation of up, or of gate times up."""
    for seen, stack, _, layer in places(arch):
        mid, up = seen.one("ffn.mid", stack, layer), seen.one("ffn.up", stack, layer)
        assert same(mid, seen.one_x("ffn.down", stack, layer))
        gated = ("ffn.gate", stack, layer) in seen.h
        acts = seen.one("ffn.gate", stack, layer) if gated else up
        assert any(same(mid, activation(acts) * (up if gated else 1.0)) for activation in ACTIVATIONS)


@everywhere
def test_every_role_is_there_or_the_table_says_why(arch: str) -> None:
    seen = seen_in(arch)
    for stack, table in seen.table.stacks.items():
        cross = ARCHS[arch].kind == "encoder-decoder" and stack == "decoder"
        wanted = [*COMMON, *(CROSS if cross else []), *(["ffn.gate"] if _gated(seen, stack, cross) else [])]
        present = {role for role, where, _ in seen.h if where == stack}
        assert set(wanted) - present == set(seen.table.without) - set(OF_TOKENS), f"{stack} of {seen.table.name}"
        assert present - {"attn.qkv", "ffn.mid", *OF_TOKENS} <= set(wanted)
        assert table.causal == (stack == "decoder")


def _gated(seen: Pass, stack: str, cross: bool) -> bool:
    """Three projections of hidden x inner weights, or two: counted, not named."""
    layer = layer_lists(seen.model)[stack][1][-1]
    modules = [module for path, module in layer.named_modules() if "pos_" not in path]  # DeBERTa's position terms
    total = sum(m.weight.numel() for m in modules if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D")  # type: ignore[operator]
    for block in ("attn", "cross") if cross else ("attn",):
        total -= sum(HIDDEN * seen.one(f"{block}.{one}", stack, 0).shape[-1] for one in ("q", "k", "v"))
        total -= HIDDEN * seen.one_x(f"{block}.o", stack, 0).shape[-1]
    count, rest = divmod(total, HIDDEN * seen.one("ffn.mid", stack, 0).shape[-1])
    assert rest == 0 and count in (2, 3), "linear maps besides attention and feed-forward"
    return count == 3


@everywhere
def test_the_embedded_sequence(arch: str) -> None:
    """h has the width of the layers and is what the first one reads (Gemma scales it first); x is the model's input."""
    seen = seen_in(arch)
    batch = ARCHS[arch].batch()
    for stack in seen.table.stacks:
        h, x = seen.one("embed", stack, None), seen.one_x("embed", stack, None)
        side = "decoder_" if stack == "decoder" and len(seen.table.stacks) == 2 else ""
        assert torch.equal(x, batch.get(f"{side}input_ids", batch.get("pixel_values")))
        first = seen.layers[stack, 0][0]
        assert h.shape == first.shape and h.shape[-1] == HIDDEN
        assert same(first, h * (first.norm() / h.norm()))


@everywhere
def test_every_norm_is_reached(arch: str) -> None:
    """All norms of the stream; those of single heads' queries and keys are no norms of the vocabulary."""
    seen = seen_in(arch)
    reached = [h for (role, _, _), own in seen.h.items() if role == "norm" for h in own]
    missed = [path for path, _, out in seen.norms if not any(same(out, h) for h in reached)]
    assert all(path.endswith(("q_norm", "k_norm")) for path in missed), missed


@everywhere
def test_every_role_changes_the_output(arch: str) -> None:
    tiny = ARCHS[arch]
    batch = tiny.batch()
    with torch.no_grad():
        before = tiny.real(batch, tiny.build()(**batch).logits)
        for role, stack in dict.fromkeys((role, stack) for role, stack, _ in seen_in(arch).h):
            model = tiny.build()
            position = {"site": role, "form": "sequential", "stack": stack}
            insertion = {"function": {"name": "low_rank", "size": 2}, "position": position}
            unipet.adapt(model, {"name": "probe", "insertions": {"probe": insertion}})
            torch.manual_seed(1)
            for parameter in unipet.parameters(model).values():
                parameter.copy_(torch.randn(parameter.shape))
            after = tiny.real(batch, model(**batch).logits)
            assert torch.isfinite(after).all()
            assert not torch.equal(before, after), f"{role} of the {stack}"


@everywhere
def test_pre_norm_input_is_the_stream(arch: str) -> None:
    """input: pre_norm hands over what enters the block, before its norm; a post-norm architecture refuses it."""
    table = table_of(arch)
    for block in (block for stack in table.stacks.values() for block in blocks(stack)):
        roles = [block, f"{block}.{'up' if block == 'ffn' else 'q'}"]
        if not next(iter(table.stacks.values())).norms:
            with pytest.raises(unipet.UnipetError, match="no pre_norm stream"):
                probe(arch, roles=roles, input="pre_norm")
            continue
        plain = seen_in(arch)
        for (role, stack, layer), xs in probe(arch, roles=roles, input="pre_norm", layers="last:1").x.items():
            assert layer is not None
            stream = entering(plain, table.stacks[stack], stack, layer, block)
            assert same(xs[0], stream), role
            assert not same(xs[0], plain.one_x(role, stack, layer)), "this architecture has a norm there"


@everywhere
def test_a_post_moves_what_bypasses_the_next_block(arch: str) -> None:
    """A vector at attn.post moves the stream itself, not only what the next block's norm reads: with every later block
    silenced, it is what the layer yields."""
    for stack_name, stack in table_of(arch).stacks.items():
        for role in (role for role in ("attn.post", "cross.post") if role in stack.roles and stack.norms):
            later = blocks(stack)[blocks(stack).index(role.split(".")[0]) + 1 :]

            def silence(model: nn.Module, stack: Stack = stack, later: list[str] = later) -> None:
                layer: Any = base_of(model).get_submodule(stack.layers)[-1]  # type: ignore[index]
                for module in (layer.get_submodule(stack.roles[block][0].h) for block in later):
                    for parameter in module.parameters():
                        parameter.data.zero_()

            seen = probe(arch, roles=[role], values=1.0, prepare=silence, layers="last:1", stack=stack_name)
            (vector,) = unipet.parameters(seen.model).values()
            moved = seen.one(role, stack_name, LAYERS - 1) + vector.detach()
            assert same(seen.layers[stack_name, LAYERS - 1][1], moved), role


def test_every_path_of_every_table_exists_on_some_model() -> None:
    """A typo in a table would otherwise look like a module that this model happens not to have."""
    models = {name: each.build() for name, each in {**ARCHS, **SPARSE}.items()}
    for table in ARCHITECTURES.values():
        bases = [base_of(model) for model in models.values() if table.fits(model.config)]
        assert {base.config.model_type for base in bases} == set(table.model_types) or table.name == "roberta"
        for stack in table.stacks.values():
            layers = [layer for base in bases for layer in base.get_submodule(stack.layers).children()]
            for owners, roles in ((layers, stack.roles), (bases, stack.outside)):
                for role, points in roles.items():
                    for path in (path for point in points for path in (point.h, point.x) if path is not None):
                        assert any(has_module(owner, path) for owner in owners), f"{table.name}: {role} at {path!r}"
            assert all(any(has_module(layer, path) for layer in layers) for path in stack.norms.values())
            assert all(has_module(base, stack.entry) for base in bases)


def test_an_architecture_is_one_file_and_one_line() -> None:
    files = {path.stem: path.read_text(encoding="utf-8") for path in SITES.glob("*.py")}
    tables = {stem: text for stem, text in files.items() if "\nTABLES = (" in text}
    assert sorted(tables) == sorted(FILES) and len(set(FILES)) == len(FILES)
    assert all(files["__init__"].count(f'"{stem}"') == 1 for stem in tables)
    sizes = {stem: len(text.splitlines()) for stem, text in tables.items()}
    assert max(sizes.values()) <= 90, sizes
    assert 20 <= median(sizes.values()) <= 40
    assert len({name for table in ARCHITECTURES.values() for name in table.model_types}) >= 20
