"""The matrix: every shipped method on every architecture of `architectures.py`. A new file under conf/method, or a new
row of ARCHS, joins by itself.

Which pairs must be refused is worked out here from facts that the package does not look at in the same way: whether the
modelling code calls transformers' AttentionInterface, whether the base model has a bias, whether it has a task head.
A pair refused without such a fact, or accepted in spite of one, fails.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS as DEEP
from tests.support.architectures import LAYERS, Arch
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method
from unipet.calculus.method_files import method_names
from unipet.calculus.sites import ARCHITECTURES


def spec_of(method: Any) -> Any:
    """The method of a row of the matrix; anything else as it is."""
    return METHODS.get(method, method) if isinstance(method, str) else method


def _uneven(arch: Arch) -> Arch:
    """An encoder less deep than its decoder: whatever takes the one's layers for the other's shows, and it is quicker."""
    if arch.kind != "encoder-decoder":
        return arch
    t5 = {"num_layers": LAYERS - 1, "num_decoder_layers": LAYERS}
    depth = t5 if "num_layers" in arch.options else {"encoder_layers": LAYERS - 1}
    return replace(arch, options={**arch.options, **depth})


ARCHS = {name: _uneven(arch) for name, arch in DEEP.items()}

#: Compositions that no shipped method has, and that promise the same: experts of several sizes and kinds in one insertion.
COMPOSED: dict[str, Any] = {
    "differing_experts": {
        "position": {"site": "ffn"},
        "mixture": {
            "experts": {
                "narrow": {"name": "low_rank", "size": 2},
                "wide": {"name": "low_rank", "size": 5},
                "bent": {"name": "bottleneck", "size": 3, "init": "lora"},
                "constant": {"name": "vector"},
            },
            "router": "learned",
            "top_k": 4,
        },
    },
    "differing_ranks": {
        "position": {"site": ["attn.q", "attn.v"]},
        "scaling": {"name": "alpha_over_rank", "alpha": 4},
        "mixture": {"experts": [{"name": "low_rank", "size": 2}, {"name": "low_rank", "size": 5}]},
    },
}

#: Read once: the library's own tests load methods by name.
METHODS = {name: load_method(name) for name in method_names()} | {
    name: load_method({"name": name, "insertions": {"mixed": insertion}}) for name, insertion in COMPOSED.items()
}


@functools.cache
def model_of(arch: str) -> Any:
    """One tiny model per architecture to look at; tests that change a model build their own."""
    return ARCHS[arch].build(weights="rounded")


@functools.cache
def _has_bias(arch: str) -> bool:
    model = model_of(arch)
    pretrained = model.base_model if has_head(ARCHS[arch]) else model
    return any(name.rpartition(".")[2] == "bias" for name, _ in pretrained.named_parameters())


@functools.cache
def _uses_the_attention_interface(arch: str) -> bool:
    return "ALL_ATTENTION_FUNCTIONS" in inspect.getsource(sys.modules[type(model_of(arch)).__module__])


@functools.cache
def _roles(arch: str) -> list[str]:
    return next(table.roles() for table in ARCHITECTURES.values() if table.fits(model_of(arch).config))


def has_head(arch: Arch) -> bool:
    """Classifiers have a task head; a language model's output layer is pretrained."""
    return arch.kind in ("encoder", "image")


def refusal(method: str, arch: str) -> str | None:
    """What the error of a pair that cannot be must say, or None for a pair that must work."""
    spec = METHODS[method]
    for insertion in spec.insertions:
        if getattr(insertion.function, "init", None) in ("vocab", "tokens") and ARCHS[arch].kind == "image":
            return "reads no tokens"
        for role in insertion.position.site:
            inside = role.endswith(".heads")
            if insertion.position.may_miss(role):
                continue
            if not (_uses_the_attention_interface(arch) if inside else role in _roles(arch)):
                return f"'{role}' matches nothing"
    if "bias" in spec.unfreeze and not _has_bias(arch):
        return "'bias' matches no parameter"
    if not spec.insertions and set(spec.unfreeze) == {"head"} and not has_head(ARCHS[arch]):
        return "would train nothing"
    return None


REASONS: dict[tuple[str, str], str | None] = {(m, a): refusal(m, a) for a in ARCHS for m in METHODS}


WORKING = [pytest.param(m, a, id=f"{m}-{a}") for (m, a), reason in REASONS.items() if reason is None]
REFUSED = [pytest.param(m, a, why, id=f"{m}-{a}") for (m, a), why in REASONS.items() if why is not None]
every_pair = pytest.mark.parametrize(("method", "arch"), WORKING)


