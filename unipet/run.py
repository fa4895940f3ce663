"""The story of one run, callable from Python: `run(config)` trains, evaluates and records.

`prepare` does everything that a mistake of the user can break and writes nothing: it raises `UnipetError`. `execute`
does the work in the run's directory: whatever breaks there becomes a record with status "failed".
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet import record as records
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.reevaluation import evaluate as evaluate
from unipet.yaml_reader import write_yaml

if TYPE_CHECKING:
    from unipet.budget.parameters import ParameterFit
    from unipet.tasks import TaskData
    from unipet.tracking import Tracker


@dataclass(frozen=True)
class Prepared:
    """A run whose configuration, data and base model were found to fit together; nothing is written yet."""

    config: RunConfig  # the method spelled out in full
    fit: ParameterFit  # the method as the budget leaves it
    data: TaskData
    run_id: str
    directory: Path


def run(config: RunConfig) -> dict[str, Any]:
    """Train, evaluate and record one run, and return its record (the content of `result.json`).

    A finished run (status "ok") of the same `run_id` and the same data is not repeated unless `config.rerun` is set:
    its record is returned. A run that fails on the way returns a record with status "failed" and `error`.
    Raises `UnipetError`, with nothing written, for mistakes that `prepare` finds. KeyboardInterrupt passes through
    after the record says "interrupted".
    """
    prepared = prepare(config)
    finished = None if config.rerun else finished_record(prepared)
    if finished is not None:
        print(f"finished before, not run again (rerun=true does): {prepared.directory}")
        return finished
    return execute(prepared)


def prepare(config: RunConfig) -> Prepared:
    """Check everything that can be checked without training: settings, method, task data, base model, and that the
    method's sites exist on it. Writes nothing. Raises `UnipetError` for the first mistake found."""
    from unipet.budget.parameters import fit_parameters
    from unipet.imports import import_modules
    from unipet.library import load_method
    from unipet.models import skeleton
    from unipet.settings import check_settings
    from unipet.tasks import input_length, load_task
    from unipet.tracking import check_tracking

    check_settings(config)
    check_tracking(config.tracking)
    import_modules(config.imports)
    method = load_method(config.method)
    config = replace(config, method=method.to_dict())
    data = load_task(config.task)
    # A site that matches nothing fails here, without weights.
    built = skeleton(config.model, config.task.kind)
    fit = fit_parameters(method, built, config.budget, config.model.sites, input_length(config.task))
    return Prepared(config, fit, data, records.run_id(config), records.run_dir(config))


def finished_record(prepared: Prepared) -> dict[str, Any] | None:
    """The record of the same run on the same data, if there is a finished one."""
    path = prepared.directory / records.RESULT
    if not path.is_file():
        return None
    record = records.read_record(path)
    same = record["run_id"] == prepared.run_id and record["data"]["fingerprint"] == prepared.data.fingerprint
    return record if record["status"] == "ok" and same else None


def execute(prepared: Prepared) -> dict[str, Any]:
    """Do the run in its directory and return the record; see `run` for what becomes of errors."""
    from unipet.memory import out_of_memory
    from unipet.tracking import open_tracker

    config, directory = prepared.config, prepared.directory
    started = time.perf_counter()
    record = records.blank_record(config, prepared.fit.method.name, prepared.run_id)
    record["data"], record["fitted"] = prepared.data.record(), prepared.fit.record()
    _clear(directory)
    resolved = records.resolved(config)
    fitted = "".join(f"# fitted to the budget: {key}={size}\n" for key, size in (prepared.fit.sizes or {}).items())
    records.write_text_atomic(directory / records.CONFIG, fitted + write_yaml(resolved))
    records.write_json_atomic(directory / records.RESULT, record)
    tags = [f"{key}:{record[key]}" for key in ("method", "task", "model", "budget")]
    tracker = open_tracker(config.tracking, prepared.run_id, directory.name.rsplit("-", 1)[0], tags, resolved)
    try:
        if prepared.fit.why_not is None:
            record["status"] = _work(prepared, record, tracker)
        else:
            record["params"] = prepared.fit.report.to_dict()["params"]
            record.update(status="skipped", reason=prepared.fit.why_not)
    except KeyboardInterrupt:
        record.update(status="failed", error={"type": "KeyboardInterrupt", "message": "interrupted"})
        raise
    except Exception as error:
        if (reason := out_of_memory(error)) is None:
            record.update(status="failed", error=_explain(error, directory), **_stopped(error))
        else:  # a result, and never a retry with other settings
            record.update(status="exceeded", stopped_by="out_of_memory", reason=reason)
    finally:
        record["time"]["total_s"] = time.perf_counter() - started
        record["finished"] = records.now()
        records.write_json_atomic(directory / records.RESULT, record)
        tracker.finish(record, record["status"])
    return record


