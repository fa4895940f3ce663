"""The sets that a run is evaluated on beside the reported one (`task.evaluation_sets`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.config import RunConfig
from unipet.runs.record import EvaluationSet
from unipet.runs.record_files import PREDICTIONS, PREDICTIONS_OF, write_jsonl_atomic

if TYPE_CHECKING:
    from unipet.tasks import Encoded, Scores, TaskData


def evaluate_sets(
    config: RunConfig,
    model: Any,
    data: TaskData,
    encoded: Encoded,
    tokenizer: Any,
    reported: Scores,
    directory: Path | None,
) -> dict[str, EvaluationSet]:
    """The scores of all sets by name, the reported one's first; {} where there is one set alone. Predictions of the others are
    written to `directory`, unless that is None. A trial is scored on none of them."""
    from unipet.training.evaluation import score_split

    task = config.task
    if not data.others or config.trial.scored_on != "evaluation":
        return {}
    found = {str(task.reported_set): _set(data.splits["evaluation"], len(data.evaluation), reported, PREDICTIONS)}
    found[str(task.reported_set)].reported = True
    for name, rows in data.others.items():
        scores, lines = score_split(config, model, rows, encoded.others[name], tokenizer)
        file = PREDICTIONS_OF.format(name)
        if directory is not None:
            write_jsonl_atomic(directory / file, lines)
        found[name] = _set(task.evaluation_sets[name], len(rows), scores, file)
    return found


def _set(split: str, examples: int, scores: Scores, file: str) -> EvaluationSet:
    return EvaluationSet(
        split=split, examples=examples, score=scores.score, metrics=dict(scores.metrics), predictions=file
    )
