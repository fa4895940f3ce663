"""What `unipet plan` predicted for the jobs of a sweep, kept under the name that the sweep will have; and the time left by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from unipet.output.cache_place import cache_directory
from unipet.runs.record_files import write_json_atomic
from unipet.sweeps.directory import Sweep, sweep_name
from unipet.sweeps.job_files import Job

PLANS = "plans"  # in the cache directory
FOUND = 0.1  # a job that took less of its prediction was found finished, or went on near its end


def keep(runs_dir: str, jobs: Sequence[Job], swept: Sequence[str], seconds: Mapping[int, float]) -> None:
    """Keep the predicted seconds of jobs for the sweep that will have these. Nothing depends on it, so a disk may refuse it."""
    place = cache_directory(runs_dir)
    if place is not None:
        with suppress(OSError):
            (place / PLANS).mkdir(parents=True, exist_ok=True)
            content = {str(job): each for job, each in seconds.items()}
            write_json_atomic(place / PLANS / f"{sweep_name(jobs, swept)}.json", content)


def predicted(sweep: Sweep) -> dict[int, float]:
    """The predicted seconds of the sweep's jobs; empty where nobody has planned it."""
    place = cache_directory(sweep.directory / sweep.runs) if sweep.runs else None
    if place is None:
        return {}
    try:
        content = json.loads((place / PLANS / f"{sweep.name}.json").read_text(encoding="utf-8"))
        return {int(job): float(seconds) for job, seconds in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def left_s(
    plan: Mapping[int, float], ended: Iterable[tuple[int, float]], running: Mapping[int, float], pending: Sequence[int]
) -> float | None:
    """Seconds until the last job has ended; None where the plan does not know one of those that are left.

    `ended`: jobs and the seconds that they took, which scale the plan. `running`: jobs and their seconds so far; as many go on
    at a time.
    """
    if any(job not in plan for job in (*running, *pending)):
        return None
    told = [(seconds, plan[job]) for job, seconds in ended if job in plan and seconds > FOUND * plan[job]]
    scale = (
        sum(seconds for seconds, _ in told) / sum(each for _, each in told) if any(each for _, each in told) else 1.0
    )
    rest = [max(scale * plan[job] - seconds, 0.0) for job, seconds in running.items()]
    work = sum(rest) + sum(scale * plan[job] for job in pending)
    return max([work / max(len(running), 1), *rest])
