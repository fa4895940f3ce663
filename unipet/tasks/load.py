"""Loading the examples of one run: from local files, from the hub, or generated."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.output.stopwatch import phase
from unipet.tasks.check import check_task
from unipet.tasks.class_weights import class_weights
from unipet.tasks.columns import wanted
from unipet.tasks.evaluation_sets import other_sets, reported_split
from unipet.tasks.fewshot import FILES, SAMPLE, demonstrated, draw, split_file
from unipet.tasks.files import read_files
from unipet.tasks.hub import hub_source, read_hidden, read_hub
from unipet.tasks.kinds import KINDS
from unipet.tasks.rows import Row, SplitRows
from unipet.tasks.selection import carve, protocol
from unipet.tasks.synthetic import generate

SET = "evaluation."  # then the name of a set that is evaluated beside the reported one: a part of the data
SUBSET_SEED = 20240229  # fixed and not the run's seed, so that every method and seed uses the same examples


@dataclass(frozen=True)
class TaskData:
    """Checked examples. `rows.py` describes the rows of each kind."""

    train: list[Row]
    evaluation: list[Row]
    labels: list[str]  # names in index order; empty for regression and generation
    regression: bool
    source: str  # "hub:<address>@<revision>", "files:<directory>" or "synthetic:<generator> seed <n>"
    synthetic: bool
    fingerprint: str  # hash of the labels and of every row, 16 hex digits
    pool: str | None = (
        None  # few-shot: hash of what all splits have in common, the examples drawn from and the evaluation's
    )
    shots: int | None = None  # training examples of each label
    split_seed: int | None = None  # which of the splits
    available: dict[str, int] = field(default_factory=dict)  # rows before task.max_train / task.max_evaluation
    others: dict[str, list[Row]] = field(
        default_factory=dict
    )  # name -> rows, of the sets evaluated beside `evaluation`
    selection: list[Row] = field(default_factory=list)  # the examples that choose the checkpoint; never reported
    protocol: str = "none"  # task.selection
    several: bool = False  # whether an example may have several labels, or none
    splits: dict[str, str] = field(
        default_factory=dict
    )  # "train", "evaluation", "evaluation.NAME", "selection" -> split
    dropped: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # part -> kind of gap -> rows that task.drop left out
    class_weights: list[float] = field(default_factory=list)  # of the labels in the loss; [] if they count alike
    label_order: list[int] = field(default_factory=list)  # for a hidden split that declares names in another order

    def record(self) -> dict[str, Any]:
        """Plain data, for a run's record."""
        several = self.several
        counts = Counter(
            label
            for row in self.train
            if several or isinstance(row.get("label"), int)
            for label in (row["label"] if several else [row["label"]])
        )
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "pool": self.pool,
            "shots": self.shots,
            "split_seed": self.split_seed,
            "train": len(self.train),
            "evaluation": len(self.evaluation),
            "train_available": self.available.get("train", len(self.train)),
            "evaluation_available": self.available.get("evaluation", len(self.evaluation)),
            "dropped": {part: dict(counts) for part, counts in self.dropped.items()},
            "splits": dict(self.splits),
            "synthetic": self.synthetic,
            "regression": self.regression,
            "train_labels": {name: counts[i] for i, name in enumerate(self.labels)} if counts else {},
            "selection": {"by": self.protocol, "examples": len(self.selection)},
            **(
                {"class_weights": dict(zip(self.labels, self.class_weights, strict=True))} if self.class_weights else {}
            ),
        }


@phase("data")
def load_task(task: TaskConfig) -> TaskData:
    """Check `task`, read or generate its examples, and reduce them to the requested numbers. Raises UnipetError for every
    mistake."""
    check_task(task)
    parts, source = _read(task)
    _check_orders(task, list(parts.values()))
    train, evaluation = parts["train"].rows, parts["evaluation"].rows
    selection = parts["selection"].rows if "selection" in parts else []
    chosen_by, pool = protocol(task), train
    if task.shots is not None and task.shots_from == SAMPLE:
        train, drawn = draw(train, task, chosen_by == "shots")
        selection = drawn or selection
    if chosen_by == "train_holdout":
        train, selection = carve(train, task.selection_size)
    chosen_train, chosen_evaluation = _first(train, task.max_train), _first(evaluation, task.max_evaluation)
    others = {name: _first(parts[f"{SET}{name}"].rows, task.max_evaluation) for name in other_sets(task)}
    labels = list(task.labels)
    in_common = _pool(task, pool, chosen_evaluation)
    chosen_train, chosen_evaluation, selection = (
        demonstrated(each, chosen_train, task) for each in (chosen_train, chosen_evaluation, selection)
    )
    others = {name: demonstrated(rows, chosen_train, task) for name, rows in others.items()}
    splits = {"train": chosen_train, "evaluation": chosen_evaluation}
    splits |= {f"{SET}{name}": rows for name, rows in others.items()}
    if selection:
        splits["selection"] = selection
    return TaskData(
        train=chosen_train,
        evaluation=chosen_evaluation,
        labels=labels,
        regression=task.kind == "regression",
        source=source,
        synthetic=source.startswith("synthetic:"),
        fingerprint=_fingerprint(labels, splits),
        pool=in_common,
        shots=task.shots,
        split_seed=None if task.shots is None else task.split_seed,
        available={"train": len(train) if task.shots is None else len(pool), "evaluation": len(evaluation)},
        others=others,
        selection=selection,
        protocol=chosen_by,
        splits=_splits(task),
        dropped={part: read.dropped for part, read in parts.items() if read.dropped},
        class_weights=class_weights(task, chosen_train),
        several=KINDS[task.kind].answer == "label_set",
    )


