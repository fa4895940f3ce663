"""A prefix that starts as the keys and values that the frozen base model computes of a text, its first positions frozen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import untouched, values
from tests.support.saved_method import change_method
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.api import frozen
from unipet.calculus.library import load_method

# peft 0.21 asks transformers by a name that 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

METHOD = "cartridge"
TEXT = [9, 17, 6, 31, 12, 40]
BEHIND = {"name": "gated", "shift_positions": True}


SHIPPED = load_method(METHOD).to_dict()["insertions"]["attention"]


def method(composition: Any = BEHIND, site: Any = "attn.heads", stack: str = "all", **function: Any) -> dict[str, Any]:
    """The shipped method with options set."""
    one: dict[str, Any] = copy.deepcopy(SHIPPED)
    one["function"] |= {"size": 4, "ids": TEXT, "freeze_first": 0, **function}
    one |= {"position": {"site": site, "stack": stack}, "composition": composition}
    return {"name": "test", "unfreeze": [], "insertions": {"text": one}}


def ids(rows: int = 2, length: int = 6) -> Tensor:
    return torch.randint(5, 60, (rows, length), generator=torch.Generator().manual_seed(3))


def behind_text(size: int, rest: Tensor) -> Tensor:
    return torch.cat([torch.tensor(TEXT[:size]).expand(len(rest), -1), rest], 1)


@pytest.mark.parametrize("arch", ["gpt2", "opt", "llama", "qwen3", "gpt_neox", "gemma"])
@pytest.mark.parametrize("first", [0, 1, 3])
def test_before_training_it_continues_the_text(arch: str, first: int) -> None:
    """A decoder computes what it would with the text in front, and goes on to write the same."""
    model, rest = ARCHS[arch].build(), ids()
    expected = model(input_ids=behind_text(4, rest)).logits[:, 4:]
    length = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    written = model.generate(behind_text(4, rest), **length)[:, 4:]
    unipet.adapt(model, method(freeze_first=first))
    assert torch.allclose(model(input_ids=rest).logits, expected, atol=1e-5)
    assert torch.equal(model.generate(rest, **length), written)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_t5_counts_the_prefix_in_its_relative_positions(stack: str) -> None:
    """One layer, so that keys depend on their own token alone."""
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, num_heads=4, num_layers=1, d_ff=48, pad_token_id=0)
    model: Any = T5ForConditionalGeneration(config).eval()
    rest, other = ids(), ids(2, 5)
    part = getattr(model, stack)
    memory = {} if stack == "encoder" else {"encoder_hidden_states": model.encoder(other).last_hidden_state}
    expected = part(input_ids=behind_text(4, rest), **memory).last_hidden_state[:, 4:]
    unipet.adapt(model, method(stack=stack, freeze_first=1))
    assert torch.allclose(part(input_ids=rest, **memory).last_hidden_state, expected, atol=1e-5)


def test_an_encoder_reads_the_whole_text() -> None:
    """Its first keys depend on the last token; a decoder's do not."""
    for arch, depends in (("bert", True), ("llama", False)):
        found = []
        for last in (40, 41):
            model = ARCHS[arch].build()
            unipet.adapt(model, method(ids=[*TEXT[:-1], last]))
            found.append(unipet.parameters(model))
        same = [torch.equal(tensor, found[1][name]) for name, tensor in found[0].items()]
        assert (not all(same)) is depends


def test_frozen_positions_neither_train_nor_decay_nor_count(tmp_path: Path) -> None:
    model = ARCHS["llama"].build()
    report = unipet.adapt(model, method(freeze_first=1))
    assert report.to_dict() == unipet.describe(method(freeze_first=1), model.config).to_dict()
    width = 16  # two key/value heads of eight
    assert report.trainable == report.stored == report.merged == 2 * 2 * 3 * width
    own, fixed = unipet.parameters(model), frozen(model)
    assert all(p.shape == (3, width) for p in own.values()) and all(t.shape == (1, width) for t in fixed.values())
    before = copy.deepcopy(fixed)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    batch = ARCHS["llama"].batch()
    for _ in range(2):
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen(model).items())
    unipet.save(model, tmp_path)
    again = ARCHS["llama"].build()
    unipet.load(again, tmp_path)
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    change_method(tmp_path, r"(ids:\s*(?:\[|-)\s*)9\b", r"\g<1>33")
    with pytest.raises(unipet.UnipetError, match="frozen tensors of text came out differently"):
        unipet.load(ARCHS["llama"].build(), tmp_path)


def test_reading_leaves_the_model_and_the_random_stream_alone() -> None:
    model = ARCHS["bart"].build().train()
    model.model.encoder.eval()
    state, outside, modes = values(model), untouched(model), [m.training for m in model.modules()]
    stream = torch.get_rng_state()
    unipet.describe(method(freeze_first=1), model)
    assert torch.equal(torch.get_rng_state(), stream)
    assert untouched(model) == outside and [m.training for m in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in values(model).items())


