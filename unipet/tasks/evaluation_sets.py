"""Several evaluation sets of one task: which one is reported, and which are evaluated beside it."""

from __future__ import annotations

from unipet.config import TaskConfig
from unipet.errors import UnipetError, unknown
from unipet.output.files import file_name

DEFAULT = "validation"  # of task.evaluation_split


def reported_split(task: TaskConfig) -> str:
    """The split whose score is the run's."""
    return task.evaluation_sets[task.reported_set] if task.reported_set is not None else task.evaluation_split


def other_sets(task: TaskConfig) -> dict[str, str]:
    """Name -> split, of the sets that are evaluated beside the reported one."""
    return {name: split for name, split in task.evaluation_sets.items() if name != task.reported_set}


def check_evaluation_sets(task: TaskConfig) -> None:
    """Raise UnipetError for sets of which none, or more than one, is said to be reported, and for a split that is two sets or
    chooses the checkpoint."""
    sets, key = task.evaluation_sets, "task.evaluation_sets"
    if not sets:
        if task.reported_set is not None:
            raise UnipetError(
                f"task.reported_set: {task.reported_set!r} given without sets. Give them, for example "
                f"{key}={{{task.reported_set}: {task.evaluation_split}, other: test}}, or task.reported_set=null."
            )
        return
    names = ", ".join(sets)
    if task.reported_set is None:
        raise UnipetError(
            f"{key}: {names} given, but not which of them is the reported score. Say it: task.reported_set={next(iter(sets))}."
        )
    if task.reported_set not in sets:
        raise unknown("task.reported_set", task.reported_set, sets)
    for name, split in sets.items():
        file_name(name, f"{key}: the name of a set")
        for part in split.split("/"):
            file_name(part, f"{key}.{name}")
    if len({name.casefold() for name in sets}) < len(sets):
        raise UnipetError(f"{key}: {names}: two names differ only in upper and lower case. Rename one.")
    twice = next((split for split in sets.values() if list(sets.values()).count(split) > 1), None)
    if twice is not None:
        raise UnipetError(f"{key}: the split {twice!r} is two sets. Leave one out.")
    if task.evaluation_split not in (DEFAULT, reported_split(task)):
        raise UnipetError(
            f"task.evaluation_split={task.evaluation_split}: but task.reported_set={task.reported_set} says that the split "
            f"{reported_split(task)!r} is reported. Leave task.evaluation_split out."
        )
    if task.selection == "validation" and task.selection_split in sets.values():
        raise UnipetError(
            f"task.selection=validation: task.selection_split={task.selection_split} is one of {key}, so the checkpoint would be "
            "selected by a score that is reported. Use task.selection=train_holdout."
        )
    if task.generator is not None and task.data_dir is None:
        raise UnipetError(f"{key}: {names} given, but a synthetic task (task.generator) has one set. Use {key}={{}}.")
