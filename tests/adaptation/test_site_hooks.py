"""Where h and x are taken on pre-norm, fused and two-stack models, against layers computed by hand."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unipet
from tests.support.architectures import ARCHS
from tests.support.generating import adapted, lively
from tests.support.matrix import close
from unipet.adaptation.adapted import adaptation


def method(site: Any, form: str = "parallel", function: Any = "low_rank", **position: Any) -> dict[str, Any]:
    """One insertion called `one`."""
    position = {"site": site, "form": form, **position}
    return {"name": "test", "insertions": {"one": {"function": function, "position": position}}}


def output(arch: str, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return ARCHS[arch].real(batch, model(**batch).logits)


# -- the residual stream ---------------------------------------------------------------------------------------------
# A layer by hand: (layer, stream in, what happens to the stream after attention: (h, x) -> h', the other arguments).

Change = Callable[[Tensor, Tensor], Tensor]


def gpt2(layer: Any, h: Tensor, change: Change, **given: Any) -> Tensor:
    x = layer.ln_1(h)
    stream = change(layer.attn(x, attention_mask=given["attention_mask"])[0] + h, x)
    return stream + layer.mlp(layer.ln_2(stream))


def llama(layer: Any, h: Tensor, change: Change, **given: Any) -> Tensor:
    x = layer.input_layernorm(h)
    wanted = {name: given[name] for name in ("attention_mask", "position_embeddings")}
    stream = change(h + layer.self_attn(hidden_states=x, **wanted)[0], x)
    return stream + layer.mlp(layer.post_attention_layernorm(stream))


def opt(layer: Any, h: Tensor, change: Change, **given: Any) -> Tensor:
    x = layer.self_attn_layer_norm(h)
    a = layer.self_attn(hidden_states=x, attention_mask=given["attention_mask"])[0]
    stream = change(h + F.dropout(a, layer.dropout, layer.training), x)
    f = layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(stream))))
    return stream + F.dropout(f, layer.dropout, layer.training)


def mbart(layer: Any, h: Tensor, change: Change, **given: Any) -> Tensor:
    x = layer.self_attn_layer_norm(h)
    a = layer.self_attn(hidden_states=x, attention_mask=given["attention_mask"])[0]
    stream = change(h + F.dropout(a, layer.dropout, layer.training), x)
    c = layer.encoder_attn(
        hidden_states=layer.encoder_attn_layer_norm(stream),
        key_value_states=given["encoder_hidden_states"],
        attention_mask=given["encoder_attention_mask"],
    )[0]
    stream = stream + F.dropout(c, layer.dropout, layer.training)
    f = layer.activation_fn(layer.fc1(layer.final_layer_norm(stream)))
    return stream + F.dropout(layer.fc2(f), layer.dropout, layer.training)


BY_HAND: dict[str, tuple[Any, str, list[str]]] = {
    "gpt2": (gpt2, "transformer.h", ["past_key_values", "attention_mask"]),
    "llama": (llama, "model.layers", []),
    "opt": (opt, "model.decoder.layers", []),
    "mbart": (mbart, "model.decoder.layers", ["attention_mask", "encoder_hidden_states", "encoder_attention_mask"]),
}


def by_hand(arch: str, model: Any, form: str) -> Any:
    """The base model with the insertion written into its layers."""
    forward, path, names = BY_HAND[arch]
    plain, tensors = lively(arch), unipet.parameters(model)
    for number, layer in enumerate(plain.get_submodule(path)):
        start = next(name for name in tensors if name.startswith(f"one/{path}.{number}."))[: -len("down")]
        down, up = (nn.Parameter(tensors[start + slot].detach().clone()) for slot in ("down", "up"))
        layer.register_parameter("down", down)
        layer.register_parameter("up", up)

        def change(h: Tensor, x: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
            return h + (h if form == "sequential" else x) @ down.T @ up.T

        def replaced(self: Any, h: Tensor, *args: Any, change: Change = change, **kwargs: Any) -> Tensor:
            return forward(self, h, change, **dict(zip(names, args, strict=False)), **kwargs)

        layer.forward = types.MethodType(replaced, layer)
    return plain


def gradients(arch: str, model: Any, batch: dict[str, Tensor], checkpointing: bool | None) -> dict[str, Tensor]:
    model.train()
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
    if checkpointing:
        model.enable_input_require_grads()
    torch.manual_seed(7)
    model(**batch, labels=ARCHS[arch].labels(batch), use_cache=False).loss.backward()
    named = unipet.parameters(model) if hasattr(model, "_unipet") else dict(model.named_parameters())
    found = [
        (name, p.grad) for name, p in named.items() if name.rpartition(".")[2].rpartition("/")[2] in ("down", "up")
    ]
    return {name.rpartition(".")[2].rpartition("/")[2] + str(i // 2): g for i, (name, g) in enumerate(found)}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("form", ["parallel", "sequential"])
@pytest.mark.parametrize("arch", BY_HAND)
def test_the_residual_stream_changes_for_all_who_read_it(arch: str, form: str) -> None:
    """attn.post of a pre-norm layer: what the next block reads and what its residual connection carries past it."""
    stack = {"stack": "decoder"} if arch == "mbart" else {}
    model, batch = adapted(arch, method("attn.post", form, **stack)), ARCHS[arch].batch(3, 7)
    plain = by_hand(arch, model, form)
    assert close(output(arch, model, batch), output(arch, plain, batch))
    assert not close(output(arch, model, batch), output(arch, lively(arch), batch), 1e-2)
    for other in (model, plain):
        for module in other.modules():
            for name in ("dropout", "attention_dropout", "p"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.2)
    expected = gradients(arch, plain, batch, None)
    assert len(expected) == 4 and all(grad.abs().max() > 0 for grad in expected.values())
    for checkpointing in (None, False, True):
        for parameter in unipet.parameters(model).values():
            parameter.grad = None
        found = gradients(arch, model, batch, checkpointing)
        assert all(close(found[name], expected[name]) for name in expected), checkpointing


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_reentrant_checkpointing_never_loses_a_gradient_in_silence() -> None:
    model, batch = adapted("llama", method("ffn.post")), ARCHS["llama"].batch()
    with pytest.raises(unipet.UnipetError, match="reentrant checkpointing"):
        gradients("llama", model, batch, True)
    sequential = adapted("llama", method("ffn.post", "sequential"))
    assert all(grad.abs().max() > 0 for grad in gradients("llama", sequential, batch, True).values())


# -- before or after the norm ----------------------------------------------------------------------------------------


def recorded(model: Any, path: str) -> dict[str, Tensor]:
    """What a module reads first, filled by the next call."""
    seen: dict[str, Tensor] = {}

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        seen["x"] = (args or tuple(kwargs.values()))[0]

    model.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)
    return seen


@pytest.mark.parametrize("read", ["post_norm", "pre_norm"])
def test_a_block_is_read_before_or_after_its_norm(read: str) -> None:
    """mBART's feed-forward block with a parallel bottleneck; the released parallel adapters read the un-normed stream."""
    function = {"name": "bottleneck", "size": 4}
    model = adapted("mbart", method("ffn", function=function, input=read, stack="encoder", layers=[0]))
    layer = lively("mbart").model.encoder.layers[0]
    stream = recorded(model, "model.encoder.layers.0.final_layer_norm")
    new = recorded(model, "model.encoder.layers.1.self_attn_layer_norm")
    with torch.no_grad():
        model(**ARCHS["mbart"].batch())
        normed = layer.final_layer_norm(stream["x"])
        x = stream["x"] if read == "pre_norm" else normed
        p = {name.rpartition("/")[2]: tensor for name, tensor in unipet.parameters(model).items()}
        delta = torch.relu(x @ p["down.weight"].T + p["down.bias"]) @ p["up.weight"].T + p["up.bias"]
        assert close(new["x"], stream["x"] + layer.fc2(layer.activation_fn(layer.fc1(normed))) + delta)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "t5", "vit"])
