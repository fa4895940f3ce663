"""A pack: runs that train in one process over one frozen base model. Each is the run that it would be alone; they meet at
every forward pass, which one pass over the rows of all replaces.

Every run has a thread, and one thread runs at a time. A run pauses where it wants the gradients of a step. When all that are
at the earliest step have paused there, their rows go through the base model together, each run's loss is taken from its own
rows, and one backward pass gives every run's tensors their gradients.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unipet.adaptation.together import Part, Together
from unipet.training.company import StandsAside
from unipet.training.forward import model_inputs
from unipet.training.precision import autocast
from unipet.training.seat import Seat
from unipet.training.step import sum_of
from unipet.training.stopping import ending_steps_first, heeding_signals
from unipet.training.turns import Streams

if TYPE_CHECKING:
    from unipet.training.budget.memory_fit import MemoryFit

GIB = 2**30
PAYS = 0.97  # a larger pack must need at most this share of the time per run


class Pack:
    """Runs that train together.

    `accepts` says of what a run has prepared why it cannot be among these, or None. `room_gib` is the memory for all (None:
    no limit). `base` makes the common modules once a run has loaded its base model. `seed` begins the random stream of
    the base model's dropout, which all rows share. With `measures`, a few passes before the first step decide how many stay.
    """

    def __init__(
        self,
        accepts: Callable[[Any], str | None],
        base: Callable[[], nn.Module | None],
        room_gib: float | None = None,
        seed: int = 0,
        measures: bool = True,
    ) -> None:
        self.accepts, self._base, self._room_gib = accepts, base, room_gib
        self._streams, self._measures = Streams(seed), measures
        self._together: Together | None = None
        self._taken = 0.0  # bytes, as predicted
        self.best: int | None = None  # how many runs are best in one pass, once measured
        self.seats: list[Seat] = []

    def run(self, works: Sequence[Callable[[Seat], None]]) -> list[Seat]:
        """Do all of this work to its end; what ended each is in its seat's `turn.error`. SIGTERM and SIGINT end every run
        after its current step."""
        self.seats = [Seat(self, number, work) for number, work in enumerate(works)]
        with heeding_signals(), ending_steps_first():
            for seat in self.seats:
                seat.turn.go_on()
            self._choose()
            while waiting := [seat for seat in self.seats if seat.wants is not None and not seat.turn.over]:
                self._step(waiting)
        if self._together is not None:
            self._together.close()
        return self.seats

    def admit(self, fit: MemoryFit) -> None:
        """Raise `StandsAside` unless one more run fits: the base model's weights are there once."""
        if fit.accumulation > 1 or fit.checkpointing:
            raise StandsAside(
                "it splits its batch, or computes activations twice, to stay within its memory", alone=True
            )
        if fit.trace is None:
            raise StandsAside("the memory that it needs cannot be predicted", alone=True)
        more = fit.trace.peak_bytes - (fit.trace.weights_bytes if self._taken else 0)
        if self._taken and self._room_gib is not None and self._taken + more > self._room_gib * GIB:
            needs = (self._taken + more) / GIB
            raise StandsAside(
                f"beside the others it is predicted to need {needs:.3g} of {self._room_gib:.3g} GiB", alone=False
            )
        self._taken += more

    # -- before the first step ---------------------------------------------------------------------------------------

    def _choose(self) -> None:
        """Decide which runs stay: those that can compute together, as many as pay."""
        waiting = [seat for seat in self.seats if seat.wants is not None]
        if not waiting:
            return
        with self._streams.in_use():
            base = self._base()
        if base is not None:
            self._together = Together(base)
        staying: list[Seat] = []
        for seat in waiting:
            if (reason := self._why_not(seat, staying)) is not None:
                self._dismiss(seat, StandsAside(reason, alone=True))
            else:
                staying.append(seat)
        if len(staying) > 1 and self._measures:
            self._measure(staying)

    def _why_not(self, seat: Seat, staying: list[Seat]) -> str | None:
        assert seat.wants is not None
        if self._together is None:
            return "the base model is not kept in memory"
        if (reason := self._together.why_not(seat.wants.model)) is not None:
            return reason
        return self._together.why_apart([*(_model(each) for each in staying), seat.wants.model])

    def _dismiss(self, seat: Seat, why: StandsAside) -> None:
        seat.answer = why
        seat.turn.go_on()

    def _measure(self, staying: list[Seat]) -> None:
        """Time passes for one run, two, four, ... and let so many stay as need the least time per run."""
        if len({_number(seat) for seat in staying}) > 1:
            return  # some went on from a resume point: they meet later
        sizes = [2**power for power in range(len(staying).bit_length()) if 2**power < len(staying)] + [len(staying)]
        per_run: dict[int, float] = {}
        for size in sizes:
            per_run[size] = min(self._timed(staying[:size]) for _ in range(2)) / size
            if self.best is not None and per_run[size] > PAYS * per_run[self.best]:
                break  # more would not pay either
            self.best = size
        assert self.best is not None
        shown = ", ".join(f"{size}: {1000 * seconds:.3g} ms" for size, seconds in per_run.items())
        print(f"pack: time of a step's passes per run by size: {shown}; {self.best} train together", file=sys.stderr)
        if self.best < len(staying):
            words = f"measured: passes for {self.best} take less time per run than for more ({shown})"
            for seat in staying[self.best :]:
                self._dismiss(seat, StandsAside(words, alone=self.best == 1))

    def _timed(self, seats: list[Seat]) -> float:
        """Seconds of a step's passes, whose results are forgotten; without end where they fail, as for a lack of memory."""
        marks = [(self._streams, self._streams.mark()), *((s.turn.streams, s.turn.streams.mark()) for s in seats)]
        _wait_for_device()
        started = time.perf_counter()
        try:
            if len(seats) == 1:
                step = seats[0].wants
                assert step is not None
                with seats[0].turn.streams.in_use():
                    step.loss.gradients(step.model, step.batch, len(step.batch["labels"]), weights=step.weights)
            else:
                self._pass(seats)
            _wait_for_device()
            seconds = time.perf_counter() - started
        except Exception:  # whose fault it is shows when each run takes its step
            seconds = math.inf
        for seat in seats:
            seat.alone()
        for streams, mark in marks:
            streams.back_to(mark)
        return seconds

    # -- steps -------------------------------------------------------------------------------------------------------

    def _step(self, waiting: list[Seat]) -> None:
        """Take the step of those that are furthest behind: where some went on from a resume point, the others catch up."""
        earliest = min(_number(seat) for seat in waiting)
        now = [seat for seat in waiting if _number(seat) == earliest]
        if len(now) == 1 or self._together is None:
            for seat in now:
                seat.answer = None
        else:
            self._meet(now, self._together)
        for seat in now:
            seat.turn.go_on()

    def _meet(self, now: list[Seat], together: Together) -> None:
        marks = [(seat.turn.streams, seat.turn.streams.mark()) for seat in now]
        try:
            self._pass(now)
        except Exception as error:
            # Whose fault it was shows when each computes by itself; a lack of memory is nobody's own.
            print(
                f"warning: pack: a common pass failed ({type(error).__name__}: {error}); from now on every run of it computes "
                "by itself",
                file=sys.stderr,
            )
            together.close()
            self._together = None
            for streams, mark in marks:
                streams.back_to(mark)
            for seat in now:
                seat.alone()
            return
        for seat in now:
            seat.packed = max(seat.packed, len(now))

    def _pass(self, seats: list[Seat]) -> None:
        """The gradients and the loss of each run's step, in one forward and one backward pass."""
        assert self._together is not None
        steps = [seat.wants for seat in seats if seat.wants is not None]
        data = [model_inputs(step.model, step.batch) for step in steps]
        parts = [
            Part(step.model, inputs, step.loss.objective.views, seat.turn.streams.drawing)
            for step, (inputs, _), seat in zip(steps, data, seats, strict=True)
        ]
        losses: list[Tensor] = []
        with ExitStack() as inside:
            inside.enter_context(self._streams.in_use())
            with autocast(data[0][1].device, steps[0].loss.precision):
                logits = inside.enter_context(self._together.logits(parts))
            for seat, step, own, (inputs, labels) in zip(seats, steps, logits, data, strict=True):
                try:
                    terms = step.loss.of_pass(step.model, own, inputs, labels, step.weights)
                    step.check(loss := sum_of(terms))
                except Exception as error:  # this run's own, such as a loss that is not finite
                    seat.answer = error
                    continue
                seat.answer = loss.detach()
                step.note({name: term.detach() for name, term in terms.items()})
                losses.append(loss)
            if losses:
                torch.stack(losses).sum().backward()


def _model(seat: Seat) -> nn.Module:
    assert seat.wants is not None
    return seat.wants.model


def _number(seat: Seat) -> int:
    assert seat.wants is not None
    return seat.wants.number


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
