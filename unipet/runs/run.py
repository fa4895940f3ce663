"""One run from start to end: `run(config)` trains, evaluates and writes the record.

`prepare` (prepare.py) checks everything that the user can get wrong. It writes nothing and raises `UnipetError`.
`execute` does the work in the run's directory. An error there becomes a record with status "failed".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.calculus.yaml_reader import write_yaml
from unipet.config import RunConfig
from unipet.output import libraries
from unipet.output.stopwatch import Stopwatch, importing, phase, timed
from unipet.runs import record_files as records
from unipet.runs.certify import certify, frozen_marks, put_beside
from unipet.runs.comparable import comparable
from unipet.runs.device_share import Share
from unipet.runs.devices import check_devices, warning_without_gpus
from unipet.runs.endings import failed, interrupted
from unipet.runs.evaluation_sets import evaluate_sets
from unipet.runs.expert_report import expert_report
from unipet.runs.finished import evaluate as evaluate
from unipet.runs.other_devices import other_devices
from unipet.runs.prepare import Prepared, finished_record, prepare
from unipet.runs.record import (
    Compiled,
    Data,
    Fitted,
    Frozen,
    InsertionRow,
    Memory,
    Params,
    Record,
    Scoring,
    blank_record,
)  # fmt: skip
from unipet.runs.resumable import done_with, finished_before, resume_points, resumed_before
from unipet.runs.run_directory import checksums, clear, locked, settle
from unipet.runs.shared import Shared
from unipet.runs.teachers import load_teachers
from unipet.runs.uploading import mark
from unipet.runs.versions import now
from unipet.training.stopping import heeding_signals

if TYPE_CHECKING:
    from unipet.runs.tracking import Tracker


def run(config: RunConfig) -> dict[str, Any]:
    """Train, evaluate and record one run, and return its record (the content of `result.json`).

    If a run with the same `run_id` has finished (status "ok") and all its files are present, its record is returned and
    nothing is run, unless `config.rerun` is set. A run that fails returns a record with status "failed" and `error`.
    Raises `UnipetError` for a mistake that `prepare` finds, before anything is written, and if another process is working
    on the same run. SIGTERM, SIGINT and SIGHUP end a run after the current step, and KeyboardInterrupt is raised again after
    "interrupted" has been written to the record. A run that was interrupted or killed continues from its last resume point.
    """
    return perform(config).record.to_dict()


@dataclass(frozen=True)
class Done:
    """A run that has ended, and the directory of its record: the run's own, or that of a repetition that failed."""

    record: Record
    directory: Path


def perform(
    config: RunConfig, announce: Callable[[Path], None] = lambda directory: None, shared: Shared | None = None
) -> Done:
    """Like `run`, but returns the directory too. `announce` is called with the run's directory before work begins there.
    `shared` holds what the runs of this process have in common."""
    with timed() as watch:
        prepared = prepare(config)
        shared = Shared() if shared is None else shared
        shared.join(prepared)
        announce(prepared.directory)
        if (found := finished_before(prepared)) is not None:
            return Done(found, prepared.directory)
        check_devices(config.budget.gpus)
        with locked(prepared.directory):
            settle(prepared.directory)
            if (found := finished_before(prepared)) is not None:  # another process may have finished it meanwhile
                return Done(found, prepared.directory)
            return execute(prepared, watch, shared)


@heeding_signals()
def execute(prepared: Prepared, watch: Stopwatch, shared: Shared) -> Done:
    """Execute the run in its directory. `run` describes how errors are handled. If the directory already holds a finished result,
    the run is repeated in a subdirectory, whose files replace the earlier result once the repetition has finished. If the
    repetition fails, the earlier result stays as it was.
    """
    from unipet.runs.tracking import open_tracker

    config = prepared.config
    repeated = finished_record(prepared) is not None
    directory = prepared.directory / records.ATTEMPT if repeated else prepared.directory
    record = blank_record(config, prepared.fit.method.name, prepared.run_id)
    record.identity = prepared.content
    record.folder = os.path.relpath(Path.cwd(), prepared.directory)
    record.data, record.fitted = Data.from_dict(prepared.data.record()), Fitted.from_dict(prepared.fit.record())
    record.composition = prepared.fit.method.to_dict()
    record.resumed, record.alone = resumed_before(directory, prepared.run_id), shared.alone
    clear(directory)
    fitted = "".join(f"# fitted to the budget: {key}={size}\n" for key, size in (prepared.fit.sizes or {}).items())
    records.write_text_atomic(directory / records.CONFIG, fitted + write_yaml(prepared.resolved))
    records.write_record(directory / records.RESULT, record)
    tracker = open_tracker(config.tracking, record, prepared.resolved)
    try:
        if prepared.fit.why_not is None:
            with ExitStack() as rest:
                record.status = _work(prepared, directory, record, tracker, shared, rest)
        else:
            record.params = Params.from_dict(prepared.fit.report.to_dict()["params"])
            record.status, record.reason = "skipped", prepared.fit.why_not
        if record.status == "ok":
            record.comparable = comparable(prepared.resolved, record)
            put_beside(directory / records.ADAPTER, record)
            record.files = checksums(directory)
    except KeyboardInterrupt as end:
        shared.forget()
        interrupted(record, end, watch, directory)
        raise
    except (Exception, SystemExit) as error:  # code that a method or a task brings may call sys.exit
        shared.forget()
        failed(record, error, watch, directory)
    finally:
        record.time.phases_s = watch.seconds()
        record.time.total_s = sum(record.time.phases_s.values())
        record.finished = now()
        records.write_record(directory / records.RESULT, record)
        if record.status == "ok":
            done_with(prepared, directory)
        if messages := libraries.take_messages():
            records.write_text_atomic(directory / libraries.FILE, messages)
        settle(prepared.directory)
        done = Done(record, directory if directory.is_dir() else prepared.directory)
        if tracker.finish(record):
            mark(config.tracking, record, done.directory)
    return done


