"""The text at the end of a run: its outcome, the chosen checkpoint, where its time went, and the next command."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from unipet.report import numbers
from unipet.report.aggregate import is_synthetic, named, reason_of, scale_of
from unipet.report.collect import Entry
from unipet.runs.endings import continuing
from unipet.runs.record import Record
from unipet.runs.record_files import ERROR, RESULT, read_record
from unipet.runs.sweep_files import JobState

WIDTH = 11  # of the first column
SPLITS = {"train_holdout": "held-out training", "validation": "validation"}  # task.selection -> whose examples
ENDED = {
    "epochs": "all epochs done",
    "max_steps": "ended by budget.max_steps",
    "max_tokens": "ended by budget.max_tokens",
    "rung": "ended at its rung (trial.until)",
}


def summary(record: Record, directory: Path) -> str:
    """The whole story of one run as lines of `what  value`. `directory` is the run's."""
    params, rows = record.params, {"status": record.status}
    if record.status != "ok":
        rows["reason"] = reason_of(record)
    made = " (synthetic)" if is_synthetic(Entry(record)) else ""
    rows["run"] = f"{named(record.method)} on {named(record.task)}{made}, {named(record.model)}, seed {record.seed}"
    if record.score is not None:
        rows["score"] = f"{numbers.score(record.score, scale_of(record))} {record.metric}"
    rows["sets"] = ", ".join(
        f"{name} {numbers.score(one.score, scale_of(record))}{' (reported)' if one.reported else ''}"
        for name, one in record.evaluation_sets.items()
    )
    rows["flagged"] = "; ".join(flag.text for flag in record.flags or ())
    rows["checkpoint"] = checkpoint(record)
    if params.trainable is not None:
        rows["trainable"] = f"{params.trainable:,} parameters ({numbers.percent(params.percent)} % of the base model)"
    rows["training"] = training(record)
    rows["resumed"] = resumed(record)
    rows["time"] = spent(record)
    rows["directory"] = str(directory)
    rows["next"] = next_command(record, directory)
    return "\n".join(f"{key:<{WIDTH}}{value}" for key, value in rows.items() if value)


def outcome(record: Record) -> str:
    """The same in one line, for a job of a sweep."""
    if record.status != "ok":
        return f"{record.status}: {reason_of(record) or 'no reason recorded'}"
    text = "no score"
    if record.score is not None:
        text = f"{record.metric} {numbers.score(record.score, scale_of(record))}"
    text += "".join(f" (flagged: {flag.name})" for flag in record.flags or ())
    return "ok: " + "; ".join(filter(None, [text, checkpoint(record, short=True), spent(record)]))


def ended_line(sweep: Path, job: JobState) -> str:
    """The same for a job of the sweep in `sweep`, from its outcome or its event in the index."""
    if job.record is not None:
        return outcome(job.record)
    if job.run_dir is not None:
        return outcome(read_record(sweep / job.run_dir / RESULT))
    return f"{job.status}: {job.reason or 'no reason recorded'}"


def checkpoint(record: Record, short: bool = False) -> str:
    """Which checkpoint was chosen, and by what score; empty where a run has no selection split or did not get so far."""
    selection, steps = record.data.selection, record.time.steps
    if selection.step is None:
        last = f"the last one, step {steps}; none was chosen (task.selection=none)"
        return last if record.status == "ok" and steps is not None and not short else ""
    said = f"step {selection.step} of {steps}"
    if short:
        return f"checkpoint of {said}"
    score, metric = selection.scores.get(str(selection.step)), str(selection.metric)
    if score is not None:
        value = score if higher_is_better(metric) else -score  # the record's own are negated: the highest is chosen
        split = SPLITS.get(str(selection.by), "selection")
        said += f", by {metric} {value:.4f} on {selection.examples:,} {split} examples"
    return f"{said}; {len(selection.scores)} were compared"


def higher_is_better(metric: str) -> bool:
    """Whether more of a selection metric is better."""
    from unipet.tasks import LOSS, METRICS

    return metric != LOSS and (metric not in METRICS or METRICS[metric].higher_is_better)


def training(record: Record) -> str:
    """How much training there was and what ended it."""
    time, by = record.time, record.stopped_by
    if time.steps is None:
        return ""
    each = f" of {time.step_ms:.0f} ms" if time.step_ms is not None else ""
    return f"{time.steps:,} steps{each}; {ENDED.get(str(by), f'ended by {by}')}"


def resumed(record: Record) -> str:
    """After which steps the run went on; empty where nothing interrupted it."""
    steps = record.resumed
    if not steps:
        return ""
    return (
        f"{'once' if len(steps) == 1 else f'{len(steps)} times'}, after step {', '.join(f'{step:,}' for step in steps)}"
    )


def spent(record: Record) -> str:
    """The whole time and its parts, rounded so that the parts add up to the whole."""
    phases = record.time.phases_s
    if not phases:
        return ""
    tenths = rounded([10 * seconds for seconds in phases.values()])
    parts = [f"{name.replace('_', ' ')} {part / 10:.1f}" for name, part in zip(phases, tenths, strict=True) if part]
    return f"{sum(tenths) / 10:.1f} s ({', '.join(parts)})"


def rounded(values: list[float]) -> list[int]:
    """Whole numbers whose sum is the rounded sum: the largest remainders are rounded up."""
    whole = [math.floor(value) for value in values]
    lacking = round(sum(values)) - sum(whole)
    for index in sorted(range(len(values)), key=lambda i: values[i] - whole[i], reverse=True)[:lacking]:
        whole[index] += 1
    return whole


def next_command(record: Record, directory: Path) -> str:
    """What a person would type now; merging, where every insertion folds."""
    run = shlex.quote(str(directory))
    if record.status in ("interrupted", "running"):
        return continuing(directory)
    if record.status != "ok":
        return f"cat {shlex.quote(str(directory / ERROR))}" if (directory / ERROR).is_file() else ""
    folds = all(row.foldable for row in record.insertions)
    merge = f", unipet merge {run} OUT" if folds else ""
    return f"unipet report {shlex.quote(str(directory.parent))}    or unipet evaluate {run}{merge}"