def test_heads_may_read_the_stream_before_the_norm(arch: str) -> None:
    function = {"name": "bottleneck", "size": 4}
    model = adapted(arch, method("attn.heads", function=function, input="pre_norm"))
    site = adaptation(model).items[0].site
    stream, seen = recorded(model, site.x_path), {}
    adaptation(model).items[0].register_forward_pre_hook(lambda module, args: seen.update(x=args[1]))
    batch = ARCHS[arch].batch()
    changed = output(arch, model, batch)
    assert torch.equal(seen["x"], stream["x"])
    after = adapted(arch, method("attn.heads", function=function))
    assert not close(output(arch, after, batch), changed, 1e-3)


@pytest.mark.parametrize(
    ("arch", "site", "why"),
    [
        ("bert", "attn.q", "no pre_norm stream"),
        ("bart", "ffn.post", "no pre_norm stream"),
        ("opt_post_norm", "attn.heads", "no pre_norm stream"),
        ("llama", "attn.o", "does not read the input of its block"),
        ("llama", "ffn.down", "does not read the input of its block"),
        ("mbart", "cross.k", "does not read the input of its block"),
        ("gpt2", "norm", "does not read the input of its block"),
    ],
)
def test_where_there_is_no_stream_to_read(arch: str, site: str, why: str) -> None:
    with pytest.raises(unipet.UnipetError, match=f"one.position.input.*{why}.*post_norm"):
        unipet.adapt(ARCHS[arch].build(), method(site, input="pre_norm"))


