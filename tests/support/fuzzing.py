"""Running hypothesis over generated input: reproducible by seed, counted by outcome, and with the smallest input of a failure."""

from __future__ import annotations

import contextlib
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, strategies

CPU_SECONDS, SECONDS = 20, 120  # of one input; the second is for what sleeps, on a machine that others use as well
GIB = 4  # of memory beyond what the process has


class Fault(AssertionError):
    """An input that ended otherwise than it may."""


class HangError(BaseException):
    """Raised out of whatever takes too long; nothing that catches exceptions catches it."""


@dataclass
class Batch:
    """What came of a number of inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failure: str = ""  # the smallest input that failed, and how

    @property
    def count(self) -> int:
        return sum(self.outcomes.values())


def explore(inputs: strategies.SearchStrategy[Any], outcome: Callable[[Any], str], seed: int, examples: int) -> Batch:
    """Try this many inputs. The first that fails ends it, is made as small as can be, and stands in the batch's `failure`."""
    batch, failed = Batch(), []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        print_blob=False,
    )
    @hypothesis.given(inputs)
    def tried(value: Any) -> None:
        try:
            came = outcome(value)
        except BaseException as error:
            failed[:] = [f"{type(error).__name__}: {str(error)[:1500]}\n\n{value}"]
            if isinstance(error, HangError):
                raise Fault(str(error)) from error
            raise
        if not failed:
            batch.outcomes[came] += 1

    try:
        tried()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        if not failed:
            raise
        batch.outcomes["FAULT"] += 1
        batch.failure = failed[0]
    return batch


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Within limits of time and memory, and with warnings as errors."""

    def too_long(number: int, frame: Any) -> None:
        raise HangError(f"more than {CPU_SECONDS} s")

    before = {number: signal.signal(number, too_long) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() + GIB * 2**30, hard))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # of libraries, whatever the input
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _virtual_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


TEXT = 3000  # characters of the longest error


def refused(when: str, error: Exception) -> str:
    """The outcome for an input that one error refused. Raises Fault for an error that nobody would read."""
    if not str(error).strip() or len(str(error)) > TEXT:
        raise Fault(f"an error of {len(str(error))} characters: {str(error)[:300]!r}")
    return f"refused as it is {when}"
