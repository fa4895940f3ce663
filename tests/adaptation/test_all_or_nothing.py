"""Whatever fails, and wherever on the way: adapting, loading, importing and merging change a model wholly or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from unipet.adaptation import api, attaching, checkpoint
from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.attaching import Attachment
from unipet.adaptation.peft import directories as peft_door
from unipet.calculus.bank import Bank
from unipet.calculus.insertion import Insertion

#: Every kind of change: hooks before and after, inside attention, around a stack, parts of the base model that train.
METHOD: dict[str, Any] = {
    "name": "everywhere",
    "insertions": {
        "pairs": {
            "function": {"name": "low_rank", "size": 2, "bias": True},
            "position": {"site": ["attn.q", "ffn.down"]},
        },
        "heads": {"function": {"name": "prefix", "size": 2}, "position": "attn.heads", "composition": "gated"},
        "inner": {"function": "vector", "position": "ffn.mid", "composition": "multiply"},
        "block": {
            "function": {"name": "bottleneck", "size": 2},
            "position": {"site": "ffn", "form": "parallel"},
            "mixture": {"experts": 2},
        },
        "tokens": {"function": {"name": "prompt", "size": 2}, "position": "embed", "composition": "concat"},
    },
    "unfreeze": ["head", "norm"],
}
PLAIN = {
    "name": "plain",
    "insertions": {
        "pairs": {"function": {"name": "low_rank", "size": 2}, "position": {"site": ["attn.q", "ffn.down"]}}
    },
}


class PlantedError(Exception):
    """Nothing that the package knows."""


def prepared() -> nn.Module:
    """A model that somebody has been at: some of it frozen, some with gradients, in training."""
    model: nn.Module = ARCHS["bert"].build().train()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 != 0)
        if number % 2:
            parameter.grad = torch.full_like(parameter, float(number))
    return model


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def state(model: nn.Module) -> dict[str, Any]:
    """All that could be left behind."""
    modules = dict(model.named_modules())
    return {
        "modules": sorted(modules),
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "flags": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {
            name: [len(hooks) for key, hooks in sorted(vars(module).items()) if "hooks" in key and hooks is not None]
            for name, module in modules.items()
        },
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "attention": [m.config._attn_implementation for m in modules.values() if hasattr(m, "config")],
    }


def output(model: nn.Module) -> Tensor:
    """What it computes in evaluation; every module's mode stays."""
    modes = {module: module.training for module in model.modules()}
    with torch.no_grad():
        found: Tensor = model.eval()(**ARCHS["bert"].batch()).logits
    for module, mode in modes.items():
        module.training = mode
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return bool(one.keys() == other.keys()) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one == other)


#: What the doors call on their way: (owner, name of the function in it).
STEPS: list[tuple[Any, str]] = [
    (Insertion, "__init__"),
    (Insertion, "bake"),
    (Bank, "put"),
    (Adaptation, "__init__"),
    (Adaptation, "train"),
    (Adaptation, "keeping"),
    (Adaptation, "replaces"),
    (Attachment, "put_in"),
    (Attachment, "_wrap_attention"),
    (Attachment, "_hook"),
    (attaching, "changes"),
    (attaching, "wrap_implementation"),
    (nn.Module, "register_forward_hook"),
    (nn.Module, "register_forward_pre_hook"),
    (nn.Module, "add_module"),
    (Tensor, "requires_grad_"),
    (Tensor, "copy_"),
    (api, "report_of"),
    (checkpoint, "report_of"),
    (checkpoint, "unpack"),
    (checkpoint, "_checksums"),
    (peft_door, "imported"),
]


