"""Tasks: where examples come from, how they become batches, how answers are scored."""

from unipet.tasks.check import check_task
from unipet.tasks.encode import Encoded, EncodedRows, collate, encode
from unipet.tasks.load import TaskData, load_task
from unipet.tasks.metrics import Scores, score_predictions

__all__ = [
    "Encoded",
    "EncodedRows",
    "Scores",
    "TaskData",
    "check_task",
    "collate",
    "encode",
    "load_task",
    "score_predictions",
]