def test_without_a_text_tokens_are_drawn_by_the_seed() -> None:
    found = []
    for seed in (0, 0, 1):
        model = ARCHS["gpt2"].build()
        unipet.adapt(model, method(ids=[], seed=seed))
        found.append(torch.cat([p.flatten() for p in unipet.parameters(model).values()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("init", ["bert", "torch", "zeros"])
def test_frozen_positions_of_any_start_come_from_the_seed(init: str) -> None:
    made = []
    for seed in (0, 0, 1):
        model = ARCHS["bert"].build()
        unipet.adapt(model, method(init=init, ids=[], freeze_first=2, seed=seed))
        made.append(torch.cat(list(frozen(model).values())))
    spread = {"bert": 0.02, "torch": 1.0, "zeros": 0.0}[init]
    assert abs(made[0].std().item() - spread) <= 0.15 * spread
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2]) is (init == "zeros")


def test_every_expert_of_a_mixture_starts_as_the_text() -> None:
    spec = method(freeze_first=1)
    spec["insertions"]["text"]["mixture"] = {"experts": 2}
    model, rest = ARCHS["llama"].build(), ids()
    expected = model(input_ids=behind_text(4, rest)).logits[:, 4:]
    unipet.adapt(model, spec)
    model.train()
    assert torch.allclose(model(input_ids=rest).logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "given", "message"),
    [
        ("vit", {}, "method.insertions.text.function.init: vit reads no tokens"),
        ("llama", {"ids": [1, 2, 64, 3]}, "function.ids: 64 is no token, the vocabulary has 0-63"),
        ("llama", {"ids": [1, 2, 3]}, "3 tokens given, and the prefix has 4 positions"),
        ("llama", {"freeze_first": 4}, "function.freeze_first: 4 of 4 positions given; allowed: at most 3"),
        ("llama", {"init": "bert"}, "a text to start from needs init: tokens"),
        ("llama", {"reparam": {}}, "function.reparam: init: tokens is about keys and values themselves"),
        ("llama", {"init": "bert", "ids": [], "freeze_first": 1, "reparam": {}}, "reparam: freeze_first: 1 is about"),
        ("bert", {"ids": [5] * 41}, "a text of 41 tokens does not fit into the 40 positions"),
        ("bart", {"site": ["cross.heads"]}, "cross.heads has the keys of another stack's text"),
    ],
)
def test_mistakes(arch: str, given: dict[str, Any], message: str) -> None:
    model = ARCHS[arch].build()
    before = untouched(model)
    with pytest.raises(unipet.UnipetError, match=message):
        unipet.adapt(model, method(**given))
    assert untouched(model) == before
    with pytest.raises(unipet.UnipetError, match=message):
        unipet.describe(method(**given), model.config)


def theirs(arch: str) -> Any:
    config = peft.CartridgeConfig(num_virtual_tokens=4, num_frozen_tokens=1, task_type="CAUSAL_LM")
    return peft.get_peft_model(ARCHS[arch].build(), config).eval()


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_peft_s_own_starts_and_computes_the_same(arch: str) -> None:
    model, other, rest = ARCHS[arch].build(), theirs(arch), ids()
    cache = model(input_ids=torch.tensor([TEXT]), use_cache=True).past_key_values
    peft.tuners.cartridge.utils.initialize_kv_prefix_from_past_key_values(
        other, past_key_values=[(layer.keys, layer.values) for layer in cache.layers]
    )
    unipet.adapt(model, method(freeze_first=1))
    probe = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(2))
    found, expected = model(input_ids=rest).logits, other(input_ids=rest).logits
    assert torch.allclose(found, expected, atol=1e-5)
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    encoder = other.prompt_encoder.default
    assert encoder.frozen_embedding.grad is None
    pieces = [
        (item.bank.reduced()[slot].grad, frozen(model)[f"text/{item.site.name}/first_{slot}"])
        for item in adaptation(model).items
        for slot in ("keys", "values")
    ]
    gradient, fixed = (torch.cat(columns, 1) for columns in zip(*pieces, strict=True))
    assert torch.allclose(fixed, encoder.frozen_embedding, atol=1e-6)
    assert torch.allclose(gradient, encoder.trainable_embedding.grad, atol=1e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_to_peft_and_back(arch: str, tmp_path: Path) -> None:
    model, rest = ARCHS[arch].build(), ids()
    unipet.adapt(model, method(freeze_first=1))
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    expected = model(input_ids=rest).logits
    unipet.export_peft(model, tmp_path)
    other = peft.PeftModel.from_pretrained(ARCHS[arch].build(), str(tmp_path)).eval()
    assert other.peft_config["default"].num_frozen_tokens == 1
    assert torch.allclose(other(input_ids=rest).logits, expected, atol=1e-5)
    again = ARCHS[arch].build()
    unipet.import_peft(again, tmp_path)
    assert torch.equal(again(input_ids=rest).logits, expected)
    assert [p.shape for p in unipet.parameters(again).values()] == [p.shape for p in unipet.parameters(model).values()]
    with pytest.raises(unipet.UnipetError, match="its frozen positions came from"):
        unipet.save(again, tmp_path / "ours")
