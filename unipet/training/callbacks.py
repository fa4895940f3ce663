"""Callbacks of training: draw routes, check gradients, limit time, show progress, write metrics."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch
from torch import nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.api import parameters
from unipet.errors import UnipetError
from unipet.output.progress import Progress
from unipet.training.history import TERM, WEIGHT, tracked
from unipet.training.loop import Callback
from unipet.training.ranks import ALONE, Ranks
from unipet.training.resume_point import State

Log = Callable[[dict[str, Any], int], None]


class Routes(Callback):
    """Draws every mixture's routes once per optimiser step, so that micro-batching does not change them."""

    def __init__(self, model: nn.Module, seed: int, rank: int = 0) -> None:
        self._adaptation, self._seed = adaptation(model), seed
        self._adaptation.routing.rank = rank

    def on_step_begin(self, args: Any, state: Any, control: Any) -> None:
        self._adaptation.draw(state.global_step, self._seed)

    def state(self) -> State:
        """Where the draws of the routes stand: every step begins them anew, and evaluation may draw, too."""
        number, (seed, evaluations) = self._adaptation.routing.state()
        return State({"number": number, "seed": seed, "evaluations": evaluations})

    def resume(self, state: State) -> None:
        """Draw on from there."""
        self._adaptation.draw(0, self._seed)  # a training loop is in charge
        self._adaptation.routing.resume(state.values["number"], (state.values["seed"], state.values["evaluations"]))


class GradientProbe(Callback):
    """Records which trainable tensors ever receive a gradient. A tensor that never does is either attached wrongly, or
    belongs to an expert that no step was routed to."""

    def __init__(self, model: nn.Module) -> None:
        self._waiting = dict(parameters(model, head=True))
        self._owned = {id(each) for each in parameters(model).values()}
        self._learning = False  # some tensor of the method has received a gradient

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any) -> None:
        for name, each in list(self._waiting.items()):
            if each.grad is not None and bool(each.grad.any()):
                del self._waiting[name]
                self._learning |= id(each) in self._owned

    def state(self) -> State:
        """Which tensors still wait for a gradient."""
        return State({"waiting": sorted(self._waiting), "learning": self._learning})

    def resume(self, state: State) -> None:
        """Go on waiting for those alone."""
        self._waiting = {name: self._waiting[name] for name in state.values["waiting"]}
        self._learning = state.values["learning"]

    def untouched(self) -> list[str]:
        """Names of the trainable tensors that never had a gradient other than zero."""
        return sorted(self._waiting)

    def check(self) -> None:
        """Raises `UnipetError` when the method owns tensors and none of them ever had a gradient other than zero."""
        if self._owned and not self._learning:
            raise UnipetError(
                f"training: none of the method's {len(self._owned)} tensors ever received a gradient, so nothing was "
                "learned in them. Check the positions, initial values and scalings of the method's insertions."
            )


class Clock(Callback):
    """Measures the time of the steps, without the setup, which in a short run takes longer than the steps."""

    seconds = 0.0  # of the processes before; at the end of all
    _started: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """The last step is over."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds, self._started = self.so_far(), None

    def so_far(self) -> float:
        """Seconds of the steps until now, those of earlier processes included."""
        return self.seconds + (0.0 if self._started is None else time.perf_counter() - self._started)

    def state(self) -> State:
        """The seconds until now."""
        return State({"seconds": self.so_far()})

    def resume(self, state: State) -> None:
        """Count on from there."""
        self.seconds = state.values["seconds"]


class TimeLimit(Callback):
    """Ends training after the step during which the limit of `seconds` is reached. None means no limit.

    `passed` returns the seconds that count: those spent on other work, such as scoring the selection split, do not. Of
    several processes the clock of the first decides, so that all end after the same step.
    """

    def __init__(self, seconds: float | None, passed: Callable[[], float], ranks: Ranks = ALONE) -> None:
        self._seconds, self._passed, self._ranks = seconds, passed, ranks
        self.reached = False

    def on_step_end(self, args: Any, state: Any, control: Any) -> None:
        if self._seconds is not None and self._ranks.leader_says(self._passed() >= self._seconds):
            self.reached = control.should_training_stop = True


class ShownProgress(Callback):
    """Steps, loss and the time left on standard error."""

    _progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any) -> None:
        self._progress = Progress("training", state.max_steps, "step", done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any) -> None:
        if self._progress is not None and not control.should_log:  # a step that is logged is counted with its loss
            self._progress.advance()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float]) -> None:
        if self._progress is not None:
            self._progress.note(loss=logs["loss"])
            self._progress.advance()

    def close(self) -> None:
        """End the progress display, also after an error."""
        if self._progress is not None:
            self._progress.close()


class Journal(Callback):
    """Writes one line of metrics per log interval and per scored checkpoint."""

    def __init__(self, file: TextIO, log: Log) -> None:
        self._file, self._log = file, log
        self._text = ""  # all lines

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float]) -> None:
        named = {"loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm", "epoch": "epoch"}
        named |= {name: name for name in logs if name.startswith((TERM, WEIGHT))}
        # JSON has no infinity, which a gradient norm can reach although the loss is finite
        values = {name: logs[key] if math.isfinite(logs[key]) else None for name, key in named.items()}
        self.write(values, state.global_step)

    def write(self, values: dict[str, Any], step: int) -> None:
        """Write one line to the file, and send its values to the tracker."""
        line = json.dumps({"step": step, **values}, allow_nan=False) + "\n"
        self._text += line
        self._file.write(line)
        self._file.flush()
        self._log(tracked(values), step)

    def state(self) -> State:
        """The lines so far."""
        return State({"text": self._text})

    def resume(self, state: State) -> None:
        """Write those lines once more: what came after them is written again, too. The tracker knows which it has."""
        for line in state.values["text"].splitlines():
            values = json.loads(line)
            self.write(values, values.pop("step"))
