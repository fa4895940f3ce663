"""The columns that a task reads, and how they become texts. An entry is a column, or a template with columns in braces."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.kinds import KINDS

MASK = "mask"  # {mask} in a masked prompt is the tokenizer's mask token, not a column


def columns(entry: str, key: str = "task.text") -> list[str]:
    """The columns of one entry, in order and without duplicates. Raises UnipetError for an invalid template."""
    if "{" not in entry and "}" not in entry:
        return [entry]
    try:
        parts = list(Formatter().parse(entry))
    except ValueError as error:
        raise UnipetError(
            f"{key}: {entry!r} is not a valid template ({error}). Write {{column}} for a column, and {{{{ for a brace."
        ) from error
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        if name is not None and (not name.strip() or spec or conversion):
            raise UnipetError(f"{key}: {entry!r}: a plain column name is needed in each pair of braces.")
    return list(dict.fromkeys(names))


def render(entry: str, values: Mapping[str, str]) -> str:
    """The text of one entry: the value of its column, or the filled template. Values are never parsed as templates."""
    if "{" not in entry and "}" not in entry:
        return values[entry]
    return "".join(
        literal + (values[name] if name is not None else "") for literal, name, _, _ in Formatter().parse(entry)
    )


def text_columns(task: TaskConfig) -> list[str]:
    """The columns of all texts and choices of `task`, without duplicates."""
    found = [name for entry in task.text for name in columns(entry)]
    found += [name for entry in task.choices for name in columns(entry, "task.choices")]
    return list(dict.fromkeys(name for name in found if not (KINDS[task.kind].prompted and name == MASK)))


def answer_columns(task: TaskConfig, evaluation: bool) -> list[str]:
    """The columns that may hold the answer. If there are several, one of them suffices (with label_columns, all are needed)."""
    if task.label_columns:
        return list(task.labels)
    if not KINDS[task.kind].generates:
        return [task.label]
    return [task.references, task.target] if evaluation else [task.target]


def wanted(task: TaskConfig) -> str:
    """The columns that a data file must have, for messages: "sentence, label"."""
    return ", ".join([*text_columns(task), *answer_columns(task, False)])