def load_hidden(task: TaskConfig, split: str) -> TaskData:
    """A split without answers, as both training and evaluation rows. Raises UnipetError if it cannot be loaded, and for a
    kind without exactly one answer per example."""
    if KINDS[task.kind].answer not in ("index", "number"):
        raise UnipetError(
            f"task.submission: task.kind={task.kind} has no submission files; one answer per row is needed."
        )
    if task.demonstrations:
        raise UnipetError("task.submission: prompts with task.demonstrations have no submission files. Use 0.")
    if task.data_dir is not None:
        read = read_files(task, split, True, hidden=True)
    elif task.hub is not None:
        read = read_hidden(task, split)
    else:
        raise UnipetError(
            f"task.submission: task {task.name} has neither task.hub nor task.data_dir to read {split} from."
        )
    return TaskData(
        read.rows,
        read.rows,
        list(task.labels),
        task.kind == "regression",
        f"hidden:{split}",
        False,
        "",
        label_order=[task.labels.index(name) for name in read.declared] if read.reordered else [],
    )


def _read(task: TaskConfig) -> tuple[dict[str, SplitRows], str]:
    """The rows of "train", "evaluation" and, with selection=validation, "selection"; and the name of the source."""
    names = _splits(task)
    splits = {"train": (names["train"], False), "evaluation": (names["evaluation"], True)}
    splits |= {part: (split, True) for part, split in names.items() if part.startswith(SET)}
    if "selection" in names and names["selection"] != names["train"]:
        splits["selection"] = (names["selection"], True)
    if task.data_dir is not None:
        return {part: read_files(task, *split) for part, split in splits.items()}, f"files:{task.data_dir}"
    if task.generator is not None:
        source = f"synthetic:{task.generator} seed {task.generator_seed}"
        made = zip(splits, generate(task), strict=False)
        return {part: SplitRows(rows, source, {}, [], False, None) for part, rows in made}, source
    if task.hub is not None:
        return dict(zip(splits, read_hub(task, *splits.values()), strict=True)), hub_source(task)
    raise UnipetError(
        f"task.data_dir: task {task.name} has neither a hub data set nor a generator, so task.data_dir=DIR is needed, "
        f"with {task.train_split}.jsonl and {task.evaluation_split}.jsonl (columns: {wanted(task)})."
    )


def _check_orders(task: TaskConfig, parts: Sequence[SplitRows]) -> None:
    """Raise UnipetError if one split declares label names in another order than task.labels, and another split has bare
    indices, which may follow the order of the first."""
    declared = next((part for part in parts if part.reordered), None)
    bare = next((part for part in parts if part.plain_index), None)
    if declared is not None and bare is not None:
        raise UnipetError(
            f"{bare.plain_index}: an index without a name, but {declared.place} declares the labels "
            f"{declared.declared}, in another order than task.labels {list(task.labels)}. Write names there, or give "
            "task.labels in the order that the indices mean."
        )


def _splits(task: TaskConfig) -> dict[str, str]:
    """The split from which each set of examples was read. What is held out, or drawn with it, belongs to the training split."""
    published = task.shots is not None and task.shots_from == FILES
    train = split_file(task, "train") if published else task.train_split
    held = split_file(task, "dev") if published else train
    selection = {"train_holdout": train, "shots": held, "validation": task.selection_split}.get(protocol(task))
    found = {"train": train, "evaluation": reported_split(task)}
    found |= {f"{SET}{name}": split for name, split in other_sets(task).items()}
    return found | ({"selection": selection} if selection else {})


def _first(rows: list[Row], count: int | None) -> list[Row]:
    """The first `count` rows of a fixed shuffle, or all if there are fewer. A smaller subset is part of a larger one."""
    if count is None or count >= len(rows):
        return rows
    return [rows[i] for i in Random(SUBSET_SEED).sample(range(len(rows)), len(rows))[:count]]


def _pool(task: TaskConfig, pool: list[Row], evaluation: list[Row]) -> str | None:
    if task.shots is None:
        return None
    drawn_from = {"pool": pool} if task.shots_from == SAMPLE else {}
    return _fingerprint(list(task.labels), {"evaluation": evaluation, **drawn_from})


def _fingerprint(labels: list[str], splits: dict[str, list[Row]]) -> str:
    digest = hashlib.sha256(json.dumps(labels).encode())
    for name, rows in splits.items():
        digest.update(f"\n{name} {len(rows)}\n".encode())
        for row in rows:
            rest = [row[key] for key in ("choices", "target", "references", "demonstrations") if key in row]
            digest.update(json.dumps([row["id"], row["text"], row.get("label"), *rest]).encode())
    return digest.hexdigest()[:16]
