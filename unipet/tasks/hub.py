"""Rows from the Hugging Face hub, through `datasets`; code of a data set is never run."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks.columns import answer_columns, text_columns, wanted
from unipet.tasks.kinds import KINDS
from unipet.tasks.rows import Row, RowReader

# MNLI calls its validation split so; its files in JSON lines are plain validation.jsonl.
OTHER_NAMES = {"validation": "validation_matched"}


def read_hub(task: TaskConfig, *wanted_splits: tuple[str, bool]) -> list[list[Row]]:
    """The rows of some splits of `task.hub`: (name, whether it is an evaluation split) each.

    Raises one UnipetError when it cannot be had, or has bad rows.
    """
    splits = _download(task)
    return [
        _rows(task, *_split(task, splits, name, evaluation), RowReader(task, name, evaluation))
        for name, evaluation in wanted_splits
    ]


def read_hidden(task: TaskConfig, split: str) -> list[Row]:
    """The rows of a split without answers: "test", or "ax/test" for a split of another subset."""
    subset, _, name = split.rpartition("/")
    task = replace(task, subset=subset or task.subset)
    return _rows(task, *_split(task, _download(task), name, True), RowReader(task, name, True, hidden=True))


def _split(task: TaskConfig, splits: Any, split: str, evaluation: bool) -> tuple[Any, str]:
    name = split if split in splits else OTHER_NAMES.get(split, split)
    if name not in splits:
        found = sorted(map(str, splits))
        key = "evaluation_split" if evaluation else "train_split"
        raise UnipetError(
            f"task.{key}: {_address(task)} has no split {name!r}; it has {', '.join(found)}.{nearest(name, found)}"
        )
    return splits[name], name


def _download(task: TaskConfig) -> Any:
    instead = (
        f"Or give the examples as JSON lines: task.data_dir=DIR with {task.train_split}.jsonl and "
        f"{task.evaluation_split}.jsonl (columns: {wanted(task)})."
    )
    try:
        import datasets
    except ImportError as error:
        raise UnipetError(
            f"task.hub: {task.hub} needs the package `datasets` (pip install datasets). {instead}"
        ) from error
    log = logging.getLogger("huggingface_hub")  # its warnings about every retry would bury the one error below
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return datasets.load_dataset(task.hub, task.subset, revision=task.revision)
    except Exception as error:  # datasets and its http clients raise many kinds: offline, unknown, forbidden, malformed
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnipetError(
            f"task.hub: cannot load {_address(task)} ({reason}). Check the network, task.hub, task.subset and "
            f"task.revision. {instead}"
        ) from error
    finally:
        log.setLevel(level)


def _rows(task: TaskConfig, table: Any, split: str, reader: RowReader) -> list[Row]:
    if any("." in theirs for theirs in task.rename):
        table = table.flatten()  # translation.en is a column of its own then
    source = {ours: theirs for theirs, ours in task.rename.items()}
    answers = [] if reader.hidden else answer_columns(task, reader.evaluation)
    there = [column for column in answers if source.get(column, column) in table.column_names]
    names = {source.get(column, column): column for column in (*text_columns(task), *(there or answers[:1]))}
    for theirs, ours in names.items():
        if theirs not in table.column_names:
            raise UnipetError(
                f"task.rename: {_address(task)}, split {split!r}, has no column {theirs!r} (for {ours!r}); it has "
                f"{', '.join(table.column_names)}.{nearest(theirs, table.column_names)}"
            )
    columns = {ours: list(table[theirs]) for theirs, ours in names.items()}
    if task.label in columns and KINDS[task.kind].answer == "index":
        columns[task.label] = _label_names(task, table, source.get(task.label, task.label), columns[task.label])
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        reader.add(dict(zip(columns, values, strict=True)), f"{_address(task)}, split {split!r}, row {i}")
    return reader.finished(f"task.hub: {_address(task)} has an empty split {split!r}.")


def _label_names(task: TaskConfig, table: Any, column: str, values: list[Any]) -> list[Any]:
    """By name where the hub has names: its order of labels need not be ours (trec's is not). -1 stays for the reader."""
    names = getattr(table.features[column], "names", None)
    if names is None or -1 in values:
        return values
    if set(names) != set(task.labels):
        raise UnipetError(f"task.labels: {list(task.labels)} given, but {_address(task)} has the labels {list(names)}.")
    return [names[value] if isinstance(value, int) else value for value in values]


def _address(task: TaskConfig) -> str:
    return "/".join(name for name in (task.hub, task.subset) if name)


def hub_source(task: TaskConfig) -> str:
    """For the record: "hub:nyu-mll/glue/sst2@<revision>"."""
    return f"hub:{_address(task)}@{task.revision or 'main'}"
