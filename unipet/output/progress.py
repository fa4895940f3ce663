"""Showing the progress of long work: a bar on a terminal, a line every few seconds in a notebook or a log file."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from unipet.output.terminal import Canvas
from unipet.output.text_table import duration

EVERY_S = 5.0  # seconds between two lines

_Item = TypeVar("_Item")


def print_line(text: str) -> None:
    """Print one line on standard error, without buffering."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Counts `total` steps of some work on standard error.

    If standard error is not a terminal, a line is printed at the first and the last step, and every `EVERY_S` seconds in
    between. With `patient`, work that takes less than `EVERY_S` seconds prints nothing.
    """

    def __init__(self, label: str, total: int, unit: str, patient: bool = False, done: int = 0) -> None:
        """`done` steps were completed before, by another process."""
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._values: dict[str, str] = {}
        self._first = self._said = time.perf_counter()  # the times of the first completed step, and of the last line
        self._first_done = self._said_done = 0
        self._patient = patient
        self._bar: Any = None
        if _watched():
            self._bar = _bar(label, total, unit, EVERY_S / 5 if patient else 0.0)
            self._bar.update(done)

    def note(self, **values: float) -> None:
        """Show these numbers beside the count from now on."""
        self._values = {name: f"{value:.4g}" for name, value in values.items()}
        if self._bar is not None:
            self._bar.set_postfix(self._values, refresh=False)

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more steps as done. Call `note` before, with the numbers that belong to them."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(steps)
            return
        now = time.perf_counter()
        if self._first_done == 0:
            self._first, self._first_done = now, self.done
            if not self._patient:
                self._say(now)
                return
        if now - self._said >= EVERY_S:
            self._say(now)

    def close(self) -> None:
        """End the bar, or print the last line, whether the work succeeded or failed."""
        if self._bar is not None:
            self._bar.close()
        elif self.done > self._said_done and (self._said_done or not self._patient):
            self._say(time.perf_counter(), over=True)

    def _say(self, now: float, over: bool = False) -> None:
        parts = [f"{self.unit} {self.done:,} of {self.total:,}"]
        parts += [f"{name} {value}" for name, value in self._values.items()]
        since = self.done - self._first_done
        if since > 0 and self.done < self.total and not over:
            parts.append(f"{duration((self.total - self.done) * (now - self._first) / since)} left")
        print_line(f"{self.label}: {', '.join(parts)}")
        self._said, self._said_done = now, self.done


def _watched() -> bool:
    """Whether standard error is a terminal with room for a bar. A terminal without a size is only recorded."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):  # it claims to be a terminal, but has no file descriptor
        return False
    return size.columns > 0 and size.lines > 0


def _bar(label: str, total: int, unit: str, delay: float) -> Any:
    from tqdm import tqdm

    canvas: Any = Canvas(sys.stderr)
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        dynamic_ncols=True,
        file=canvas,
        disable=False,
        leave=delay == 0.0,
        delay=delay,
    )


def counted(batches: Iterable[list[_Item]], total: int, work: str) -> Iterator[list[_Item]]:
    """Yield the same batches, and show how many of the `total` examples are done if it takes long."""
    progress = Progress(work, total, "example", patient=True)
    try:
        for batch in batches:
            yield batch
            progress.advance(len(batch))
    finally:
        progress.close()


class _Waiting(threading.Thread):
    """Prints the name of some work after `EVERY_S` seconds, and again whenever the elapsed time has doubled."""

    waiting: ClassVar[list[_Waiting]] = []  # only the last one prints

    def __init__(self, label: str) -> None:
        super().__init__(daemon=True, name=f"waiting: {label}")
        self._label, self._over = label, threading.Event()

    def run(self) -> None:
        started, pause = time.perf_counter(), EVERY_S
        while not self._over.wait(started + pause - time.perf_counter()):
            if self.waiting and self.waiting[-1] is self:
                print_line(f"{self._label}: {duration(pause)}")
            pause *= 2

    def end(self) -> None:
        self._over.set()


@contextmanager
def waiting(work: str) -> Iterator[None]:
    """Use around work whose progress is unknown: if it takes long, lines show that it is still running."""
    one = _Waiting(work)
    _Waiting.waiting.append(one)
    one.start()
    try:
        yield
    finally:
        _Waiting.waiting.remove(one)
        one.end()
        one.join()
