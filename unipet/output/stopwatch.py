"""Measuring a run's time by phases, which never overlap and add up to the total.

A run is `timed`. Inside, `phase(NAME)` starts a phase. The time of a nested phase does not count for the outer one, so
selection is not part of training's seconds. Outside of a timed run, `phase` measures nothing.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from unipet.output.progress import waiting

#: Phase -> the text that is shown while it runs; None if a progress bar is shown instead.
PHASES: dict[str, str | None] = {
    "import": "loading Python packages",
    "data": "reading the data",
    "base_model": "loading the base model",
    "training": None,
    "selection": None,
    "evaluation": None,
    "experts": None,
    "saving": "saving the adapter",
    "certificate": "certifying the run",
}
OTHER = "other"  # time outside of all phases: checks, the record, a tracker

_current: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)
_began: float | None = None  # the start of this process, until the first run has used it
_own = False  # this process is a command's own, and its first run still imports


class Stopwatch:
    """Seconds per phase since its construction, or since `began` (in the time of `time.perf_counter`)."""

    def __init__(self, began: float | None = None) -> None:
        self._began = self._since = time.perf_counter() if began is None else began
        self._phase = OTHER
        self._seconds = dict.fromkeys([*PHASES, OTHER], 0.0)
        self.ended_in: str | None = None  # the innermost phase that an exception left

    def switch(self, phase: str) -> str:
        """Begin `phase` now. Returns the previous phase."""
        now = time.perf_counter()
        self._seconds[self._phase] += now - self._since
        before, self._phase, self._since = self._phase, phase, now
        return before

    def claim(self, phase: str) -> None:
        """Count the time since the last switch as `phase`."""
        self._phase, before = phase, self._phase
        self.switch(before)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count these seconds per phase, too."""
        for phase, more in seconds.items():
            self._seconds[phase] += more

    @property
    def phase(self) -> str:
        """The current phase."""
        return self._phase

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase so far, in the order of `PHASES`, and of everything else. Their sum is the total time."""
        self.switch(self._phase)
        return dict(self._seconds)


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """The stopwatch of one run. A command's first run counts from the start of the process; that time is "import"."""
    global _began
    watch = Stopwatch(_began)
    if _began is not None:
        watch.claim("import")
    _began = None
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the time inside as the phase `name`, a key of `PHASES`. If it takes long, lines show that it is running."""
    watch, what = _current.get(), PHASES[name]
    before = watch.switch(name) if watch is not None else None
    try:
        if what is None:
            yield
        else:
            with waiting(what):
                yield
    except BaseException:
        if watch is not None and watch.ended_in is None:
            watch.ended_in = name
        raise
    finally:
        if watch is not None and before is not None:
            watch.switch(before)


@contextmanager
def importing(last: bool = False) -> Iterator[None]:
    """The phase "import", without Python's collector of garbage: what imports make is none, and looking through it again and
    again takes much of their time.

    After the `last` imports of a command's first run, the collector never looks at what there is by then. In a process of
    somebody else's, such as a notebook, it goes on looking at everything.
    """
    global _own
    collecting = gc.isenabled()
    gc.disable()
    try:
        with phase("import"):
            yield
        if last and _own:
            _own = False
            gc.freeze()
    finally:
        if collecting:
            gc.enable()


def current_phase() -> str:
    """The current phase, as the label of a progress bar; "evaluation" outside of a timed run."""
    watch = _current.get()
    return "evaluation" if watch is None or watch.phase == OTHER else watch.phase


def spent() -> dict[str, float]:
    """Seconds per phase of the run so far; empty outside of a timed run."""
    watch = _current.get()
    return {} if watch is None else watch.seconds()


def carry(seconds: Mapping[str, float]) -> None:
    """Count what earlier processes spent on the run as part of it."""
    watch = _current.get()
    if watch is not None:
        watch.add(seconds)


def count_from_process_start() -> None:
    """Let the next timed run count from the start of this process, which is a command's own."""
    global _began, _own
    _began, _own = time.perf_counter() - _process_age(), True


def _process_age() -> float:
    """Seconds since this process started, to a hundredth on Linux; 0 on systems that do not report it."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])  # field 22, in ticks since boot; see proc(5)
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
