"""Ends of a run other than a result: what its record says of them, and which of its resume points stay."""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path

from unipet.errors import UnipetError
from unipet.output.stopwatch import Stopwatch
from unipet.runs.record import ErrorOf, Record
from unipet.runs.record_files import ERROR, write_text_atomic


def interrupted(record: Record, end: KeyboardInterrupt, watch: Stopwatch, directory: Path) -> None:
    """Write into the record that somebody ended the run. It continues from its last resume point when it is started again."""
    from unipet.training.company import StandsAside

    reason = f"{str(end) or 'interrupted'}{f' during {watch.ended_in}' if watch.ended_in else ''}"
    if not isinstance(end, StandsAside):  # then it is run later
        print(f"{reason}; to go on: {continuing(directory)}", file=sys.stderr)
    record.status, record.phase, record.reason = "interrupted", watch.ended_in, reason


def continuing(directory: Path) -> str:
    """The command that goes on with the run in `directory`."""
    return f"unipet train {shlex.quote(f'resume={directory}')}"


def failed(record: Record, error: BaseException, watch: Stopwatch, directory: Path) -> None:
    """Write into the record that an exception ended the run.

    A failure of training itself leaves no resume point: what broke it may be in every one of them, so the run begins anew.
    What the machine did (no memory, no room on a disk) is not the run's own, and an end of training stays.
    """
    from unipet.runs.memory import out_of_memory
    from unipet.training.objective_trainer import Diverged
    from unipet.training.resume_point import discard, training_is_over

    record.phase = watch.ended_in
    if (
        reason := out_of_memory(error)
    ) is not None:  # running out of memory is a result; the run is never retried otherwise
        record.status, record.stopped_by = "exceeded", "out_of_memory"
        record.reason = f"{watch.ended_in or watch.phase}: {reason}"
        return
    if not _of_the_machine(error) and not training_is_over(directory):
        discard(directory)
    record.status, record.error = "failed", explain(error, directory)
    if isinstance(error, Diverged):
        record.stopped_by = "nan"


def _of_the_machine(error: BaseException | None) -> bool:
    """Whether the system refused something (a full disk), or an error that was made of that."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def explain(error: BaseException, directory: Path) -> ErrorOf:
    """The record's `error`. For anything but a `UnipetError`, the traceback is written to error.txt."""
    if isinstance(error, UnipetError):
        return ErrorOf("UnipetError", str(error))
    write_text_atomic(directory / ERROR, "".join(traceback.format_exception(error)))
    return ErrorOf(type(error).__name__, f"{error or '(no message)'} (traceback: {ERROR})")
