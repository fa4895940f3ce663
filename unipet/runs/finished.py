"""Evaluating a finished run again, from its saved adapter, and comparing the score with its record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs import record_files as records
from unipet.runs.evaluation_sets import evaluate_sets
from unipet.runs.expert_report import ExpertReport
from unipet.runs.record import EvaluationSet, Record

if TYPE_CHECKING:
    from unipet.tasks import Encoded, TaskData


def evaluate(directory: str | Path, experts: bool = False) -> dict[str, Any]:
    """Load a finished run's base model and adapter, evaluate again, and compare the score with the record.

    Returns `{"run_id", "directory", "metric", "score", "recorded", "difference", "reproduced", "metrics", "examples"}`;
    `reproduced` means that both scores agree to six decimals, and so do those of all other evaluation sets, which are in
    `evaluation_sets`. With `experts`, the experts of the run's mixtures are compared as
    well and the comparison is written into the record; it is returned under `mixture`. Raises `UnipetError` if the directory is
    not that of a finished run, or if the data have changed since.
    """
    import torch

    from unipet.adaptation.checkpoint import load
    from unipet.runs.base_model import load_base_model_of
    from unipet.tasks import cache_directory, encode, load_task
    from unipet.training.evaluation import score_split

    directory = Path(directory)
    if not (directory / records.RESULT).is_file():
        raise UnipetError(f"{directory}: not the directory of a run (no {records.RESULT}).")
    record = records.read_record(directory / records.RESULT)
    if record.status != "ok" or record.score is None:
        raise UnipetError(f"{directory}: the run's status is {record.status!r}, only finished runs can be evaluated.")
    config = records.run_config(directory, record)
    data = load_task(config.task)
    if data.fingerprint != record.data.fingerprint:
        raise UnipetError(
            f"{directory}: the data of task {config.task.name} are not those of the run: {data.source} has fingerprint "
            f"{data.fingerprint}, the run saw {record.data.source} with {record.data.fingerprint}."
        )
    model, tokenizer = load_base_model_of(config, record)
    load(model, directory / records.ADAPTER)
    encoded = encode(data, tokenizer, config.task, cache_directory(config.runs_dir))
    model.to("cuda:0" if torch.cuda.is_available() else "cpu")
    examples, split = (getattr(each, config.trial.scored_on) for each in (data, encoded))
    scores, _ = score_split(config, model, examples, split, tokenizer)
    sets = evaluate_sets(config, model, data, encoded, tokenizer, scores, None)
    difference = scores.score - record.score
    recorded = record.evaluation_sets
    apart = [difference, *(_apart(one, recorded.get(name)) for name, one in sets.items())]
    compared = _compared(directory, record, config, model, data, encoded, tokenizer) if experts else {}
    return {
        "run_id": record.run_id,
        "directory": str(directory),
        "metric": scores.metric,
        "score": scores.score,
        "recorded": record.score,
        "difference": difference,
        "reproduced": all(abs(each) < 5e-7 for each in apart),
        "metrics": dict(scores.metrics),
        "examples": len(examples),
        **({"evaluation_sets": {name: one.to_dict() for name, one in sets.items()}} if sets else {}),
        **compared,
    }


def _apart(now: EvaluationSet, before: EvaluationSet | None) -> float:
    """The difference of a set's scores; infinite where the record has none."""
    if now.score is None or before is None or before.score is None:
        return math.inf
    return now.score - before.score


def _compared(
    directory: Path, record: Record, config: RunConfig, model: Any, data: TaskData, encoded: Encoded, tokenizer: Any
) -> dict[str, Any]:
    """The comparison of a run's experts, which its record holds from now on. Raises `UnipetError` where it has none."""
    from unipet.adaptation.reducing import experts_of
    from unipet.training.expert_comparison import compare, similarities

    if experts_of(model) == 0:
        raise UnipetError(
            f"{directory}: no insertion of method {record.method!r} has a mixture, so there are no experts."
        )
    before = (record.mixture or ExpertReport()).to_dict()
    found = {
        "similarity": similarities(model),
        **compare(config, model, data, encoded, tokenizer),
        "not_compared": None,
    }
    record.mixture = ExpertReport.from_dict(before | found)
    records.write_record(directory / records.RESULT, record)
    return {"mixture": record.mixture.to_dict()}
