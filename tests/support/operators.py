"""How many operators a training step of each method runs on a tiny BERT; `python -m tests.support.operators --write` pins them.

What is counted are the calls that reach a kernel: those that PyTorch dispatches below autograd, views left out. Neither the
machine nor the number of threads changes them, nor does the size of the model. The optimiser's step is not counted: it
depends on how many tensors train and on nothing that a method does.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import unipet
from tests.support.architectures import ARCHS
from unipet.calculus.method import Method
from unipet.calculus.method_files import method_names
from unipet.training.step import Loss

PINNED = Path(__file__).resolve().parent.parent / "training" / "operators.json"


class Operators(TorchDispatchMode):
    """Counts the operators that run while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def step_operators(method: Method | None) -> Counter[str]:
    """The operators of one forward and backward pass of a tiny BERT in training mode, all counted; None: the frozen base model
    with its head training and the gradient flowing to the embeddings."""
    arch = ARCHS["bert"]
    model = arch.build()
    batch = arch.batch()
    batch["labels"] = arch.labels(batch)
    if method is None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("classifier"))
        model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
        method = unipet.load_method("head_only")
    else:
        unipet.adapt(model, method)
    loss = Loss(method.objective)
    model.train()
    _one_step(loss, model, batch)  # the first step may make what later ones keep
    return _one_step(loss, model, batch)


def _one_step(loss: Loss, model: Any, batch: dict[str, torch.Tensor]) -> Counter[str]:
    torch.manual_seed(0)
    model.zero_grad(set_to_none=True)
    with Operators() as operators:
        loss(model, batch).backward()
    return operators.counts


def trainable_methods() -> list[str]:
    """The shipped methods that a BERT of one sequence can carry."""
    return sorted(name for name in method_names() if name not in NOT_HERE)


def measured() -> dict[str, dict[str, int]]:
    """What the file pins: by method the number of operators, and of those that multiply matrices."""
    return {name: pinned_of(step_operators(None if name == FLOOR else load(name))) for name in [FLOOR, *trainable_methods()]}
