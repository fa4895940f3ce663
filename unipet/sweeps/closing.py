"""The text at the end of a run: its outcome, the chosen checkpoint, where its time went, and the next command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.report import numbers
from unipet.report.aggregate import is_synthetic, named, reason_of, scale_of
from unipet.runs.endings import continuing
from unipet.runs.record import ERROR

WIDTH = 11  # of the first column
SPLITS = {"train_holdout": "held-out training", "validation": "validation"}  # task.selection -> whose examples
ENDED = {
    "epochs": "all epochs done",
    "max_steps": "ended by budget.max_steps",
    "max_tokens": "ended by budget.max_tokens",
}


def summary(record: Mapping[str, Any], directory: Path) -> str:
    """The whole story of one run as lines of `what  value`. `directory` is the run's."""
    params, status = record.get("params") or {}, record.get("status")
    rows = {"status": f"{status}"}
    if status != "ok" and reason_of(record):
        rows["reason"] = reason_of(record)
    made = " (synthetic)" if is_synthetic(record, {}) else ""
    what, where = named(record.get("method")), f"{named(record.get('task'))}{made}"
    rows["run"] = f"{what} on {where}, {named(record.get('model'))}, seed {record.get('seed')}"
    if record.get("score") is not None:
        rows["score"] = f"{numbers.score(record['score'], scale_of(record))} {record.get('metric')}"
    if flags := record.get("flags"):
        rows["flagged"] = "; ".join(str(flag["text"]) for flag in flags)
    rows["checkpoint"] = checkpoint(record)
    if params.get("trainable") is not None:
        rows["trainable"] = (
            f"{params['trainable']:,} parameters ({numbers.percent(params.get('percent'))} % of the base model)"
        )
    rows["training"] = training(record)
    rows["resumed"] = resumed(record)
    rows["time"] = spent(record)
    rows["directory"] = str(directory)
    rows["next"] = next_command(record, directory)
    return "\n".join(f"{key:<{WIDTH}}{value}" for key, value in rows.items() if value)


def outcome(record: Mapping[str, Any]) -> str:
    """The same in one line, for a job of a sweep."""
    if record.get("status") != "ok":
        return f"{record.get('status')}: {reason_of(record) or 'no reason recorded'}"
    score, text = record.get("score"), "no score"
    if isinstance(score, int | float):
        text = f"{record.get('metric')} {numbers.score(score, scale_of(record))}"
    text += "".join(f" (flagged: {flag['name']})" for flag in record.get("flags") or ())
    return "ok: " + "; ".join(filter(None, [text, checkpoint(record, short=True), spent(record)]))


def checkpoint(record: Mapping[str, Any], short: bool = False) -> str:
    """Which checkpoint was chosen, and by what score; empty where a run has no selection split or did not get so far."""
    selection = (record.get("data") or {}).get("selection") or {}
    step, scores = selection.get("step"), selection.get("scores") or {}
    steps = (record.get("time") or {}).get("steps")
    if step is None:
        last = f"the last one, step {steps}; none was chosen (task.selection=none)"
        return last if record.get("status") == "ok" and steps is not None and not short else ""
    said = f"step {step} of {steps}"
    if short:
        return f"checkpoint of {said}"
    score, metric = scores.get(str(step)), str(selection.get("metric"))
    if isinstance(score, int | float):
        value = score if higher_is_better(metric) else -score  # the record's own are negated: the highest is chosen
        split = SPLITS.get(str(selection.get("by")), "selection")
        said += f", by {metric} {value:.4f} on {selection.get('examples'):,} {split} examples"
    return f"{said}; {len(scores)} were compared"


def higher_is_better(metric: str) -> bool:
    """Whether more of a selection metric is better."""
    from unipet.tasks import LOSS, METRICS

    return metric != LOSS and (metric not in METRICS or METRICS[metric].higher_is_better)


def training(record: Mapping[str, Any]) -> str:
    """How much training there was and what ended it."""
    time = record.get("time") or {}
    if time.get("steps") is None:
        return ""
    by = record.get("stopped_by")
    each = f" of {time['step_ms']:.0f} ms" if time.get("step_ms") is not None else ""
    return f"{time['steps']:,} steps{each}; {ENDED.get(str(by), f'ended by {by}')}"


def resumed(record: Mapping[str, Any]) -> str:
    """After which steps the run went on; empty where nothing interrupted it."""
    steps = record.get("resumed") or ()
    if not steps:
        return ""
    return (
        f"{'once' if len(steps) == 1 else f'{len(steps)} times'}, after step {', '.join(f'{step:,}' for step in steps)}"
    )


def spent(record: Mapping[str, Any]) -> str:
    """The whole time and its parts, rounded so that the parts add up to the whole."""
    phases = (record.get("time") or {}).get("phases_s") or {}
    if not phases:
        return ""
    tenths = rounded([10 * seconds for seconds in phases.values()])
    parts = [f"{name.replace('_', ' ')} {part / 10:.1f}" for name, part in zip(phases, tenths, strict=True) if part]
    return f"{sum(tenths) / 10:.1f} s ({', '.join(parts)})"


def rounded(values: list[float]) -> list[int]:
    """Whole numbers whose sum is the rounded sum: the largest remainders are rounded up."""
    found = [math.floor(value) for value in values]
    lacking = round(sum(values)) - sum(found)
    for index in sorted(range(len(values)), key=lambda i: values[i] - found[i], reverse=True)[:lacking]:
        found[index] += 1
    return found


def next_command(record: Mapping[str, Any], directory: Path) -> str:
    """What a person would type now; merging, where every insertion folds."""
    run = shlex.quote(str(directory))
    if record.get("status") in ("interrupted", "running"):
        return continuing(directory)
    if record.get("status") != "ok":
        return f"cat {shlex.quote(str(directory / ERROR))}" if (directory / ERROR).is_file() else ""
    folds = all(row.get("foldable") for row in record.get("insertions") or ())
    merge = f", unipet merge {run} OUT" if folds else ""
    return f"unipet report {shlex.quote(str(directory.parent))}    or unipet evaluate {run}{merge}"
