"""What a sweep says on the terminal while it runs: each job as it begins, and how it ended."""

from __future__ import annotations

import sys
from pathlib import Path

from unipet.runs.sweep_files import JobState
from unipet.sweeps import closing
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.worker import Say


def worker(sweep: Sweep) -> Say:
    """For a worker that owns the terminal."""

    def say(job: Job, outcome: JobState | None) -> None:
        if outcome is None:
            began(job, sweep.total)
        else:
            ended(sweep.directory, outcome)

    return say


def began(job: Job, total: int | None) -> None:
    """`[3/15] method=NAME seed=2` on standard error: what tells this job from the others."""
    line = f"[{job.number + 1}/{total or '?'}] {' '.join(job.differing or job.overrides)}"
    print(line, file=sys.stderr, flush=True)


def ended(sweep: Path, outcome: JobState) -> None:
    """How it ended, below that line."""
    print(f"    {closing.ended_line(sweep, outcome)}", file=sys.stderr, flush=True)
