"""How far a sweep is, whoever runs its jobs: a live line on a terminal, else a line a minute; and a line for each job that
ends. All of it is read from the sweep's index."""

from __future__ import annotations

import sys
import time

from unipet.runs.sweep_files import PENDING, RESULTS, RUNNING, JobState, index_lines, map_events, read_jobs
from unipet.sweeps import closing
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import read_job
from unipet.sweeps.planned import left_s, predicted

EVERY_S = 60.0  # between two lines in a log


class Progress:
    """Follows the index of a sweep. What had happened before it was made is counted and not told."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.status = {state.job: state.status for state in read_jobs(sweep.directory)}
        _, self.at = index_lines(sweep.directory)
        self.began = self.told = time.monotonic()
        self.ended: list[tuple[int, float]] = []  # jobs that ended since then, and their seconds
        self.since = {job: self.began for job, status in self.status.items() if status == RUNNING}
        self.plan = predicted(sweep)
        self.live = sys.stderr.isatty()
        self.shown = ""

    def look(self) -> None:
        """Tell what happened since the last look."""
        lines, self.at = index_lines(self.sweep.directory, self.at)
        for event in map_events(lines):
            self.status[event.job] = event.status
            if event.status == RUNNING:
                self.since[event.job] = time.monotonic()
            if event.over:
                self.ended.append((event.job, event.seconds or 0.0))
                self._say(self._told(event))
        now = time.monotonic()
        if self.live:
            self._draw(self.line())
        elif now - self.told >= EVERY_S:
            self.told = now
            self._say(self.line())

    def line(self) -> str:
        """`12 of 40 done, 2 running, 1 failed, 25 left; 61 jobs per hour, about 25 min left by the plan`."""
        statuses = list(self.status.values())
        running, over = statuses.count(RUNNING), [s for s in statuses if s in RESULTS]
        skipped = statuses.count("skipped")
        failed = sum(s not in (*RESULTS, RUNNING, "pending") for s in statuses)
        left = len(statuses) - running - len(over) - failed
        parts = [f"{len(over)} of {self.sweep.total} done"]
        parts += [
            f"{count} {name}"
            for count, name in ((running, "running"), (failed, "failed"), (skipped, "skipped"))
            if count
        ]
        text = ", ".join([*parts, f"{left} left"])
        return "; ".join([text, *filter(None, [self._rate(left + running)])])

    def _rate(self, left: int) -> str:
        """How fast jobs end, and when the last one will have: by what `unipet plan` predicted and by the time of those that
        have ended; without a plan, or for jobs that it does not know, at the pace so far."""
        now = time.monotonic()
        rate = len(self.ended) * 3600 / max(now - self.began, 1e-9)
        said = [f"{rate:.0f} jobs per hour"] if self.ended else []
        running = {job: now - self.since.get(job, now) for job, status in self.status.items() if status == RUNNING}
        pending = [job for job in range(self.sweep.total) if self.status.get(job, PENDING) == PENDING]
        planned = left_s(self.plan, self.ended, running, pending) if self.plan else None
        if planned is not None and left:
            said.append(f"about {_minutes(planned / 3600)} left by the plan")
        elif self.ended:
            said.append(f"about {_minutes(left / rate)} left")
        return ", ".join(said)

    def close(self) -> None:
        """End the live line."""
        self._draw("")

    def _told(self, event: JobState) -> str:
        job = read_job(self.sweep.directory, event.job)
        name = " ".join(job.differing or job.overrides)
        return f"[{event.job + 1}/{self.sweep.total}] {name}\n    {closing.ended_line(self.sweep.directory, event)}"

    def _say(self, text: str) -> None:
        self._draw("")
        print(text, file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        if not self.live or text == self.shown:
            return
        draw = getattr(sys.stderr, "draw", sys.stderr.write)
        draw(f"\r{text}{' ' * max(len(self.shown) - len(text), 0)}" + ("" if text else "\r"))
        sys.stderr.flush()
        self.shown = text


def _minutes(hours: float) -> str:
    minutes = round(60 * hours)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