def _work(prepared: Prepared, record: dict[str, Any], tracker: Tracker) -> str:
    """Seed, base model, memory fit, insertions, training, evaluation, saving: fills `record` as results become known.
    Returns the status: "ok", or "skipped" where the budget leaves too little memory."""
    import torch
    import transformers

    from unipet.adapting import adapt
    from unipet.budget.memory_fit import fit_run
    from unipet.callbacks import Best
    from unipet.checkpoint import save
    from unipet.evaluation import check_lengths, check_mixture, score_split, selection_score
    from unipet.memory import PeakMemory, limited
    from unipet.models import load_base_model
    from unipet.tasks import cache_directory, collate, encode, readout, selection_metric
    from unipet.training import train

    config, method, data, directory = prepared.config, prepared.fit.method, prepared.data, prepared.directory
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    transformers.set_seed(config.seed)  # before the model: the new head and the insertions are drawn from it
    model, tokenizer = load_base_model(config.model, data.labels, data.regression, config.task.kind)
    encoded = encode(data, tokenizer, config.task, cache_directory(config.runs_dir))
    record["data"]["truncated"] = encoded.truncated  # share of examples that a length limit cut
    warnings = encoded.warnings(config.task.max_target)
    batch, read = collate(tokenizer), readout(config.task, tokenizer)
    fit = fit_run(config, model, method, encoded.train, batch, read, data.regression, device)
    warnings += [fit.warning] if fit.warning else []
    record["fitted"].update(fit.record())
    record["memory"]["predicted_gib"] = fit.predicted_gib
    record["data"]["warnings"] = warnings
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    adapted = adapt(model, method, config.model.sites).to_dict()
    record["params"], record["insertions"] = adapted["params"], adapted["insertions"]
    if fit.why_not is not None:
        record["reason"] = fit.why_not
        return "skipped"
    check_lengths(encoded, model, config.task)
    memory = PeakMemory(device)
    best = Best(model, selection_score(config, model, data, encoded, tokenizer)) if encoded.selection else None
    with (
        limited(device, config.budget.peak_memory_gib),
        open(directory / records.METRICS, "w", encoding="utf-8") as metrics,
    ):
        trained = train(
            *(model, method.objective, encoded.train, batch, data.regression, config, directory, metrics, tracker.log),
            read=read,
            best=best,
            micro_batch=fit.micro_batch,
            checkpointing=fit.checkpointing,
        )
    if best is not None:
        scored = {str(step): score for step, score in best.scores.items()}  # JSON has no other keys
        record["data"]["selection"].update(metric=selection_metric(config.task), step=best.restore(), scores=scored)
    record["memory"].update(memory.read())
    record["stopped_by"] = trained.stopped_by
    for row in record["insertions"]:  # experts that no step was routed to, say: a warning to the reader
        row["untrained"] = [name for name in trained.untrained if name.startswith(f"{row['name']}/")]
    record["time"].update(
        train_s=trained.seconds,
        step_ms=1000 * trained.seconds / trained.steps,
        steps=trained.steps,
        tokens_per_s=trained.tokens / trained.seconds,
    )
    scores, rows = score_split(config, model, data.evaluation, encoded.evaluation, tokenizer)
    record["data"]["scoring"] = scores.record()
    save(model, directory / records.ADAPTER)
    records.write_jsonl_atomic(directory / records.PREDICTIONS, rows)
    check_mixture(model, encoded.evaluation, batch, config.optim.eval_batch_size, read)  # last: it bakes
    record.update(score=scores.score, metric=scores.metric, metrics=dict(scores.metrics))
    return "ok"


def _clear(directory: Path) -> None:
    """Make the run's directory, without what an earlier, unfinished run of the same identity left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (records.RESULT, records.METRICS, records.PREDICTIONS, records.ERROR):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / records.ADAPTER, ignore_errors=True)


def _explain(error: Exception, directory: Path) -> dict[str, str]:
    """`error` of the record. What the user can mend says so itself; anything else leaves its traceback in error.txt."""
    if isinstance(error, UnipetError):
        return {"type": "UnipetError", "message": str(error)}
    records.write_text_atomic(directory / records.ERROR, "".join(traceback.format_exception(error)))
    return {"type": type(error).__name__, "message": f"{error or '(no message)'} (traceback: {records.ERROR})"}


def _stopped(error: Exception) -> dict[str, str]:
    from unipet.training import Diverged

    return {"stopped_by": "nan"} if isinstance(error, Diverged) else {}
