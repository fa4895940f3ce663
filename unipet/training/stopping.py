"""SIGTERM, SIGINT and SIGHUP during a run: a step that is in work ends first, then the run; a second signal ends it at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

MOMENT_S = 2.0  # signals that come within so many seconds are one wish
#: Signals that ask a program to end -> what somebody did to send it, where that is no secret.
ENDING = {signal.SIGINT: " (Ctrl-C)", signal.SIGTERM: "", signal.SIGHUP: " (its terminal was closed)"}


class Interrupted(KeyboardInterrupt):
    """A signal has asked the run to end. `exit_code` is what a shell expects of a command that such a signal ended."""

    def __init__(self, number: int, place: str = "") -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}{ENDING.get(signal.Signals(number), '')}{place}")
        self.exit_code = 128 + number


class _Asked:
    """What signals have asked of the run in this process."""

    number: int | None = None
    at = 0.0
    stepping = 0  # how many trainings of this process have a step in work
    heeded = 0  # how many runs of this process heed signals


_asked = _Asked()


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Inside, SIGTERM, SIGINT and SIGHUP raise `Interrupted`: at once, or at the end of the step that is in work.

    Where the program has a handler of its own, or ignores the signal (`nohup`), that stays; it may call `ask`.
    """
    before = {}
    _asked.heeded += 1
    if threading.current_thread() is threading.main_thread():
        for each in ENDING:
            if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
                before[each] = signal.signal(each, lambda number, frame: ask(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        _asked.heeded -= 1
        if not _asked.heeded:
            _asked.number, _asked.stepping = None, 0


@contextmanager
def ending_steps_first() -> Iterator[None]:
    """Inside, steps are in work: whoever makes them calls `end_if_asked` between two of them."""
    _asked.stepping += 1
    try:
        yield
    finally:
        _asked.stepping = max(_asked.stepping - 1, 0)


def ask(number: int) -> None:
    """Ask the run in this process to end, as the signal `number` does. Signals within a moment count once: a launcher and a
    whole process group may pass on the same wish."""
    now = time.monotonic()
    again = _asked.number is not None
    if again and now - _asked.at < MOMENT_S:
        return
    _asked.number, _asked.at = number, now
    if again or not _asked.stepping:
        raise Interrupted(number)


def asked_to_end() -> bool:
    """Whether a signal waits for the end of the step."""
    return _asked.number is not None


def end_if_asked(place: str) -> None:
    """Raises `Interrupted` where a signal has waited for the end of the step; `place` says in words which end that is."""
    if _asked.number is not None:
        raise Interrupted(_asked.number, place)
