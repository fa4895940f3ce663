"""Virtual tokens: what a base model computes on the longer sequence, seen through the user's tokens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from unipet.adaptation.adapted import adaptation

SIZE = 4
TEXT = [name for name, arch in ARCHS.items() if arch.kind != "image"]
ENCODERS = [name for name in TEXT if ARCHS[name].kind == "encoder"]
DECODERS = [name for name in TEXT if ARCHS[name].kind == "decoder"]
BOTH = [name for name in TEXT if ARCHS[name].kind == "encoder-decoder"]


def method(
    composition: Any = "concat", scaling: Any = 1.0, position: Any = "embed", others: Any = None, **options: Any
) -> dict[str, Any]:
    function = {"name": "prompt", "size": SIZE, "init": "torch", **options}
    one = {"function": function, "position": position, "composition": composition, "scaling": scaling}
    return {"name": "test", "unfreeze": [], "insertions": {"tokens": one, **(others or {})}}


def adapted(arch: str, spec: dict[str, Any] | None = None, *, attention: str | None = None) -> Any:
    model = ARCHS[arch].build(attention=attention)
    unipet.adapt(model, spec or method())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def tokens(model: nn.Module) -> nn.Parameter:
    return next(p for name, p in unipet.parameters(model).items() if name.endswith("/tokens"))


def left(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same rows with their padding in front."""
    lengths = batch["attention_mask"].sum(1)
    width = batch["input_ids"].shape[1]
    return {
        name: torch.stack([row.roll(width - int(length)) for row, length in zip(tensor, lengths, strict=True)])
        for name, tensor in batch.items()
    }


@pytest.mark.parametrize("arch", DECODERS)
def test_a_decoder_sees_the_tokens_before_the_text(arch: str) -> None:
    """Outputs and the gradient of the tokens are those of the base model on embeddings that were put together by hand."""
    base, model, ids = ARCHS[arch].build(), adapted(arch), torch.randint(5, 60, (2, 6))
    own = tokens(model)
    by_hand = own.detach().clone().requires_grad_()
    embeds = torch.cat([by_hand.expand(2, -1, -1), base.get_input_embeddings()(ids)], 1)
    expected = base(inputs_embeds=embeds).logits[:, SIZE:]
    found = model(input_ids=ids).logits
    assert torch.allclose(found, expected, atol=1e-5)
    weight = torch.randn(found.shape)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert own.grad is not None and by_hand.grad is not None
    assert torch.allclose(own.grad, by_hand.grad, atol=1e-4, rtol=1e-3)
    assert [n for n, p in model.named_parameters() if p.grad is not None] == [
        n for n, p in model.named_parameters() if p is own
    ]


@pytest.mark.parametrize("arch", ENCODERS)
def test_an_encoder_keeps_its_first_token_first(arch: str) -> None:
    """Classifiers and poolers read the first token; the tokens stand behind it."""
    base, model, ids = ARCHS[arch].build(), adapted(arch), torch.randint(5, 60, (2, 6))
    embeds = base.get_input_embeddings()(ids)
    embeds = torch.cat([embeds[:, :1], tokens(model).expand(2, -1, -1), embeds[:, 1:]], 1)
    assert torch.allclose(model(input_ids=ids).logits, base(inputs_embeds=embeds).logits, atol=1e-6)


@pytest.mark.parametrize("arch", BOTH)
def test_a_decoder_reads_what_the_encoder_makes_of_the_tokens(arch: str) -> None:
    base, model, batch = ARCHS[arch].build(), adapted(arch), ARCHS[arch].batch()
    encoder = base.get_encoder()
    embeds = encoder.get_input_embeddings()(batch["input_ids"])
    mask = torch.cat([torch.ones(3, SIZE, dtype=torch.long), batch["attention_mask"]], 1)
    memory = encoder(inputs_embeds=torch.cat([tokens(model).expand(3, -1, -1), embeds], 1), attention_mask=mask)
    rest = {name: batch[name] for name in ("decoder_input_ids", "decoder_attention_mask")}
    expected = base(encoder_outputs=memory, attention_mask=mask, **rest).logits
    found = model(**batch)
    assert torch.allclose(found.logits, expected, atol=1e-5)
    assert found.encoder_last_hidden_state.shape[1] == mask.shape[1]


