"""Reading rows from the Hugging Face hub with `datasets`. Code of a data set is never run."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks.columns import answer_columns, text_columns, wanted
from unipet.tasks.rows import RowReader, SplitRows

# The hub's names of MNLI's validation splits; local files are called validation.jsonl.
OTHER_NAMES = {"validation": "validation_matched"}


def read_hub(task: TaskConfig, *wanted_splits: tuple[str, bool]) -> list[SplitRows]:
    """The rows of several splits of `task.hub`, each given as (name, whether it is an evaluation split).

    Raises UnipetError if the data set cannot be loaded, or has invalid rows.
    """
    splits = _download(task)
    return [_rows(task, *_split(task, splits, name, evaluation), evaluation) for name, evaluation in wanted_splits]


def read_hidden(task: TaskConfig, split: str) -> SplitRows:
    """The rows of a split without answers, such as "test", or "ax/test" for a split of another subset."""
    subset, _, name = split.rpartition("/")
    task = replace(task, subset=subset or task.subset)
    return _rows(task, *_split(task, _download(task), name, True), True, hidden=True)


def _split(task: TaskConfig, splits: Any, split: str, evaluation: bool) -> tuple[Any, str, str]:
    """A split's table, its name on the hub, and its name in the configuration."""
    name = split if split in splits else OTHER_NAMES.get(split, split)
    if name not in splits:
        found = sorted(map(str, splits))
        key = "evaluation_split" if evaluation else "train_split"
        raise UnipetError(
            f"task.{key}: {_address(task)} has no split {name!r}; it has {', '.join(found)}.{nearest(name, found)}"
        )
    return splits[name], name, split


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
    log = logging.getLogger(
        "huggingface_hub"
    )  # without its warnings about every retry, the error below is easier to find
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return datasets.load_dataset(task.hub, task.subset, revision=task.revision)
    except Exception as error:  # datasets and its http clients raise many types: offline, unknown, forbidden, malformed
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnipetError(
            f"task.hub: cannot load {_address(task)} ({reason}). Check the network, task.hub, task.subset and "
            f"task.revision. {instead}"
        ) from error
    finally:
        log.setLevel(level)


def _rows(
    task: TaskConfig, table: Any, theirs_called: str, called: str, evaluation: bool, hidden: bool = False
) -> SplitRows:
    """The rows of one split, which is named `called` in the configuration and in ids, and `theirs_called` on the hub."""
    place = f"{_address(task)}, split {theirs_called!r}"
    if any("." in theirs for theirs in task.rename):
        table = table.flatten()  # turns fields such as translation.en into columns
    source = {ours: theirs for theirs, ours in task.rename.items()}
    answers = [] if hidden else answer_columns(task, evaluation)
    there = [column for column in answers if task.label_columns or source.get(column, column) in table.column_names]
    names = {source.get(column, column): column for column in (*text_columns(task), *(there or answers[:1]))}
    for theirs, ours in names.items():
        if theirs not in table.column_names:
            raise UnipetError(
                f"task.rename: {place}, has no column {theirs!r:.200} (for {ours!r:.200}); it has "
                f"{', '.join(table.column_names)}.{nearest(theirs, table.column_names)}"
            )
    declared = table.features.to_dict()
    features = {task.label: declared.get(source.get(task.label, task.label))}
    reader = RowReader(task, called, place, evaluation, hidden, features)
    columns = {ours: list(table[theirs]) for theirs, ours in names.items()}
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        reader.add(dict(zip(columns, values, strict=True)), f"{place}, row {i}")
    return reader.finished()


def _address(task: TaskConfig) -> str:
    return "/".join(name for name in (task.hub, task.subset) if name)


def hub_source(task: TaskConfig) -> str:
    """The source for the record, such as "hub:nyu-mll/glue/sst2@<revision>"."""
    return f"hub:{_address(task)}@{task.revision or 'main'}"