def _work(
    prepared: Prepared, directory: Path, record: Record, tracker: Tracker, shared: Shared, rest: ExitStack
) -> str:
    """Seed, load the base model, fit memory, adapt, train, evaluate and save. Fills `record` as results become known;
    `rest` ends after it. Returns the status: "ok", or "skipped" if the run would need more memory than the budget allows."""
    with importing(last=True):
        import torch

        from unipet.adaptation.api import adapt
        from unipet.adaptation.checkpoint import save
        from unipet.runs.flags import of_parts, raised
        from unipet.runs.memory import PeakMemory, limited
        from unipet.tasks import cache_directory, collate, encode, readout, selection_metric
        from unipet.training.best import best_of
        from unipet.training.budget.memory_fit import fit_run
        from unipet.training.evaluation import score_split
        from unipet.training.history import read_steps
        from unipet.training.loop import seed_everything
        from unipet.training.positions import check_lengths
        from unipet.training.settling import settle
        from unipet.training.trainer import train

    config, method, data = prepared.config, prepared.fit.method, prepared.data
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    seed_everything(config.seed)  # before the model, because the new head and the insertions are drawn at random
    model, tokenizer = shared.load(prepared)
    encoded = encode(data, tokenizer, config.task, cache_directory(config.runs_dir))
    record.data.truncated = encoded.truncated  # the share of examples that a length limit truncated
    warnings = encoded.warnings(config.task.max_target)
    batch, read = collate(tokenizer), readout(config.task, tokenizer)
    with phase("base_model"):
        traces = shared.traces_of(prepared, device)
        fit = fit_run(config, model, prepared.fit.draft, encoded.train, batch, read, data.regression, device, traces)
        shared.keep_traces(prepared, device)
    warnings += filter(None, [fit.warning, warning_without_gpus(config.budget.gpus)])
    record.fitted = Fitted.from_dict(record.fitted.to_dict() | fit.record())
    record.memory.predicted_gib = fit.predicted_gib
    company = shared.enter(fit)
    record.data.warnings = warnings
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with phase("base_model"):
        teachers = load_teachers(method, model)
        adapted = adapt(model, method, prepared.sites).to_dict()
    record.params = Params.from_dict(adapted["params"])
    record.insertions = [InsertionRow.from_dict(row) for row in adapted["insertions"]]
    if fit.why_not is not None:
        record.reason = fit.why_not
        return "skipped"
    check_lengths(encoded, model, config.task)
    memory, before = PeakMemory(device), frozen_marks(model)
    best = best_of(config, model, data, encoded, tokenizer) if method.trains else None
    points, begin = resume_points(directory, record, fit, device, prepared.earlier_rung())
    told = (config, method, prepared.sites, data.labels, data.regression, data.class_weights, encoded.train)
    share = Share(*told, fit.micro_batch, fit.checkpointing, begin=begin)
    with (
        phase("training"),
        limited(device, config.budget.peak_memory_gib),
        open(directory / records.METRICS, "w", encoding="utf-8") as metrics,
        other_devices(share, rest) as ranks,
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
            ranks=ranks,
            company=company,
            teachers=teachers,
            class_weights=data.class_weights,
        )
    if best is not None:
        selection = record.data.selection
        selection.metric, selection.step = selection_metric(config.task), best.restore()
        selection.scores = {str(step): score for step, score in best.scores.items()}  # JSON has no other keys
    trained.experts |= settle(config, model, data, encoded, tokenizer)
    record.memory = Memory.from_dict(record.memory.to_dict() | trained.measured)
    record.stopped_by, record.frozen = trained.stopped_by, Frozen.from_dict(trained.frozen)
    record.packed = trained.packed or None
    record.compiled = None if trained.compiled is None else Compiled.from_dict(trained.compiled)
    for row in record.insertions:  # for example experts that no step was routed to
        row.untrained = [name for name in trained.untrained if name.startswith(f"{row.name}/")]
    record.time.train_s, record.time.steps = trained.seconds, trained.steps
    if trained.steps:
        record.time.step_ms = 1000 * trained.seconds / trained.steps
        record.time.tokens_per_s = trained.tokens / trained.seconds
    record.time.device_hours = config.budget.gpus * trained.seconds / 3600
    with phase("saving"):  # first, so that an error in evaluation does not lose the training
        save(model, directory / records.ADAPTER)
    examples, split = (getattr(each, config.trial.scored_on) for each in (data, encoded))
    with phase("evaluation"):
        scores, rows = score_split(config, model, examples, split, tokenizer)
        record.evaluation_sets = evaluate_sets(config, model, data, encoded, tokenizer, scores, directory)
    record.data.scoring = Scoring.from_dict(scores.record())
    with phase("saving"):
        records.write_jsonl_atomic(directory / records.PREDICTIONS, rows)
    company.writes_weights(model)
    record.mixture = expert_report(trained.experts, config, model, data, encoded, tokenizer)
    record.certificate = certify(
        model, config, encoded, split, tokenizer, directory, trained.untrained, before
    )  # takes it apart
    record.flags = [*raised(rows, data.regression, read_steps(directory / records.METRICS)), *of_parts(record)]
    shared.check(model)
    record.score, record.metric, record.metrics = scores.score, scores.metric, dict(scores.metrics)
    return "ok"