def planted(owner: Any, name: str, number: int, patch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Make the `number`-th call fail, of those until it has; whether it has come to it."""
    original, left = getattr(owner, name), [number]

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise PlantedError(name)
        return original(*args, **kwargs)

    patch.setattr(owner, name, failing)
    return lambda: left[0] <= 0


def numbers() -> Iterator[int]:
    """The first calls one by one, then ever wider apart."""
    number = 1
    while True:
        yield number
        number += 1 + number // 4


def each_failure(
    owner: Any,
    name: str,
    fresh: Callable[[], nn.Module],
    act: Callable[[nn.Module], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> int:
    """Let every call of one step fail in turn; how many did before the act went through."""
    for count, number in enumerate(numbers()):
        model = fresh()
        before, computed = state(model), output(model)
        with monkeypatch.context() as patch:
            reached = planted(owner, name, number, patch)
            try:
                act(model)
            except PlantedError:
                pass
            else:
                assert not reached(), "a failure was swallowed"
                return count
        after = state(model)
        assert all(same(before[key], after[key]) for key in before), [
            key for key in before if not same(before[key], after[key])
        ]
        assert torch.equal(output(model), computed)
    raise AssertionError


@pytest.mark.parametrize(
    ("owner", "name"), STEPS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_a_failure_at_any_step_of_adapting_leaves_the_model_as_it_was(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = each_failure(owner, name, prepared, lambda model: unipet.adapt(model, METHOD), monkeypatch)
    assert failed or owner in (checkpoint, peft_door) or name in ("bake", "put", "keeping", "replaces", "copy_")


@pytest.mark.parametrize(
    ("owner", "name"), STEPS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_a_failure_at_any_step_of_loading_leaves_the_model_as_it_was(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = prepared()
    unipet.adapt(model, METHOD)
    randomise(model)
    unipet.save(model, tmp_path)
    failed = each_failure(owner, name, prepared, lambda model: unipet.load(model, tmp_path), monkeypatch)
    assert failed or owner in (api, peft_door) or name in ("bake", "put", "keeping", "replaces")


@pytest.mark.parametrize(
    ("owner", "name"), STEPS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_a_failure_at_any_step_of_importing_leaves_the_model_as_it_was(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = prepared()
    unipet.adapt(model, PLAIN)
    randomise(model)
    unipet.export_peft(model, tmp_path)
    each_failure(owner, name, prepared, lambda model: unipet.import_peft(model, tmp_path), monkeypatch)


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize(
    ("owner", "name"),
    [*STEPS, (Attachment, "take_out"), (Adaptation, "detach")],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_failure_at_any_step_of_merging_leaves_the_model_as_it_was(
    owner: Any, name: str, partial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> nn.Module:
        model = prepared()
        unipet.adapt(model, METHOD if partial else PLAIN)
        randomise(model)
        for number, parameter in enumerate(unipet.parameters(model, head=True).values()):
            parameter.grad = torch.full_like(parameter, float(number))
        return model

    each_failure(owner, name, fresh, lambda model: unipet.merge(model, partial=partial), monkeypatch)


def test_what_comes_after_a_failed_merge_is_what_would_have_been(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attempt merges to the same, and ejecting restores what was there before adapting."""
    model = prepared()
    original = state(model)
    unipet.adapt(model, METHOD)
    randomise(model)
    with monkeypatch.context() as patch:
        planted(Adaptation, "replaces", 1, patch)
        with pytest.raises(PlantedError):
            unipet.merge(model, partial=True)
    unipet.eject(model)
    after = state(model)
    assert same(original["values"], after["values"]) and same(original["flags"], after["flags"])


def test_an_entry_that_is_no_path_leaves_the_model_as_it_was() -> None:
    from unipet.calculus.sites import ARCHITECTURES, architecture_of, table_data

    model = prepared()
    table = table_data(architecture_of(model, ARCHITECTURES))
    for stack in table["stacks"].values():
        stack["entry"] = "."
    before = state(model)
    with pytest.raises(unipet.UnipetError, match="is no module path"):
        unipet.adapt(model, PLAIN, sites=table)
    after = state(model)
    assert all(same(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "change",
    [
        {"frozen": None},
        {"frozen": []},
        {"frozen": 5},
        {"method": None},
        {"base_model": None},
        {"sites": 3},
        {"format": 2.5},
    ],
    ids=str,
)
def test_a_damaged_description_leaves_the_model_as_it_was(change: dict[str, Any], tmp_path: Path) -> None:
    model = prepared()
    unipet.adapt(model, METHOD)
    unipet.save(model, tmp_path)
    path = tmp_path / "adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    model = prepared()
    before = state(model)
    try:
        unipet.load(model, tmp_path)
    except Exception:
        after = state(model)
        assert all(same(before[key], after[key]) for key in before)
    else:
        assert change in ({"frozen": None}, {"method": None}), "nothing is frozen, and the method is in method.yaml"


def test_a_head_of_another_size_in_a_directory_of_pefts(tmp_path: Path) -> None:
    model = prepared()
    unipet.adapt(model, PLAIN)
    unipet.export_peft(model, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors["base_model.model.classifier.weight"] = torch.zeros(3, 32)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    model = prepared()
    before = state(model)
    with pytest.raises(unipet.UnipetError, match=r"classifier\.weight is \(3, 32\) there, \(2, 32\) in this model"):
        unipet.import_peft(model, tmp_path)
    after = state(model)
    assert all(same(before[key], after[key]) for key in before)
