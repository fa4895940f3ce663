"""Going on with an interrupted training: resume points are written between two steps, and training is taken up from one.

A point is written when the next step begins, so all that the step before has caused (lines of metrics, a scored checkpoint)
is in it, and the random streams stand where that next step finds them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipet.output import stopwatch
from unipet.training.loop import Callback, Loop
from unipet.training.random_streams import RandomStreams
from unipet.training.resume_point import Part, ResumePoint, ResumePoints, State
from unipet.training.stopping import asked_to_end, end_if_asked

STREAMS = "random_streams"  # taken up last, when nothing else draws any more
OPTIMISER = "optimiser"


@dataclass(frozen=True)
class Interval:
    """`checkpoint.every`: a number of steps, or of seconds."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Interval:
        """From "100 steps" or "2 minutes", which `CheckpointConfig` has checked."""
        number, unit = re.match(r"([\d.]+) ?(\w+)", text).groups()  # type: ignore[union-attr]
        return cls(steps=int(number)) if unit.startswith("step") else cls(seconds=60 * float(number))

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether a point is due before the step after `step`, `seconds` after the last one."""
        return step % self.steps == 0 if self.steps is not None else seconds >= (self.seconds or 0.0)


class RungReached(Exception):
    """Training ends here for now: the point of `trial.until` is written."""


class Resumption(Callback):
    """Writes resume points between steps and takes training up from one; ends training where a signal asked for it.

    It must be the first of a run's callbacks: those after it begin the step that a point comes before.
    """

    def __init__(
        self, points: ResumePoints | None, every: str | None, parts: Mapping[str, Part], rung: int | None = None
    ) -> None:
        """`rung` is a step after which training ends with a resume point, from which a later run goes on."""
        self._points, self._parts, self._streams = points, parts, RandomStreams()
        self._every = Interval.parse(every) if every else None
        self._written_at, self._written = 0.0, 0  # when, and after which step, the last point was written
        self._from: ResumePoint | None = None
        self._rung = rung

    def take_up(self, point: ResumePoint | None) -> None:
        """Begin after `point` (None: at the beginning)."""
        self._from = point

    def on_train_begin(self, args: Any, state: Any, control: Any) -> None:
        self._written_at = time.monotonic()
        if self._from is not None:
            state.global_step = self._written = self._from.step
            self.put_back(self._from)

    def on_step_begin(self, args: Any, state: Any, control: Any) -> None:
        if self._from is not None:
            self._streams.resume(self._from.parts[STREAMS])
            self._from = None
        if asked_to_end() or self._is_due(state.global_step):
            self.write(state.global_step)
        end_if_asked(f" after step {state.global_step} of {state.max_steps}")
        if state.global_step == self._rung:
            self._write(state.global_step)
            raise RungReached

    def _is_due(self, step: int) -> bool:
        due = self._every is not None and self._every.is_over(step, time.monotonic() - self._written_at)
        return due and step > self._written

    def put_back(self, point: ResumePoint) -> None:
        """Every part goes on from its state in `point`; random streams go on with the first step."""
        for name, part in self._parts.items():
            if name in point.parts:
                part.resume(point.parts[name])

    def write(self, step: int, outcome: dict[str, Any] | None = None) -> None:
        """Write the point after `step`; with `outcome` training is over, and what only a further step needs is left out."""
        if self._every is not None:
            self._write(step, outcome)

    def _write(self, step: int, outcome: dict[str, Any] | None = None) -> None:
        if self._points is None:
            return
        parts = {name: part.state() for name, part in self._parts.items() if outcome is None or name != OPTIMISER}
        self._points.write(ResumePoint(step, parts | {STREAMS: self._streams.state()}, outcome))
        self._written_at, self._written = time.monotonic(), step

    def finish(self, point: ResumePoint) -> dict[str, Any]:
        """Take up a training that is over: what it came to."""
        self.put_back(point)
        self._streams.resume(point.parts[STREAMS])
        return dict(point.outcome or {})


class Weights:
    """The tensors of a model that train."""

    def __init__(self, model: nn.Module) -> None:
        self._tensors = {name: each for name, each in model.named_parameters() if each.requires_grad}

    def state(self) -> State:
        """The tensors themselves: they are written before they change."""
        return State(tensors={name: each.detach() for name, each in self._tensors.items()})

    def resume(self, state: State) -> None:
        """Give every tensor its values in `state`, in place."""
        with torch.no_grad():
            for name, each in self._tensors.items():
                each.copy_(state.tensors[name])


class Optimiser:
    """What the optimiser remembers of every tensor, and how far the schedule of its learning rates is."""

    def __init__(self, trainer: Loop) -> None:
        self._trainer = trainer  # which makes both when its training begins

    def _named(self) -> dict[str, nn.Parameter]:
        names = {id(each): name for name, each in self._trainer.model.named_parameters()}
        groups = self._trainer.optimizer.param_groups
        return {names[id(each)]: each for group in groups for each in group["params"]}

    def state(self) -> State:
        """Tensors by the name of the parameter and of the memory; the schedule's own values."""
        memories = self._trainer.optimizer.state
        tensors = {
            f"{name} {key}": value
            for name, each in self._named().items()
            for key, value in memories.get(each, {}).items()
        }
        rates = [group["lr"] for group in self._trainer.optimizer.param_groups]
        return State({"rates": rates, "schedule": self._trainer.lr_scheduler.state_dict()}, tensors)

    def resume(self, state: State) -> None:
        """The optimiser remembers what it did, and the schedule goes on."""
        optimiser, memories = self._trainer.optimizer, dict[int, dict[str, Tensor]]()
        numbers = {name: number for number, name in enumerate(self._named())}
        for key, tensor in state.tensors.items():
            name, _, memory = key.rpartition(" ")
            memories.setdefault(numbers[name], {})[memory] = tensor
        groups = optimiser.state_dict()["param_groups"]
        for group, rate in zip(groups, state.values["rates"], strict=True):
            group["lr"] = rate
        optimiser.load_state_dict({"state": memories, "param_groups": groups})
        self._trainer.lr_scheduler.load_state_dict(state.values["schedule"])


class Spent:
    """Where the time of the run went, in all its processes."""

    def state(self) -> State:
        """Seconds per phase so far."""
        return State({"phases": stopwatch.spent()})

    def resume(self, state: State) -> None:
        """Count the seconds of the processes before, too."""
        stopwatch.carry(state.values["phases"])
