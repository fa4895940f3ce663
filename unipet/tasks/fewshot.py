"""Few-shot training sets: K examples of each label, drawn with a seed or read from published files (LM-BFF, Gao et al. 2021).

Every split seed is another training set. Runs of several methods on the same splits are paired in a comparison.
"""

from __future__ import annotations

from random import Random

from unipet.config import TaskConfig
from unipet.errors import UnipetError, not_allowed
from unipet.tasks.kinds import KINDS
from unipet.tasks.rows import Row

SAMPLE, FILES = "sample", "files"


def check_shots(task: TaskConfig) -> None:
    """Raise UnipetError for keys of few-shot training that do not go together."""
    if task.shots is None:
        if task.selection == "shots":
            raise UnipetError("task.selection=shots: needs task.shots, the number of examples of each label.")
        if task.shots_from == FILES:
            raise UnipetError("task.shots_from=files: needs task.shots, which the files' names contain.")
        return
    if KINDS[task.kind].answer != "index":
        raise UnipetError(
            f"task.shots: {task.shots} given, but task.kind={task.kind} has no labels to take equally many examples of. Use "
            "task.max_train."
        )
    if task.max_train is not None:
        raise UnipetError(
            f"task.max_train: {task.max_train} given beside task.shots={task.shots}. Set one of them to null."
        )
    if task.shots_from == FILES and task.data_dir is None:
        raise UnipetError(
            f"task.shots_from=files: needs task.data_dir=DIR, with DIR/{split_file(task, 'train')}.jsonl. "
            "task.shots_from=sample draws from the training split instead."
        )
    if task.shots_from == FILES and task.selection == "train_holdout":
        raise not_allowed("task.selection", task.selection, "none, shots or validation with task.shots_from=files")


def split_file(task: TaskConfig, part: str) -> str:
    """The split that a published sample is, `part` being "train" or "dev": fewshot/k16_seed13_train."""
    return f"fewshot/k{task.shots}_seed{task.split_seed}_{part}"


def draw(rows: list[Row], task: TaskConfig, selection: bool) -> tuple[list[Row], list[Row]]:
    """`task.shots` training examples of each label, and as many others for selection if asked, in the order of the data. A
    smaller sample of one seed is part of a larger one, without selection.

    Raises UnipetError for a label with too few examples.
    """
    assert task.shots is not None
    by_label: dict[int, list[int]] = {index: [] for index in range(len(task.labels))}
    for i, row in enumerate(rows):
        by_label[row["label"]].append(i)
    train, held = set[int](), set[int]()
    for index, own in by_label.items():
        needed = task.shots * (1 + selection)
        if len(own) < needed:
            what = (
                f"{needed} examples ({task.shots} for training and {task.shots} for selection)" if selection else needed
            )
            raise UnipetError(
                f"task.shots: {task.shots} given; label {task.labels[index]!r} has {len(own)} training examples of the "
                f"{what} that it needs."
            )
        Random(f"shots {task.split_seed} {index}").shuffle(own)
        train.update(own[: task.shots])
        held.update(own[task.shots : needed])
    return [rows[i] for i in sorted(train)], [rows[i] for i in sorted(held)]


def demonstrated(rows: list[Row], train: list[Row], task: TaskConfig) -> list[Row]:
    """`rows` with the demonstrations in the context of each: `task.demonstrations` training examples of each label, the same
    for every row, drawn with the split seed; a row that is among them has the next one in its own place.

    Raises UnipetError for a label with too few training examples.
    """
    if task.demonstrations == 0:
        return rows
    candidates = []
    for index, name in enumerate(task.labels):
        own = [row for row in train if row["label"] == index]
        if len(own) <= task.demonstrations:
            raise UnipetError(
                f"task.demonstrations: {task.demonstrations} given; label {name!r} has {len(own)} training examples, and one "
                "more than the demonstrations is needed."
            )
        Random(f"demonstrations {task.split_seed} {index}").shuffle(own)
        candidates.append(own[: task.demonstrations + 1])

    def shown(row: Row) -> list[tuple[list[str], int]]:
        chosen = [[each for each in own if each is not row][: task.demonstrations] for own in candidates]
        return [(each["text"], each["label"]) for one_of_each in zip(*chosen, strict=True) for each in one_of_each]

    return [{**row, "demonstrations": shown(row)} for row in rows]
