"""An objective as data: the regularisers of a method by name, read from a mapping, and written back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.objectives.agreement import Consistency, RDrop
from unipet.calculus.objectives.balance import Balance
from unipet.calculus.objectives.distillation import Distillation
from unipet.calculus.objectives.of_weights import L2ToInit, Orthogonality
from unipet.calculus.objectives.regulariser import Regulariser
from unipet.calculus.options import joined, no_option, parse_options, parse_value, remove_hint
from unipet.calculus.yaml_reader import text_of, value_of, values
from unipet.errors import nearest, not_allowed, unknown

R = TypeVar("R", bound=Regulariser)

REGULARISERS: dict[str, type[Regulariser]] = {
    "consistency": Consistency,
    "r_drop": RDrop,
    "distillation": Distillation,
    "orthogonality": Orthogonality,
    "l2_to_init": L2ToInit,
    "balance": Balance,
}
TASK = "task"  # the name of the task's own loss among the terms


@dataclass(frozen=True)
class Objective:
    """The task's loss and these regularisers, each under a name of its own; none unless a method says so."""

    regularisers: tuple[tuple[str, Regulariser], ...] = ()

    @property
    def views(self) -> int:
        """How many stochastic passes over a batch one training step needs. They are one pass over a batch as often stacked."""
        return max((each.passes for _, each in self.regularisers), default=1)

    @property
    def task_views(self) -> int:
        """How many of the views the task's loss is the mean of."""
        return max((each.task_passes for _, each in self.regularisers), default=1)

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms that are told apart: the task's and the regularisers'; () if the loss is the task's alone."""
        return (TASK, *(name for name, _ in self.regularisers)) if self.regularisers else ()

    @property
    def scheduled(self) -> list[str]:
        """The regularisers whose weight changes in training."""
        return [name for name, each in self.regularisers if each.schedule != "constant"]

    def of(self, kind: type[R]) -> dict[str, R]:
        """The regularisers of one class, by name."""
        return {name: each for name, each in self.regularisers if isinstance(each, kind)}

    def full_weights(self) -> dict[str, float]:
        """Each regulariser's weight, whatever its schedule."""
        return {name: each.weight for name, each in self.regularisers}

    def weights_at(self, step: int, steps: int) -> dict[str, float]:
        """Each regulariser's weight in step `step` of `steps`, counted from 0."""
        return {name: each.weight_at(step, steps) for name, each in self.regularisers}

    def to_dict(self) -> dict[str, Any]:
        """The objective spelled out in full: what `parse_objective` reads back to an equal one."""
        names = {cls: name for name, cls in REGULARISERS.items()}
        return {name: {"name": names[type(each)], **dataclasses.asdict(each)} for name, each in self.regularisers}


def parse_objective(data: Any, key: str) -> Objective:
    """A checked objective from a mapping: name -> options, with `name` where the regulariser is called otherwise.

    A number is short for {weight: NUMBER}, and null takes a regulariser out. Raises UnipetError with the full key of the
    first mistake.
    """
    given = value_of(data)
    if given is None:
        return Objective()
    if not isinstance(given, Mapping):
        raise not_allowed(key, values(given), f"a mapping from a name to a regulariser ({', '.join(REGULARISERS)})")
    found = [(str(name), _regulariser(str(name), value_of(value), joined(key, name))) for name, value in given.items()]
    # sorted, because the order in which YAML names them must not change the last bits of their sum
    return Objective(
        tuple(sorted(((name, each) for name, each in found if each is not None), key=lambda pair: pair[0]))
    )


def _regulariser(name: str, data: Any, key: str) -> Regulariser | None:
    options: Any = data
    if isinstance(data, int | float) and not isinstance(data, bool):
        options = {"weight": parse_value(float, data, key)}
    named = isinstance(options, Mapping) and options.get("name") is not None
    choice = text_of(options["name"]) if named else name
    if not named and choice not in REGULARISERS:
        other = "Under another name, a regulariser says which it is: name=REGULARISER."
        raise no_option(
            key, "the objective", list(REGULARISERS), f"{nearest(name, REGULARISERS)} {other} {remove_hint(key)}"
        )
    if choice not in REGULARISERS:
        raise unknown(joined(key, "name"), choice, REGULARISERS)
    if name == TASK or not re.fullmatch(r"\w+", name):
        raise not_allowed(key, name, f"a name of letters, digits and '_' other than {TASK!r}, the task's own loss")
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise not_allowed(key, values(options), "a mapping of options, a number (the weight), or null")
    return parse_options(REGULARISERS[choice], options, key, f"regulariser '{choice}'", ignore=("name",))


def task_loss(
    logits: Tensor,
    labels: Tensor,
    regression: bool,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> Tensor:
    """Cross-entropy over logits (N, C), or mean squared error over logits (N, 1); where `labels` are (N, C), 1 for each label
    that an example has and 0 for the others, the binary cross-entropy, a mean over examples and labels.

    With `class_weights` (C,), the cross-entropy is a mean weighted by the weights of the answers, as that of torch; the binary
    one weighs every 1 (`pos_weight`). Smoothing moves the target by so much towards the uniform one: over the classes, or over
    1 and 0.
    """
    logits = logits.float()
    weights = logits.new_tensor(class_weights) if class_weights else None
    if regression:
        return F.mse_loss(logits.squeeze(-1), labels.float())
    if labels.dim() == 2:
        target = labels * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)
    return F.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing)