@pytest.mark.parametrize("arch", ["bart", "t5"])
def test_a_decoder_of_two_stacks_may_have_the_tokens(arch: str) -> None:
    model, batch = adapted(arch, method(position={"site": "embed", "stack": "decoder"})), ARCHS[arch].batch()
    base = ARCHS[arch].build()
    embeds = base.get_decoder().get_input_embeddings()(batch["decoder_input_ids"])
    embeds = torch.cat([tokens(model).expand(3, -1, -1), embeds], 1)
    mask = torch.cat([torch.ones(3, SIZE, dtype=torch.long), batch["decoder_attention_mask"]], 1)
    encoded = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = base(**encoded, decoder_inputs_embeds=embeds, decoder_attention_mask=mask).logits[:, SIZE:]
    assert torch.allclose(model(**batch).logits, expected, atol=1e-5)


def test_images_have_the_tokens_behind_the_class_token() -> None:
    base, model, batch = ARCHS["vit"].build(), adapted("vit"), ARCHS["vit"].batch()

    def insert(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, :1], tokens(model).expand(3, -1, -1), output[:, 1:]], 1)

    plain = base(**batch, output_hidden_states=True)
    handle = base.vit.embeddings.register_forward_hook(insert)
    expected = base(**batch).logits
    handle.remove()
    found = model(**batch, output_hidden_states=True)
    assert torch.allclose(found.logits, expected, atol=1e-6)
    assert [h.shape for h in found.hidden_states] == [h.shape for h in plain.hidden_states]


@pytest.mark.parametrize("arch", TEXT)
def test_padding_on_either_side_does_not_matter(arch: str) -> None:
    model, batch = adapted(arch), ARCHS[arch].batch()
    together = ARCHS[arch].real(batch, model(**batch).logits)
    wider = {name: nn.functional.pad(tensor, (0, 3)) for name, tensor in batch.items()}
    scale = max(1.0, together.abs().max().item())
    assert torch.allclose(ARCHS[arch].real(wider, model(**wider).logits), together, atol=1e-5 * scale)
    if ARCHS[arch].kind == "decoder":
        shifted = left(wider)
        shifted["position_ids"] = (shifted["attention_mask"].cumsum(1) - 1).clamp(min=0)
        real = shifted["attention_mask"].bool()
        assert torch.allclose(model(**shifted).logits[real], together, atol=1e-5 * scale)


@pytest.mark.parametrize("stack", ["all", "decoder"])
@pytest.mark.parametrize("arch", ["gpt2", "llama", "opt", "gpt_neox", "gemma2", "bart", "t5"])
def test_generation_is_the_same_with_and_without_a_cache(arch: str, stack: str) -> None:
    model, batch = adapted(arch, method(position={"site": "embed", "stack": stack})), ARCHS[arch].batch()
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    text = left(text) if ARCHS[arch].kind == "decoder" else text
    length = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    for beams in (1, 3):
        cached, plain = (model.generate(**text, **length, num_beams=beams, use_cache=use) for use in (True, False))
        assert torch.equal(cached, plain)
    alone = {name: tensor[2:, text["attention_mask"][2].bool()] for name, tensor in text.items()}
    greedy = model.generate(**text, **length)
    assert torch.equal(model.generate(**alone, **length)[0, -6:], greedy[2, -6:])


def test_outputs_line_up_with_the_user_s_tokens() -> None:
    base, model, batch = ARCHS["bert"].build(), adapted("bert"), ARCHS["bert"].batch()
    plain = base.bert(**batch, output_hidden_states=True)
    found = model.bert(**batch, output_hidden_states=True)
    assert found.last_hidden_state.shape == plain.last_hidden_state.shape
    assert [h.shape for h in found.hidden_states] == [h.shape for h in plain.hidden_states]
    as_tuple = model.bert(**batch, return_dict=False)
    assert torch.equal(as_tuple[0], found.last_hidden_state) and torch.equal(as_tuple[1], found.pooler_output)
    segments = torch.ones_like(batch["input_ids"])
    assert model.bert(**batch, token_type_ids=segments).last_hidden_state.shape == plain.last_hidden_state.shape


def test_the_tokens_outputs_stay_if_asked() -> None:
    kept = adapted("gpt2", method({"name": "concat", "keep_outputs": True}))
    batch = ARCHS["gpt2"].batch()
    everything = kept(**batch).logits
    assert everything.shape[1] == SIZE + batch["input_ids"].shape[1]
    assert torch.equal(everything[:, SIZE:], adapted("gpt2")(**batch).logits)


@pytest.mark.parametrize("arch", ["bert", "gpt2"])
def test_they_are_not_real_tokens_for_gates_and_selectors(arch: str) -> None:
    shift = {"function": "vector", "position": {"site": "ffn", "tokens": "first:1", "layers": [0]}}
    model, batch = adapted(arch, method(others={"shift": shift})), ARCHS[arch].batch()
    seen: list[Tensor] = []
    inserted = next(i for i in adaptation(model).items if i.name == "shift")
    handle = inserted.register_forward_hook(lambda module, args, output: seen.append((output - args[0]).abs().sum(-1)))
    model(**batch)
    handle.remove()
    moved = seen[0] > 0
    first = 0 if arch == "bert" else SIZE  # the first real token stands where `after` leaves it
    assert moved.shape[1] == SIZE + batch["input_ids"].shape[1]
    assert moved[:, first].all() and moved.sum() == len(moved)


