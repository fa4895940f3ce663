"""Rows from the Hugging Face hub, through `datasets`; code of a data set is never run."""

from __future__ import annotations

import logging
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks.rows import Row, RowReader

# MNLI calls its validation split so; its files in JSON lines are plain validation.jsonl.
OTHER_NAMES = {"validation": "validation_matched"}


def read_hub(task: TaskConfig) -> tuple[list[Row], list[Row]]:
    """The training and evaluation rows of `task.hub`. Raises one UnipetError when it cannot be had, or has bad rows."""
    splits = _download(task)
    return _rows(task, splits, "train_split"), _rows(task, splits, "evaluation_split")


def _download(task: TaskConfig) -> Any:
    instead = (
        f"Or give the examples as JSON lines: task.data_dir=DIR with {task.train_split}.jsonl and "
        f"{task.evaluation_split}.jsonl (columns: {', '.join([*task.text, task.label])})."
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


def _rows(task: TaskConfig, splits: Any, key: str) -> list[Row]:
    split = getattr(task, key)
    if split not in splits:
        split = OTHER_NAMES.get(split, split)
    if split not in splits:
        found = sorted(map(str, splits))
        raise UnipetError(
            f"task.{key}: {_address(task)} has no split {split!r}; it has {', '.join(found)}.{nearest(split, found)}"
        )
    table = splits[split]
    source = {ours: theirs for theirs, ours in task.rename.items()}
    names = {source.get(column, column): column for column in (*task.text, task.label)}
    for theirs, ours in names.items():
        if theirs not in table.column_names:
            raise UnipetError(
                f"task.rename: {_address(task)}, split {split!r}, has no column {theirs!r} (for {ours!r}); it has "
                f"{', '.join(table.column_names)}.{nearest(theirs, table.column_names)}"
            )
    columns = {ours: list(table[theirs]) for theirs, ours in names.items()}
    columns[task.label] = _label_names(task, table, source.get(task.label, task.label), columns[task.label])
    reader = RowReader(task, split)
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        reader.add(dict(zip(columns, values, strict=True)), f"{_address(task)}, split {split!r}, row {i}")
    if not reader.rows:
        raise UnipetError(f"task.{key}: {_address(task)} has an empty split {split!r}.")
    return reader.rows


def _label_names(task: TaskConfig, table: Any, column: str, values: list[Any]) -> list[Any]:
    """By name where the hub has names: its order of labels need not be ours (trec's is not). -1 stays for the reader."""
    names = getattr(table.features[column], "names", None)
    if task.kind == "regression" or names is None or -1 in values:
        return values
    if set(names) != set(task.labels):
        raise UnipetError(f"task.labels: {list(task.labels)} given, but {_address(task)} has the labels {list(names)}.")
    return [names[value] if isinstance(value, int) else value for value in values]


def _address(task: TaskConfig) -> str:
    return "/".join(name for name in (task.hub, task.subset) if name)


def hub_source(task: TaskConfig) -> str:
    """For the record: "hub:nyu-mll/glue/sst2@<revision>"."""
    return f"hub:{_address(task)}@{task.revision or 'main'}"
