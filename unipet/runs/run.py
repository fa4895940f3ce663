"""The story of one run, callable from Python: `run(config)` trains, evaluates and records.

`prepare` (prepare.py) does everything that a mistake of the user can break and writes nothing: it raises `UnipetError`.
`execute` does the work in the run's directory: whatever breaks there becomes a record with status "failed".
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.output import libraries
from unipet.runs import record as records
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.prepare import Prepared, finished_record, prepare
from unipet.runs.endings import failed, interrupted
from unipet.runs.finished import evaluate as evaluate
from unipet.runs.resumable import resume_points, resumed_before
from unipet.runs.run_directory import checksums, locked, settle
from unipet.output.stopwatch import Stopwatch, phase, timed
from unipet.runs.uploading import mark, upload
from unipet.training.stopping import heeding_signals
from unipet.calculus.yaml_reader import write_yaml

if TYPE_CHECKING:
    from unipet.runs.tracking import Tracker


def run(config: RunConfig) -> dict[str, Any]:
    """Train, evaluate and record one run, and return its record (the content of `result.json`).

    A finished run (status "ok") of the same `run_id` whose files are all there is not repeated unless `config.rerun` is
    set: its record is returned. A run that fails on the way returns a record with status "failed" and `error`.
    Raises `UnipetError`, with nothing written, for mistakes that `prepare` finds, and while another process is doing the
    same run. SIGTERM and SIGINT end a run after the step that is in work, and KeyboardInterrupt passes through after the record
    says "interrupted". A run that was interrupted or killed goes on from its last resume point.
    """
    return perform(config).record


@dataclass(frozen=True)
class Done:
    """A run that came to an end, and where its record is: in the run's directory, or in that of a failed repetition."""

    record: dict[str, Any]
    directory: Path


def perform(config: RunConfig, announce: Callable[[Path], None] = lambda directory: None) -> Done:
    """`run`, for whoever needs to know where: `announce` hears the run's directory before anything is done in it."""
    with timed() as watch:
        prepared = prepare(config)
        announce(prepared.directory)
        if (found := _finished_before(prepared)) is not None:
            return Done(found, prepared.directory)
        with locked(prepared.directory):
            settle(prepared.directory)
            if (found := _finished_before(prepared)) is not None:  # by another process, meanwhile
                return Done(found, prepared.directory)
            return execute(prepared, watch)


def _finished_before(prepared: Prepared) -> dict[str, Any] | None:
    found = None if prepared.config.rerun else finished_record(prepared)
    if found is not None:
        from unipet.training.resume_point import discard

        discard(prepared.directory)  # which a process that was killed at its very end may have left
        print(f"finished before, not run again (rerun=true does): {prepared.directory}")
        upload(prepared.config.tracking, found, prepared.resolved, prepared.directory)
    return found


@heeding_signals()
def execute(prepared: Prepared, watch: Stopwatch) -> Done:
    """Do the run in its directory; see `run` for what becomes of errors.

    Where a finished result of the same run is there, the run is done in a directory inside, and takes the result's place
    once it is whole. What fails leaves the earlier result as it was.
    """
    from unipet.runs.tracking import open_tracker
    from unipet.training.resume_point import discard

    config = prepared.config
    repeated = finished_record(prepared) is not None
    directory = prepared.directory / records.ATTEMPT if repeated else prepared.directory
    record = records.blank_record(config, prepared.fit.method.name, prepared.run_id)
    record["identity"] = prepared.content.to_dict()
    record["folder"] = os.path.relpath(Path.cwd(), prepared.directory)
    record["data"], record["fitted"] = prepared.data.record(), prepared.fit.record()
    record["composition"] = prepared.fit.method.to_dict()
    record["resumed"] = resumed_before(directory, prepared.run_id)
    _clear(directory)
    fitted = "".join(f"# fitted to the budget: {key}={size}\n" for key, size in (prepared.fit.sizes or {}).items())
    records.write_text_atomic(directory / records.CONFIG, fitted + write_yaml(prepared.resolved))
    records.write_json_atomic(directory / records.RESULT, record)
    tracker = open_tracker(config.tracking, record, prepared.resolved)
    try:
        if prepared.fit.why_not is None:
            record["status"] = _work(prepared, directory, record, tracker)
        else:
            record["params"] = prepared.fit.report.to_dict()["params"]
            record.update(status="skipped", reason=prepared.fit.why_not)
        if record["status"] == "ok":
            record["files"] = checksums(directory)
    except KeyboardInterrupt as end:
        record.update(interrupted(end, watch, directory))
        raise
    except Exception as error:
        record.update(failed(error, watch, directory))
    finally:
        record["time"]["phases_s"] = watch.seconds()
        record["time"]["total_s"] = sum(record["time"]["phases_s"].values())
        record["finished"] = records.now()
        records.write_json_atomic(directory / records.RESULT, record)
        if record["status"] == "ok":
            discard(directory)
        if said := libraries.kept():
            records.write_text_atomic(directory / libraries.FILE, said)
        settle(prepared.directory)
        done = Done(record, directory if directory.is_dir() else prepared.directory)
        if tracker.finish(record, record["status"]):
            mark(config.tracking, record, done.directory)
    return done