# -- cross-attention and stacks --------------------------------------------------------------------------------------

#: role -> the modules that yield h and read x, below a decoder layer
CROSS = {
    "bart": {
        "cross.q": ("encoder_attn.q_proj", "encoder_attn.q_proj"),
        "cross.k": ("encoder_attn.k_proj", "encoder_attn.k_proj"),
        "cross.v": ("encoder_attn.v_proj", "encoder_attn.v_proj"),
        "cross.o": ("encoder_attn.out_proj", "encoder_attn.out_proj"),
        "cross": ("encoder_attn.out_proj", "encoder_attn"),
        "cross.post": ("encoder_attn_layer_norm", "encoder_attn"),
    },
    "t5": {
        "cross.q": ("layer.1.EncDecAttention.q", "layer.1.EncDecAttention.q"),
        "cross.k": ("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.k"),
        "cross": ("layer.1.EncDecAttention.o", "layer.1.EncDecAttention"),
        "cross.post": ("layer.1", "layer.1.EncDecAttention"),
    },
}
LAYERS = {"bart": "model.decoder.layers", "t5": "decoder.block"}


@pytest.mark.parametrize(("arch", "role"), [(arch, role) for arch, roles in CROSS.items() for role in roles])
def test_cross_attention_reads_the_decoder_or_the_encoder(arch: str, role: str) -> None:
    model, plain, batch = adapted(arch, method(role)), lively(arch), ARCHS[arch].batch()
    states = plain.get_encoder()(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    tensors = list(unipet.parameters(model).values())
    for number, layer in enumerate(plain.get_submodule(LAYERS[arch])):
        h_path, x_path = CROSS[arch][role]
        seen = recorded(layer, x_path)
        down, up = tensors[2 * number : 2 * number + 2]

        def hook(m: Any, args: Any, out: Any, seen: Any = seen, down: Any = down, up: Any = up) -> Any:
            if role == "cross.k":
                assert close(seen["x"], states)
            delta = seen["x"] @ down.T @ up.T
            return (out[0] + delta, *out[1:]) if isinstance(out, tuple) else out + delta

        layer.get_submodule(h_path).register_forward_hook(hook)
    assert close(output(arch, model, batch), output(arch, plain, batch))


@pytest.mark.parametrize("arch", ["bart", "mbart", "t5"])
def test_a_stack_is_selected(arch: str) -> None:
    paths = {}
    for stack in ("encoder", "decoder", "all"):
        model = adapted(arch, method(["attn.q", "ffn"], function="vector", stack=stack))
        paths[stack] = [insertion.site.path for insertion in adaptation(model).items]
        assert all(f"{stack}." in path for path in paths[stack]) or stack == "all"
    assert len(paths["encoder"]) == len(paths["decoder"]) == 4 and set(paths["all"]) == {
        *paths["encoder"],
        *paths["decoder"],
    }
    batch, changed = ARCHS[arch].batch(), adapted(arch, method("ffn", function="vector", stack="decoder"))
    states = [m.get_encoder()(batch["input_ids"]).last_hidden_state for m in (changed, lively(arch))]
    assert close(*states), "the encoder is as it was"
    with pytest.raises(unipet.UnipetError, match="gpt2 has no encoder stack"):
        unipet.adapt(ARCHS["gpt2"].build(), method("ffn", stack="encoder"))
