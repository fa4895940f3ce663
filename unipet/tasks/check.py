"""Is this a task? Every rule about a TaskConfig in one place, each broken one naming its full key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unipet.config import TaskConfig
from unipet.errors import UnipetError, unknown
from unipet.tasks.metrics import METRICS
from unipet.tasks.stories import GENERATORS


def check_task(task: TaskConfig) -> None:
    """Raise UnipetError at the first thing in `task` that cannot be meant."""
    if not isinstance(task.name, str) or task.name.strip() in ("", "???"):
        raise UnipetError("task.name: missing. Choose a task (`unipet list tasks`), for example task=sst2.")
    if task.kind not in METRICS:
        raise unknown("task.kind", task.kind, METRICS)
    text = _names("task.text", task.text)
    if len(text) not in (1, 2):
        raise UnipetError(f"task.text: {len(text)} columns given ({text}); allowed: one, or two for a sentence pair.")
    if not isinstance(task.label, str) or not task.label or task.label in text:
        raise UnipetError(f"task.label: {task.label!r} given; allowed: one column name other than task.text {text}.")
    _check_labels(task)
    _check_metrics(task)
    for key in ("generated_train", "generated_evaluation", "max_length", "max_train", "max_evaluation"):
        value = getattr(task, key)
        if value is None and key.startswith("max_") and key != "max_length":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            none = ", or null for all" if key in ("max_train", "max_evaluation") else ""
            raise UnipetError(f"task.{key}: {value!r} given; allowed: a whole number from 1{none}.")
    for key in ("train_split", "evaluation_split"):
        split = getattr(task, key)
        if not isinstance(split, str) or not split or "/" in split or "\\" in split:
            raise UnipetError(f"task.{key}: {split!r} given; allowed: the name of a split, for example 'train'.")
    for key in ("hub", "subset", "revision", "generator", "data_dir"):
        value = getattr(task, key)
        if value is not None and (not isinstance(value, str) or not value):
            raise UnipetError(f"task.{key}: {value!r} given; allowed: a name, or null.")
    _check_source(task, text)


def _names(key: str, given: object) -> list[str]:
    """A list of distinct, non-empty strings (a bare string is one mistake worth its own words)."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise UnipetError(f"{key}: {given!r} given; allowed: a list of names, for example [{given}].")
    names = list(given)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise UnipetError(f"{key}: {name!r} is not a name; allowed: strings (write numbers in quotes).")
    if len(set(names)) != len(names):
        raise UnipetError(f"{key}: {names} names something twice.")
    return names


def _check_labels(task: TaskConfig) -> None:
    labels = _names("task.labels", task.labels)
    if task.kind == "regression" and labels:
        raise UnipetError(f"task.labels: {labels} given, but task.kind=regression has none; use task.labels=[].")
    if task.kind == "classification" and len(labels) < 2:
        raise UnipetError(f"task.labels: {labels} given; classification needs at least two label names.")


def _check_metrics(task: TaskConfig) -> None:
    metrics = _names("task.metrics", task.metrics)
    known = METRICS[task.kind]
    if not metrics:
        raise UnipetError(f"task.metrics: empty; the first is the score. Allowed: {', '.join(sorted(known))}.")
    for name in metrics:
        if name not in known:
            raise unknown(f"task.metrics (task.kind={task.kind})", name, known)
    if "f1" in metrics and len(task.labels) != 2:
        raise UnipetError(
            f"task.metrics: f1 is that of label index 1 among two, but task.labels has {len(task.labels)}; use accuracy."
        )


def _check_source(task: TaskConfig, text: list[str]) -> None:
    if not isinstance(task.rename, Mapping) or not all(isinstance(n, str) for kv in task.rename.items() for n in kv):
        raise UnipetError(
            f"task.rename: {task.rename!r} given; allowed: a mapping from a hub column to task.text/label."
        )
    for column in task.rename.values():
        if column not in (*text, task.label):
            raise unknown("task.rename", column, (*text, task.label))
    if isinstance(task.generator_seed, bool) or not isinstance(task.generator_seed, int):
        raise UnipetError(f"task.generator_seed: {task.generator_seed!r} given; allowed: a whole number.")
    if task.hub is not None and task.generator is not None:
        raise UnipetError(f"task.hub={task.hub} and task.generator={task.generator}: one source only; null the other.")
    if task.generator is not None:
        _check_generator(task, text)


def _check_generator(task: TaskConfig, text: list[str]) -> None:
    if task.generator not in GENERATORS:
        raise unknown("task.generator", task.generator, GENERATORS)
    if not task.name.startswith("synthetic_"):
        raise UnipetError(
            f"task.name: {task.name!r} has task.generator={task.generator}; begin the name with 'synthetic_'."
        )
    made = GENERATORS[task.generator]
    given = {"kind": task.kind, "labels": list(task.labels), "text": len(text)}
    for key, allowed in {"kind": made.kind, "labels": list(made.labels), "text": made.texts}.items():
        if given[key] != allowed:
            what = "columns " if key == "text" else ""
            raise UnipetError(
                f"task.{key}: {given[key]} {what}given, but task.generator={task.generator} makes {allowed} {what}".strip()
                + "."
            )
