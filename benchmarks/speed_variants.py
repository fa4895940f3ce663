"""The floor, ours and a peer as things that can be stepped: each its own model, so that they take turns.

What none of them changes, they share: with copies, where each lies in memory (huge pages, sets of the cache) moved the time of
a generated token by up to 5 %, which says nothing about a method.

The floor is a training step of the frozen base model in which only the head trains and the gradient flows to the
embeddings. A method that acts in the first layer can do no less.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import unipet
from benchmarks.speed_models import TASKS, Workload
from benchmarks.speed_pairs import Pair
from unipet.adaptation.adapted import adaptation
from unipet.calculus.objectives import Answers, Consistency

#: The modules of a classifier that train beside every method, on both sides.
HEADS = ("classifier",)


class Unequal(Exception):
    """The two sides of a pair do not train the same number of parameters."""


@dataclass
class Variant:
    """One model that can train, predict and generate. `views`: how often a batch goes through it in a step."""

    model: Any
    workload: Workload
    device: str
    autocast: bool = False
    views: int = 1
    consistency: Any = None

    def __post_init__(self) -> None:
        self.inputs = self.workload.inputs(self.model, self.device)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=1e-5, fused=True) if self.trained else None

    def step(self) -> None:
        """One training step, the optimiser's included."""
        if self.optimiser is not None:
            self.optimiser.zero_grad(set_to_none=True)
        self.gradients()
        if self.optimiser is not None:
            self.optimiser.step()

    def gradients(self) -> None:
        """Forward and backward pass in training mode."""
        self.model.train()
        self._loss().backward()

    def _loss(self) -> Tensor:
        if self.views == 1:
            return self.workload.loss(self._logits(self.inputs), self.inputs)
        stacked = {name: torch.cat([value] * self.views) for name, value in self.inputs.items()}
        with adaptation(self.model).views(self.views):
            first, second = self._logits(stacked).chunk(self.views)
        seen = Answers([first.float(), second.float()])
        return self.workload.loss(first, self.inputs) + self.consistency.weight * self.consistency.term(seen)

    def _logits(self, inputs: dict[str, Tensor]) -> Tensor:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16) if self.autocast else nullcontext():
            logits: Tensor = self.model(**inputs).logits
        return logits

    @torch.no_grad()
    def evaluate(self) -> None:
        """One forward pass."""
        self.model.eval()
        self._logits(self.inputs)

    @torch.no_grad()
    def generate(self) -> None:
        """New tokens after half of the input, with the cache."""
        self.model.eval()
        half = {name: value[:, : self.workload.length // 2] for name, value in self.inputs.items()}
        count = self.workload.new_tokens
        with torch.autocast(torch.device(self.device).type, torch.bfloat16) if self.autocast else nullcontext():
            self.model.generate(**half, max_new_tokens=count, min_new_tokens=count, do_sample=False)

    def own_parameters(self) -> int:
        """Trained parameters without the head's."""
        named = self.model.named_parameters()
        return sum(p.numel() for name, p in named if p.requires_grad and not _of_head(name))

    def resident(self) -> Iterator[Tensor]:
        """What is in memory between two steps."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        if self.optimiser is not None:
            yield from (v for s in self.optimiser.state.values() for v in s.values() if isinstance(v, Tensor))


def _of_head(name: str) -> bool:
    return any(head in name.split(".") for head in HEADS)


def _frozen(base: nn.Module) -> nn.Module:
    model = copy.deepcopy(base)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_of_head(name))
    return model


def floor(base: nn.Module, workload: Workload, device: str, autocast: bool) -> Variant:
    """The frozen base model, with gradients down to its embeddings."""
    model = _frozen(base)
    share(model, base)
    for path in workload.embedded:
        model.get_submodule(path).register_forward_hook(_wants_gradient)
    return Variant(model, workload, device, autocast)


def _wants_gradient(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.detach().requires_grad_() if torch.is_grad_enabled() else output


def ours(base: nn.Module, pair: Pair, workload: Workload, device: str, autocast: bool) -> Variant:
    """The method, inserted by unipet."""
    model = copy.deepcopy(base)
    unipet.adapt(model, pair.spec())
    objective = adaptation(model).method.objective
    _float32(model, autocast)
    share(model, base)
    return Variant(
        model, workload, device, autocast, objective.views, next(iter(objective.of(Consistency).values()), None)
    )


def peer(base: nn.Module, pair: Pair, like: Variant) -> Variant | None:
    """What is measured beside ours, with equal sites and sizes; None where there is none.

    Raises `Unequal` if it trains another number of parameters than `like`, which is ours.
    """
    workload = like.workload
    if pair.peft is not None:
        import peft

        sites = [item.site for item in adaptation(like.model).items]
        paths = list(dict.fromkeys(site.path for site in sites))
        inputs = [site.path for site in sites if site.at == "input"]
        model: Any = peft.get_peft_model(copy.deepcopy(base), pair.peft(paths, inputs, TASKS[workload.structure]))
    elif pair.torch is not None:
        model = copy.deepcopy(base)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_of_head(name) or any(part in name for part in pair.torch))
    else:
        return None
    _float32(model, like.autocast)
    share(model, base)
    other = Variant(model, workload, like.device, like.autocast)
    if other.own_parameters() != like.own_parameters():
        raise Unequal(f"{pair.name}: {like.own_parameters()} parameters beside {other.own_parameters()} of {pair.peer}")
    return other


def _float32(model: nn.Module, autocast: bool) -> None:
    """Under autocast, weights are bfloat16, and what trains is float32 on both sides."""
    if autocast:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def share(model: nn.Module, base: nn.Module) -> None:
    """Let `model`, made from a copy of `base`, compute with the very tensors of `base` where its own frozen ones equal them."""
    left: defaultdict[tuple[torch.Size, torch.dtype], list[nn.Parameter]] = defaultdict(list)
    for parameter in base.parameters():
        left[parameter.shape, parameter.dtype].append(parameter)
    for parameter in model.parameters():
        alike = left[parameter.shape, parameter.dtype]
        same = (index for index, each in enumerate(alike) if torch.equal(each, parameter))
        if not parameter.requires_grad and (found := next(same, None)) is not None:
            parameter.data = alike.pop(found).data


def merged(variant: Variant, base: nn.Module) -> Variant | None:
    """The variant with its method folded into the weights; None if the method cannot be."""
    model = variant.model
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # it is folded in place, and others share the weights
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    else:
        try:
            unipet.merge(model)
        except unipet.UnipetError:
            return None
    share(model, base)
    return Variant(model, variant.workload, variant.device, variant.autocast)