def _work(prepared: Prepared, directory: Path, record: dict[str, Any], tracker: Tracker) -> str:
    """Seed, base model, memory fit, insertions, training, evaluation, saving: fills `record` as results become known.
    Returns the status: "ok", or "skipped" where the budget leaves too little memory."""
    with phase("import"):
        import torch
        import transformers

        from unipet.adaptation.api import adapt
        from unipet.training.budget.memory_fit import fit_run
        from unipet.training.callbacks import Best
        from unipet.adaptation.checkpoint import save
        from unipet.training.evaluation import (
            check_lengths,
            check_mixture,
            higher_is_better,
            score_split,
            selection_score,
        )
        from unipet.runs.flags import raised
        from unipet.training.history import read_steps
        from unipet.runs.memory import PeakMemory, limited
        from unipet.runs.base_model import load_base_model
        from unipet.tasks import cache_directory, collate, encode, readout, selection_metric
        from unipet.training.trainer import train

    config, method, data = prepared.config, prepared.fit.method, prepared.data
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    transformers.set_seed(config.seed)  # before the model: the new head and the insertions are drawn from it
    model, tokenizer = load_base_model(config.model, data.labels, data.regression, config.task.kind)
    encoded = encode(data, tokenizer, config.task, cache_directory(config.runs_dir))
    record["data"]["truncated"] = encoded.truncated  # share of examples that a length limit cut
    warnings = encoded.warnings(config.task.max_target)
    batch, read = collate(tokenizer), readout(config.task, tokenizer)
    with phase("base_model"):
        fit = fit_run(config, model, prepared.fit.draft, encoded.train, batch, read, data.regression, device)
    warnings += [fit.warning] if fit.warning else []
    record["fitted"].update(fit.record())
    record["memory"]["predicted_gib"] = fit.predicted_gib
    record["data"]["warnings"] = warnings
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with phase("base_model"):
        adapted = adapt(model, method, prepared.sites).to_dict()
    record["params"], record["insertions"] = adapted["params"], adapted["insertions"]
    if fit.why_not is not None:
        record["reason"] = fit.why_not
        return "skipped"
    check_lengths(encoded, model, config.task)
    memory = PeakMemory(device)
    best = None
    if encoded.selection:
        metric = selection_metric(config.task)
        sign = 1.0 if higher_is_better(metric) else -1.0
        best = Best(model, selection_score(config, model, data, encoded, tokenizer), metric, sign)
    points, begin = resume_points(directory, record, fit, device)
    with (
        phase("training"),
        limited(device, config.budget.peak_memory_gib),
        open(directory / records.METRICS, "w", encoding="utf-8") as metrics,
    ):
        trained = train(
            *(model, method.objective, encoded.train, batch, data.regression, config, directory, metrics, tracker.log),
            read=read,
            best=best,
            micro_batch=fit.micro_batch,
            checkpointing=fit.checkpointing,
            points=points,
            begin=begin,
            measure=memory.read,
        )
    if best is not None:
        scored = {str(step): score for step, score in best.scores.items()}  # JSON has no other keys
        record["data"]["selection"].update(metric=selection_metric(config.task), step=best.restore(), scores=scored)
    record["memory"].update(trained.measured)
    record["stopped_by"] = trained.stopped_by
    for row in record["insertions"]:  # experts that no step was routed to, say: a warning to the reader
        row["untrained"] = [name for name in trained.untrained if name.startswith(f"{row['name']}/")]
    record["time"].update(
        train_s=trained.seconds,
        step_ms=1000 * trained.seconds / trained.steps,
        steps=trained.steps,
        tokens_per_s=trained.tokens / trained.seconds,
    )
    with phase("saving"):  # before anything that can still fail: training is what took long
        save(model, directory / records.ADAPTER)
    with phase("evaluation"):
        scores, rows = score_split(config, model, data.evaluation, encoded.evaluation, tokenizer)
    record["data"]["scoring"] = scores.record()
    with phase("saving"):
        records.write_jsonl_atomic(directory / records.PREDICTIONS, rows)
    with phase("evaluation"):
        check_mixture(model, encoded.evaluation, batch, config.optim.eval_batch_size, read)  # last: it bakes
    record["flags"] = raised(rows, data.regression, read_steps(directory / records.METRICS))
    record.update(score=scores.score, metric=scores.metric, metrics=dict(scores.metrics))
    return "ok"


def _clear(directory: Path) -> None:
    """Make the run's directory, without what an earlier, unfinished run of the same identity left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (records.RESULT, records.METRICS, records.PREDICTIONS, records.ERROR, libraries.FILE):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / records.ADAPTER, ignore_errors=True)
