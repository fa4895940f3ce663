"""The forecast of a whole sweep as plain data and as text: one row per job, the totals, and the hours available."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unipet.output.text_table import duration, text_table
from unipet.runs.forecast.job import JobForecast

HEADER = ["job", "run", "sizes", "trained", "batch", "GiB", "FLOP", "steps", "train", "total", "outcome"]
_STATUS = {
    "run": "run",
    "finished": "not run again",
    "skipped": "skipped",
    "exceeded": "out of memory",
    "fails": "would fail",
}


@dataclass(frozen=True)
class Forecast:
    """All jobs in the order in which they will run, one after another, and how their times were measured.

    `start_s`: seconds until the first job begins. `given_hours`: the hours available (`--total`), None if not given.
    `measured`: how many kinds of job were measured now and how many earlier, the seconds that it took, and the load.
    """

    jobs: Sequence[JobForecast]
    start_s: float
    given_hours: float | None
    machine: dict[str, Any]
    measured: dict[str, Any]
    cuda: bool

    @property
    def hours(self) -> float:
        """Device-hours of all jobs: wall seconds x gpus / 3600."""
        return self.start_s / 3600 + sum(job.hours for job in self.jobs)

    @property
    def unit(self) -> str:
        return "GPU-hours" if self.cuda else "device-hours"

    def jobs_within(self) -> int | None:
        """How many jobs, counted from the first, end within the hours available; None if none are given."""
        if self.given_hours is None:
            return None
        spent = self.start_s / 3600
        for count, job in enumerate(self.jobs):
            spent += job.hours
            if spent > self.given_hours:
                return count
        return len(self.jobs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        statuses = [job.status for job in self.jobs]
        return {
            "jobs": [job.to_dict() for job in self.jobs],
            "counts": {status: statuses.count(status) for status in _STATUS},
            "total": {
                "unit": self.unit,
                "hours": self.hours,
                "train_hours": sum(job.train_hours for job in self.jobs),
                "wall_s": self.start_s + sum(job.total_s for job in self.jobs),
                "start_s": self.start_s,
                "flops": sum(job.flops or 0.0 for job in self.jobs),
                "given_hours": self.given_hours,
                "within": None if self.given_hours is None else self.hours <= self.given_hours,
                "jobs_within": self.jobs_within(),
            },
            "measured": self.measured,
            "machine": self.machine,
        }

    def text(self) -> str:
        """One row per job, the totals, and the machine on which they were measured."""
        rows = [_row(job) for job in self.jobs]
        return "\n".join([text_table(HEADER, rows, width=160), "", *self._totals()])

    def _totals(self) -> list[str]:
        total, counts = self.to_dict()["total"], self.to_dict()["counts"]
        named = [f"{count} {_STATUS[status]}" for status, count in counts.items() if count]
        lines = [f"{len(self.jobs)} job{'s' if len(self.jobs) != 1 else ''}: {', '.join(named)}"]
        what = "GPUs x wall time" if self.cuda else "no GPU here, so these are hours of the CPU"
        most = "at most " if any(job.at_most for job in self.jobs) else ""
        lines.append(
            f"total   {most}{number(self.hours)} {self.unit} ({duration(total['wall_s'])} one after another), of which "
            f"{number(total['train_hours'])} are training, {operations(total['flops'])}FLOP ({what})"
        )
        if self.given_hours is not None:
            left = self.given_hours - self.hours
            within = f"{number(left)} to spare" if left >= 0 else f"{number(-left)} too few"
            lines.append(f"given   {number(self.given_hours)} {self.unit}: {within}")
            if left < 0:
                count = self.jobs_within()
                lines[-1] += f"; only the first {count} of {len(self.jobs)} jobs would end in this time"
        seen, device = self.measured, self.machine
        lines.append(
            f"times   measured on {device['device']}, {device['threads']} thread{'s' if device['threads'] != 1 else ''}: "
            f"{_kinds(seen['now'])} now in {seen['seconds']:.0f} s, {_kinds(seen['before'])} earlier"
            + ("" if seen["load"] is None else f", with a load of {seen['load']:.1f} on {device['cores']} cores")
        )
        return lines


def _row(job: JobForecast) -> list[str]:
    sizes = "\n".join(f"{_insertion(key)} {value}" for key, value in job.sizes.items())
    batch = "" if job.micro_batch is None else f"{job.micro_batch} x {job.accumulation}"
    if job.checkpointing:
        batch += "\ncheckpointing"
    if job.micro_batch is not None and job.precision != "fp32":
        batch += f"\n{job.precision}"
    trained = job.params.get("trainable")
    runs = job.steps is not None
    known = [
        "" if trained is None else f"{trained:,}",
        batch,
        "" if job.predicted_gib is None else f"{job.predicted_gib:.3g}",
        operations(job.flops) if job.flops is not None else "",
        str(job.steps) if runs else "",
        duration(job.train_s) if runs else "",
        duration(job.total_s),
    ]
    name = " ".join(job.overrides) or f"{job.method} on {job.task}, seed {job.seed}"
    early = " or by task.patience" if job.at_most else ""
    steps = f"{'at most ' if job.at_most else ''}{job.steps} steps"
    ending = f"runs {steps}, ended by {job.stopped_by}{early}" if runs else f"{_STATUS[job.status]}: {job.reason}"
    if job.status == "finished":  # its reason is a whole sentence
        ending = str(job.reason)
    return [str(job.job + 1), name.replace(" ", "\n") if job.overrides else name, sizes, *known, ending]


def _kinds(count: int) -> str:
    return f"{count} kind{'s' if count != 1 else ''} of job"


def _insertion(key: str) -> str:
    """`method.insertions.NAME.function.size` -> NAME, and with `mixture.experts.EXPERT` for `function` NAME.EXPERT."""
    parts = key.split(".")
    name = parts[2] if parts[3] == "function" else f"{parts[2]}.{parts[-2]}"
    return name if parts[-1] == "size" else f"{name}.{parts[-1]}"


def number(hours: float) -> str:
    """A number with three significant digits."""
    return f"{hours:.3g}" if abs(hours) < 1000 else f"{hours:,.0f}"


def operations(count: float) -> str:
    """A number of operations with its prefix, to be followed by FLOP: `3.2 T`, `1.5 P`."""
    for power, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if count >= power:
            return f"{count / power:.3g} {letter}"
    return f"{count / 1e6:.3g} M"
