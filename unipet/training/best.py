"""Checkpoints scored on the selection split: the best one is kept, and training may end where none is better any more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unipet.adaptation.api import parameters
from unipet.config import RunConfig
from unipet.output.stopwatch import phase
from unipet.tasks import Encoded, TaskData, selection_metric
from unipet.training.callbacks import Journal
from unipet.training.evaluation import higher_is_better, selection_score
from unipet.training.history import SELECTION
from unipet.training.loop import Callback
from unipet.training.ranks import Ranks
from unipet.training.resume_point import State
from unipet.training.sharding import Sharding

PATIENCE = "task.patience"  # what ended training, in a record


def scored_after(step: int, steps: int, warmup: int, checkpoints: int) -> bool:
    """Whether the checkpoint after step `step` of `steps` is scored on the selection split."""
    return step == steps or (step > warmup and step % math.ceil(steps / checkpoints) == 0)


class Best(Callback):
    """Keeps the trainable tensors of the checkpoint that scores highest on the selection split.

    At most `checkpoints` are scored, the last step among them, but none during warm-up, when the model has learned
    almost nothing. If two checkpoints score the same, the later one is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        score: Callable[[], float],
        metric: str = "score",
        sign: float = 1.0,
        checkpoints: int = 5,
    ) -> None:
        """`score` returns `sign` times the value of `metric`, so that a higher score is always better."""
        self._tensors, self._score, self._metric, self._sign = parameters(model, head=True), score, metric, sign
        self._checkpoints = checkpoints
        self.journal: Journal | None = None  # where every score is written, as `selection/METRIC`
        self._kept: dict[str, torch.Tensor] = {}
        self.scores: dict[int, float] = {}  # step -> score
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any) -> None:
        due = scored_after(state.global_step, state.max_steps, args.warmup_steps, self._checkpoints)
        if control.should_training_stop or due:
            self.check(state.global_step)

    def check(self, step: int) -> None:
        """Score the checkpoint after `step`, unless that was done before, and keep it if it is the best."""
        if step in self.scores:
            return
        started = time.perf_counter()
        with phase("selection"):
            score = self._score()
        if not self.scores or score >= max(self.scores.values()):
            self._kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors.items()}
        self.scores[step] = score
        if self.journal is not None:
            self.journal.write({f"{SELECTION}{self._metric}": self._sign * score}, step)
        self.seconds += time.perf_counter() - started

    def since_best(self) -> int:
        """How many checkpoints were scored after the first one with the highest score."""
        scores = list(self.scores.values())
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def state(self) -> State:
        """The best checkpoint's tensors, every score, and the time they took."""
        scores = {str(step): score for step, score in self.scores.items()}  # JSON has no other keys
        return State({"scores": scores, "seconds": self.seconds}, self._kept)

    def resume(self, state: State) -> None:
        """Compare the checkpoints to come with those."""
        self.scores = {int(step): score for step, score in state.values["scores"].items()}
        self.seconds, self._kept = state.values["seconds"], state.tensors

    def restore(self) -> int:
        """Copy the best checkpoint's tensors back into the model. Returns its step."""
        with torch.no_grad():
            for name, tensor in self._kept.items():
                self._tensors[name].copy_(tensor)
        return max(self.scores, key=lambda step: (self.scores[step], step))


def best_of(config: RunConfig, model: nn.Module, data: TaskData, encoded: Encoded, tokenizer: Any) -> Best | None:
    """What keeps the best checkpoint of a run; None without a selection split."""
    if not encoded.selection:
        return None
    metric = selection_metric(config.task)
    score = selection_score(config, model, data, encoded, tokenizer)
    return Best(model, score, metric, 1.0 if higher_is_better(metric) else -1.0, config.task.selection_checkpoints)


class Patience(Callback):
    """Ends training once `most` checkpoints in a row scored no higher than the best one before them (None: never).

    It comes after `best`, which the first process alone has: its scores decide, so that all end after the same step. The
    last step ends training by itself.
    """

    def __init__(self, most: int | None, checkpoints: int, best: Best | None, ranks: Ranks, sharding: Sharding) -> None:
        self._most, self._checkpoints, self._best = most, checkpoints, best
        self._ranks, self._sharding = ranks, sharding
        self.exhausted = False

    def on_step_end(self, args: Any, state: Any, control: Any) -> None:
        due = scored_after(state.global_step, state.max_steps, args.warmup_steps, self._checkpoints)
        if self._most is None or control.should_training_stop or not due:
            return
        self._sharding.together()  # the others have followed the passes of the scoring
        over = self._best is not None and self._best.since_best() >= self._most
        self.exhausted = control.should_training_stop = self._ranks.leader_says(over)
        self._sharding.lead()