@contextmanager
def asking(method: str, arch: str, promise: str) -> Iterator[None]:
    """Whatever fails inside breaks this promise; the failure names it, and what failed stays its cause."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{method} on {arch} breaks a promise: {promise}") from error


def adapted(method: str, arch: str, std: float = 0.3, **options: Any) -> Any:
    """A model of this pair with values in every trained tensor."""
    model = ARCHS[arch].build(**options)
    unipet.adapt(model, METHODS[method])
    randomise(model, std)
    return model


def without_cache(arch: str) -> dict[str, bool]:
    """One pass over a whole text needs no KV cache, and making one takes time; test_generation.py is about caches."""
    return {"use_cache": False} if "decoder" in ARCHS[arch].kind else {}


def logits(arch: str, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """What the model says of real tokens."""
    with torch.inference_mode():
        return ARCHS[arch].real(batch, model(**batch, **without_cache(arch)).logits)


def with_loss(arch: str, model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    """The output of one pass that learns."""
    return model(**batch, **without_cache(arch), labels=ARCHS[arch].labels(batch))


def deep_copy(model: nn.Module) -> Any:
    """copy.deepcopy, but for the empty dictionaries of hooks, a dozen of each module, which take it most of its time."""
    owned = [value for module in model.modules() for value in vars(module).values()]
    return copy.deepcopy(model, {id(v): type(v)() for v in owned if isinstance(v, OrderedDict | set) and not v})


def randomise(model: nn.Module, std: float = 0.3, seed: int = 1) -> None:
    """Zero-initialised halves hide everything: give every trained tensor a value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=std)


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Within `tolerance` of the scale of the largest."""
    assert found.keys() == expected.keys() and expected
    scale = max(1.0, *(tensor.abs().max().item() for tensor in expected.values()))
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0.0, atol=tolerance * scale), name


def train(
    model: nn.Module, owned: Mapping[str, nn.Parameter], loss_of: Callable[[], Tensor]
) -> tuple[set[str], list[Any]]:
    """Two steps or more of plain gradient descent on what the method owns; the names that had a gradient, and the routes
    that were drawn.

    A router would take many steps to reach all of its experts, so expert 0, 1, ... is routed to everywhere in turn, at most
    twice: another tensor's start at zero may have hidden it.
    """
    inserted = adaptation(model)
    mixtures = {i.number: i.parts.mixture for i in inserted.items if i.parts.mixture is not None}
    learned: set[str] = set()
    drawn: list[Any] = []
    for step in range(max([3, *(2 * mixture.experts for mixture in mixtures.values())])):
        inserted.draw(step, seed=0)
        for route in inserted.context.routes:
            drawn.append(dict(route))
            for number, mixture in mixtures.items() if route else ():
                route[number] = dict.fromkeys(route[number], step % mixture.experts)
        loss_of().backward()
        with torch.no_grad():
            for name, p in owned.items():
                if p.grad is not None:
                    if name not in learned and p.grad.abs().max() > 0:
                        learned.add(name)
                    p.sub_(p.grad, alpha=0.1)
                    p.grad = None
        if step > 0 and len(learned) == len(owned):
            break
    return learned, drawn


@functools.cache
def before(arch: str) -> tuple[dict[str, Tensor], dict[str, Any], Tensor]:
    """What the rounded base model holds, what is around its values, and what it says of its batch."""
    model = model_of(arch)
    return values(model), untouched(model), logits(arch, model, ARCHS[arch].batch())


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    """Equal within `tolerance` of the scale of what is expected (and of 1)."""
    scale = max(1.0, expected.abs().max().item())
    return torch.allclose(found, expected, rtol=0.0, atol=tolerance * scale)


def untouched(model: nn.Module) -> dict[str, Any]:
    """All that adapting changes and ejecting must put back, but for the values."""
    modules, configs = dict(model.named_modules()), {}
    for module in modules.values():
        if "config" in vars(module):
            configs[id(module.config)] = module.config
    return {
        "modules": list(modules),
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "hooks": [name for name, module in modules.items() if module._forward_hooks or module._forward_pre_hooks],
        "marks": [name for name, module in modules.items() if any("unipet" in key for key in vars(module))],
        "attention": [config._attn_implementation for config in configs.values()],
    }


def merges_or_says_why_not(model: Any, report: unipet.AdaptReport) -> None:
    """What folds, folds; what does not is named with its reason, stays, and changes nothing."""
    stuck = [row for row in report.insertions if not row.foldable and row.modules]
    if not stuck:
        names = {name for name in model.state_dict() if not name.startswith("_unipet.")}
        unipet.merge(model)
        assert not hasattr(model, "_unipet")
        assert model.state_dict().keys() == names
        return
    state = values(model)
    with pytest.raises(unipet.UnipetError, match="cannot be merged") as caught:
        unipet.merge(model)
    assert all(row.name in str(caught.value) and str(row.why_not) in str(caught.value) for row in stuck)
    assert same_bits(model.state_dict(), state), "a refused merge must change nothing"
    unipet.merge(model, partial=True)
    kept = {row.name for row in stuck}
    assert {name.split("/")[0] for name in unipet.parameters(model)} >= kept
    # What stays is baked: it holds what the report counts as merged.
    if not any(row.foldable for row in report.insertions if row.modules):
        assert sum(p.numel() for p in unipet.parameters(model).values()) == report.merged
