"""Ends of a run other than a result: what its record says of them, and which of its resume points stay."""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.stopwatch import Stopwatch
from unipet.runs import record as records


def interrupted(end: KeyboardInterrupt, watch: Stopwatch, directory: Path) -> dict[str, Any]:
    """What the record of a run says that somebody ended; it goes on from its last resume point when it is started again."""
    reason = f"{str(end) or 'interrupted'}{f' during {watch.ended_in}' if watch.ended_in else ''}"
    print(f"{reason}; to go on: {continuing(directory)}", file=sys.stderr)
    return {"status": "interrupted", "phase": watch.ended_in, "reason": reason}


def continuing(directory: Path) -> str:
    """The command that goes on with the run in `directory`."""
    return f"unipet train {shlex.quote(f'resume={directory}')}"


def failed(error: Exception, watch: Stopwatch, directory: Path) -> dict[str, Any]:
    """What the record says of a run that an exception ended.

    A failure of training itself leaves no resume point: what broke it may be in every one of them, so the run begins anew.
    What the machine did (no memory, no room on a disk) is not the run's own, and an end of training stays.
    """
    from unipet.runs.memory import out_of_memory
    from unipet.training.objective_trainer import Diverged
    from unipet.training.resume_point import discard, training_is_over

    if (reason := out_of_memory(error)) is not None:  # a result, and never a retry with other settings
        reason = f"{watch.ended_in or watch.phase}: {reason}"
        return {"status": "exceeded", "stopped_by": "out_of_memory", "reason": reason, "phase": watch.ended_in}
    if not isinstance(error, OSError) and not training_is_over(directory):
        discard(directory)
    stopped = {"stopped_by": "nan"} if isinstance(error, Diverged) else {}
    return {"status": "failed", "error": explain(error, directory), "phase": watch.ended_in, **stopped}


def explain(error: Exception, directory: Path) -> dict[str, str]:
    """`error` of the record. What the user can mend says so itself; anything else leaves its traceback in error.txt."""
    if isinstance(error, UnipetError):
        return {"type": "UnipetError", "message": str(error)}
    records.write_text_atomic(directory / records.ERROR, "".join(traceback.format_exception(error)))
    return {"type": type(error).__name__, "message": f"{error or '(no message)'} (traceback: {records.ERROR})"}
