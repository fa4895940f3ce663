"""Tasks: where examples come from, how they become batches, how answers are scored."""

from unipet.output.cache_place import cache_directory
from unipet.tasks.check import check_task
from unipet.tasks.collate import Collate, collate, left_padded
from unipet.tasks.encode import encode
from unipet.tasks.encoded import Encoded, EncodedRows
from unipet.tasks.evaluation_sets import other_sets
from unipet.tasks.kinds import KINDS, Kind, input_length, kind_of
from unipet.tasks.load import TaskData, load_hidden, load_task
from unipet.tasks.readout import Readout, answers_in, readout
from unipet.tasks.readout import rows as read_rows
from unipet.tasks.rows import Row
from unipet.tasks.scoring import METRICS, Scores, score_predictions, score_tags, score_texts
from unipet.tasks.selection import LOSS, selection_metric

__all__ = [
    "KINDS",
    "LOSS",
    "METRICS",
    "Collate",
    "Encoded",
    "EncodedRows",
    "Kind",
    "Readout",
    "Row",
    "Scores",
    "TaskData",
    "answers_in",
    "cache_directory",
    "check_task",
    "collate",
    "encode",
    "input_length",
    "kind_of",
    "left_padded",
    "load_hidden",
    "load_task",
    "other_sets",
    "read_rows",
    "readout",
    "score_predictions",
    "score_tags",
    "score_texts",
    "selection_metric",
]
