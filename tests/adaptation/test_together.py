"""Several adapted models in one forward pass: each has the outputs and the gradients that it has alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.matrix import ARCHS, METHODS, REASONS, randomise, values
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.together import Part, Together

STRUCTURES = ("bert", "llama", "bart")
BESIDE = ("mam", "adamix", "vera")  # what shares the pass: columns, two views of a mixture, shared frozen tensors
ALONE = {
    **{("bitfit", arch): "unfreeze: bias" for arch in ("bert", "bart")},
    **{("ln_tuning", arch): "unfreeze: norm" for arch in STRUCTURES},
    **{("full", arch): "unfreeze: all" for arch in STRUCTURES},
}
CASES = [(m, a) for m in METHODS for a in STRUCTURES if REASONS[m, a] is None and (m, a) not in ALONE]


def base(arch: str) -> Any:
    """The same base model on every call, without dropout of its own."""
    torch.manual_seed(0)
    model = ARCHS[arch].build()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def adapted(arch: str, method: Any, seed: int) -> Any:
    model = base(arch)
    torch.manual_seed(seed)
    unipet.adapt(model, METHODS[method])
    randomise(model, 0.1, seed)
    return model.train()


def batch(model: Any) -> dict[str, Tensor]:
    """Four rows of up to seven tokens, two of them padded."""
    ids = torch.randint(5, 40, (4, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[1, 5:] = 0
    mask[3, 3:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    return inputs


class Stream:
    """A random stream of its own."""

    def __init__(self, seed: int) -> None:
        self.now = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        before = torch.get_rng_state()
        torch.set_rng_state(self.now)
        try:
            yield
        finally:
            self.now = torch.get_rng_state()
            torch.set_rng_state(before)


def views(model: nn.Module) -> int:
    return 2 if any(insertion.parts.mixture is not None for insertion in adaptation(model).items) else 1


def alone(model: Any, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits and the gradients of one model by itself."""
    count = views(model)
    adaptation(model).draw(3, seed)
    torch.set_rng_state(Stream(seed).now)
    with adaptation(model).views(count):
        logits = model(**{name: torch.cat([each] * count) for name, each in batch(model).items()}).logits
    logits.float().pow(2).mean().backward()
    return logits.detach(), taken(model)


def taken(model: nn.Module) -> dict[str, Tensor]:
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def agree(models: list[Any], together: Together) -> None:
    expected = [alone(model, seed) for seed, model in enumerate(models)]
    parts = []
    for seed, model in enumerate(models):
        adaptation(model).draw(3, seed)
        parts.append(Part(model, batch(model), views(model), Stream(seed)))
    with together.logits(parts) as logits:
        torch.stack([each.float().pow(2).mean() for each in logits]).sum().backward()
    for model, ours, (theirs, gradients) in zip(models, logits, expected, strict=True):
        name = adaptation(model).name
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name
        own = taken(model)
        assert own.keys() == gradients.keys(), name
        for key, gradient in gradients.items():
            assert (own[key] - gradient).abs().max() <= 1e-4 * (gradient.abs().max() + 1e-3), (name, key)


@pytest.mark.parametrize(("method", "arch"), CASES)
def test_each_has_the_outputs_and_gradients_that_it_has_alone(method: str, arch: str) -> None:
    names = [method, *(other for other in BESIDE if other != method and REASONS[other, arch] is None)]
    models = [adapted(arch, name, seed) for seed, name in enumerate(names)]
    together = Together(base(arch))
    assert [together.why_not(model) for model in models] == [None] * len(models)
    assert together.why_apart(models) is None
    agree(models, together)
    agree(models[:2], together)  # others have left
    together.close()
    alone(models[0], 5)
    assert all(adaptation(model).own is None and not adaptation(model).current.beside for model in models)


@pytest.mark.parametrize(("method", "arch"), sorted(ALONE))
def test_what_shares_parameters_is_refused_with_the_reason(method: str, arch: str) -> None:
    reason = Together(base(arch)).why_not(adapted(arch, method, 0))
    assert reason is not None and ALONE[method, arch] in reason


def test_frozen_weights_become_one_storage_and_trained_ones_stay_apart() -> None:
    together, models = Together(base("bert")), [adapted("bert", name, 0) for name in ("lora", "adapter")]
    before = [values(model) for model in models]
    assert [together.why_not(model) for model in models] == [None, None]
    for model, kept in zip(models, before, strict=True):
        assert all(torch.equal(each, kept[name]) for name, each in values(model).items())
    common = dict(together.base.named_parameters())
    places: dict[str, set[int]] = {}
    for model in models:
        for name, parameter in model.named_parameters():
            if name in common:
                places.setdefault(name, {common[name].data_ptr()}).add(parameter.data_ptr())
    head = set(adaptation(models[0]).head)
    assert head and all(len(own) == (3 if name in head else 1) for name, own in places.items())


def test_another_base_model_is_refused() -> None:
    together, model = Together(base("bert")), adapted("bert", "lora", 0)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] += 1
    assert "layer.0.output.dense.weight has other values" in str(together.why_not(model))


def test_what_is_not_a_number_stays_with_its_model() -> None:
    together, models = Together(base("bert")), [adapted("bert", name, 0) for name in ("mam", "lora", "prefix")]
    with torch.no_grad():
        for parameter in unipet.parameters(models[0]).values():
            parameter.fill_(float("nan"))
    parts = [Part(model, batch(model)) for model in models]
    assert not any(together.why_not(model) for model in models)
    with together.logits(parts) as (broken, *sound):
        torch.stack([each.pow(2).mean() for each in sound]).sum().backward()
    assert broken.isnan().any() and all(each.isfinite().all() for each in sound)
    for model in models[1:]:
        assert all(gradient.isfinite().all() for gradient in taken(model).values())