def test_tokens_start_at_rows_of_the_vocabulary() -> None:
    for arch in ("bert", "gpt2", "gemma"):
        model = ARCHS[arch].build()
        embedding = model.get_input_embeddings()
        ids = torch.tensor([9, 30, 9, 30])
        unipet.adapt(model, method(init="vocab", ids=[9, 30]))
        assert torch.allclose(tokens(model), embedding(ids), atol=1e-6)
        unipet.eject(model)
        drawn = []
        for seed in (0, 0, 1):
            unipet.adapt(model, method(init="vocab", seed=seed))
            drawn.append(tokens(model).detach().clone())
            unipet.eject(model)
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("init", ["torch", "vocab"])
def test_a_network_of_tokens_bakes_into_plain_ones(init: str) -> None:
    network = {"hidden": 8, "depth": 2, "activation": "tanh", "residual": True}
    model, batch = adapted("gpt2", method(init=init, reparam=network)), ARCHS["gpt2"].batch()
    own = {name.rpartition("/")[2]: p for name, p in unipet.parameters(model).items()}
    z = own["tokens"]
    for slot in ("hidden", "hidden2"):
        z = torch.tanh(z @ own[f"{slot}.weight"].T + own[f"{slot}.bias"])
    made = own["tokens"] + z @ own["out.weight"].T + own["out.bias"]
    before = model(**batch).logits
    with pytest.raises(unipet.UnipetError, match="no part of any weight"):
        unipet.merge(model)
    unipet.merge(model, partial=True)
    assert len(unipet.parameters(model)) == 1 and torch.allclose(tokens(model), made, atol=1e-6)
    assert torch.allclose(model(**batch).logits, before, atol=1e-5)


def test_experts_of_tokens_train() -> None:
    spec = method()
    spec["insertions"]["tokens"]["mixture"] = {"experts": 2}
    model, batch = adapted("gpt2", spec), ARCHS["gpt2"].batch()
    model.train()
    for step in range(8):
        adaptation(model).draw(step, seed=0)
        model(**batch, labels=ARCHS["gpt2"].labels(batch)).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in unipet.parameters(model).values())


@pytest.mark.parametrize("arch", ["gpt2", "t5", "vit"])
def test_saved_loaded_and_taken_out(arch: str, tmp_path: Path) -> None:
    model, batch = adapted(arch), ARCHS[arch].batch()
    fresh = ARCHS[arch].build()
    before = fresh(**batch).logits
    unipet.save(model, tmp_path)
    unipet.load(fresh, tmp_path)
    assert torch.equal(fresh(**batch).logits, model(**batch).logits)
    clone = copy.deepcopy(model)
    unipet.eject(fresh)
    assert torch.equal(fresh(**batch).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in fresh.modules())
    assert torch.equal(clone(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize(
    ("given", "arch", "message"),
    [
        ({"composition": "add"}, "bert", "need each other"),
        ({"position": "ffn"}, "bert", "site: embed and nothing else"),
        ({"position": {"site": "embed", "tokens": "first:1"}}, "bert", "site: embed and nothing else"),
        ({"scaling": "input_gate"}, "bert", "a gate has nothing to read"),
        ({"composition": {"name": "concat", "after": "first"}}, "gpt2", "Use start"),
        ({"init": "vocab"}, "vit", "reads no tokens"),
        ({"init": "vocab", "ids": [64]}, "bert", "64 is no token"),
    ],
)
def test_mistakes(given: dict[str, Any], arch: str, message: str) -> None:
    model = ARCHS[arch].build()
    with pytest.raises(unipet.UnipetError, match=message):
        unipet.adapt(model, method(**given))
    assert not hasattr(model, "_unipet") and not any(m._forward_pre_hooks for m in model.modules())


def test_a_text_that_does_not_fit_any_more() -> None:
    model = adapted("gpt2")
    with pytest.raises(unipet.UnipetError, match="do not fit into the 40 positions"):
        model(input_ids=torch.ones(1, 38, dtype=torch.long))
    with pytest.raises(unipet.UnipetError, match="2-D attention_mask"):
        model(input_ids=torch.ones(1, 5, dtype=torch.long), attention_mask=torch.ones(1, 1, 5, 5, dtype=torch.bool))
