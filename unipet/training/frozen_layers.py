"""The first layers of a base model that no trainable tensor reaches: their outputs are the same in every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.stack_hooks import stacks_of
from unipet.adaptation.unwrapping import bare
from unipet.calculus.sites import ARCHITECTURES, architecture_of, base_of
from unipet.errors import UnipetError
from unipet.training.precision import autocast


@dataclass(frozen=True)
class FrozenStack:
    """A stack with frozen first layers."""

    name: str
    entry: nn.Module  # whose forward takes the stack's token ids and mask
    layers: list[nn.Module]  # the frozen first layers; at least one
    depth: int  # of the whole stack
    returned: int | None  # how many values a layer returns as a tuple, the hidden states first; None: no tuple
    token_bytes: int  # of the hidden states of one token


class NotFrozen(UnipetError):
    """There is no layer whose outputs can be kept; the message says why."""


def frozen_stacks(model: nn.Module, inputs: Mapping[str, Tensor], precision: str) -> list[FrozenStack]:
    """The stacks of an adapted model whose first layers are frozen, found in one forward pass over `inputs`.

    A layer's output requires a gradient if and only if a trainable tensor reaches it. Raises `NotFrozen` where there is no
    such stack, and where the first layers are random in training (dropout). Random streams are left as they were.
    """
    if any(value for key, value in model.config.to_dict().items() if "layerdrop" in key):  # type: ignore[operator, union-attr]
        raise NotFrozen(f"training leaves out layers at random ({_dropout(model)})")
    seen = _watched(model, inputs, precision, training=True)
    counts = {name: _count(calls) for name, calls in seen.items()}
    mingled = [name for name, calls in seen.items() if counts[name] < len(calls) and _mingled(calls[: counts[name]])]
    found = [_frozen(model, name, calls[: counts[name]]) for name, calls in seen.items() if counts[name]]
    found = [stack for stack in found if stack.name not in mingled]
    if not found:
        reason = "trainable tensors act in the first layer, so no layer's output stays the same"
        raise NotFrozen(
            f"the layers of the {mingled[0]} hand each other more than hidden states" if mingled else reason
        )
    calm = _watched(model, inputs, precision, training=False)
    for stack in found:
        last = len(stack.layers) - 1
        if not torch.equal(_states(seen[stack.name][last]), _states(calm[stack.name][last])):
            raise NotFrozen(f"the base model's outputs are random in training ({_dropout(model)}). Set model.dropout=0")
    return found


def stack_modules(model: nn.Module) -> dict[str, tuple[nn.Module, list[nn.Module]]]:
    """Stack -> (its entry, its layers). Raises `NotFrozen` for a model without a site table."""
    try:
        table = adaptation(model).table or architecture_of(bare(model), ARCHITECTURES)
    except UnipetError as error:
        raise NotFrozen("this architecture has no site table, so its layers are not known") from error
    base, stacks = base_of(bare(model)), stacks_of(bare(model), table)
    named = {name: table.stacks[name] for name in table.stacks if name in stacks}
    return {
        name: (base.get_submodule(it.entry), [*base.get_submodule(it.layers).children()]) for name, it in named.items()
    }


def _watched(model: nn.Module, inputs: Mapping[str, Tensor], precision: str, training: bool) -> dict[str, list[Any]]:
    """Stack -> what each of its layers returns for `inputs`."""
    seen: dict[str, list[Any]] = {}
    device = next(model.parameters()).device
    with ExitStack() as undoing:
        for name, (_, layers) in stack_modules(model).items():
            calls = seen.setdefault(name, [])
            for layer in layers:
                handle = layer.register_forward_hook(lambda layer, args, output, calls=calls: calls.append(output))
                undoing.callback(handle.remove)
        undoing.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        undoing.callback(model.train, model.training)
        model.train(training)
        with torch.set_grad_enabled(training), autocast(device, precision):
            model(**inputs)
    return seen


def _count(calls: list[Any]) -> int:
    """How many of the first layers are frozen, of all that returned `calls`."""
    return next((at for at, output in enumerate(calls) if _states(output).requires_grad), len(calls))


def _mingled(calls: list[Any]) -> bool:
    """Whether these layers hand on more than hidden states, such as the position bias of T5's first layer."""
    return any(isinstance(other, Tensor) for output in calls if isinstance(output, tuple) for other in output[1:])


def _frozen(model: nn.Module, name: str, calls: list[Any]) -> FrozenStack:
    entry, layers = stack_modules(model)[name]
    states, last = _states(calls[-1]), calls[-1]
    returned = len(last) if isinstance(last, tuple) else None
    return FrozenStack(
        name, entry, layers[: len(calls)], len(layers), returned, states.shape[-1] * states.element_size()
    )


def _states(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def _dropout(model: Any) -> str:
    """The probabilities of the base model's configuration that make it random, in words."""
    values = {key: value for key, value in model.config.to_dict().items() if "drop" in key}
    said = [f"{key}={value}" for key, value in values.items() if isinstance(value, float) and value > 0]
    return ", ".join(said) or "its code draws random numbers"
