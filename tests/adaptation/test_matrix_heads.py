"""Decoders and encoder-decoders under a classification head: the task that `unipet train` has, on the language models'
own architectures. One method for each combination of functions and unfrozen parts, found, not listed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.architectures import Arch
from tests.support.matrix import ARCHS, METHODS, REASONS, same_bits, train, values
from unipet.calculus.method import Method

EOS = 2
CLASSIFIERS = {
    name: replace(ARCHS[name], model=model, kind="encoder")
    for name, model in {
        "gpt2": "GPT2ForSequenceClassification",
        "llama": "LlamaForSequenceClassification",
        "bart": "BartForSequenceClassification",
        "t5": "T5ForSequenceClassification",
    }.items()
}


def _combination(method: Method) -> tuple[object, ...]:
    return (*sorted(type(one.function).__name__ for one in method.insertions), *sorted(method.unfreeze))


KINDS = {_combination(method): name for name, method in METHODS.items()}.values()
#: A head makes a pair possible where there was nothing to train; all other reasons stay.
CASES = [(m, a) for m in KINDS for a in CLASSIFIERS if REASONS[m, a] in (None, "would train nothing")]


def batch_of(arch: Arch) -> dict[str, Tensor]:
    """Every row ends in one end-of-sequence token: encoder-decoders classify by its last hidden state."""
    batch = arch.batch(rows=4)
    last = batch["attention_mask"].sum(1, keepdim=True) - 1
    return {**batch, "input_ids": batch["input_ids"].scatter(1, last, EOS)}


@pytest.mark.parametrize(("method", "arch"), CASES)
def test_a_classifier_trains_its_head_and_its_method(method: str, arch: str, tmp_path: Path) -> None:
    tiny = CLASSIFIERS[arch]
    model, fresh, batch = tiny.build(), tiny.build(), batch_of(tiny)
    before = values(model)
    torch.manual_seed(0)
    report = unipet.adapt(model, METHODS[method])
    assert report.head > 0 and report.to_dict() == unipet.describe(METHODS[method], fresh.config).to_dict()
    model.train()
    owned = unipet.parameters(model, head=True)
    learned, _ = train(model, owned, lambda: model(**batch, labels=tiny.labels(batch)).loss)
    assert learned == set(owned)
    assert any(name.startswith("head/") for name in learned)
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert name not in before or tensor.requires_grad or torch.equal(tensor, before[name]), f"frozen {name} moved"
    model.eval()
    unipet.save(model, tmp_path / "adapter")
    unipet.load(fresh, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(fresh(**batch).logits, model(**batch).logits)
    unipet.eject(model)
    assert same_bits(values(model), before)


def test_a_configuration_stands_for_the_class_that_it_names() -> None:
    """Or for a sequence classifier, where it names none that transformers has for it."""
    config, method = ARCHS["gpt2"].build().config, METHODS["lora"]
    assert config.architectures == ["GPT2LMHeadModel"] and unipet.describe(method, config).head == 0
    for names in (None, ["NoSuchModel"], ["BertForMaskedLM"]):
        config.architectures = names
        assert unipet.describe(method, config).head > 0


def test_a_configuration_without_any_such_class_says_what_to_do() -> None:
    config = ARCHS["vit"].build().config
    config.architectures = None
    with pytest.raises(unipet.UnipetError, match=r"ViTConfig names no model class .* config\.architectures = "):
        unipet.describe(METHODS["lora"], config)
