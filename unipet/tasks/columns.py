"""Which columns a task reads, and how columns become texts: an entry is a column, or a template of columns in braces."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.kinds import KINDS

MASK = "mask"  # {mask} in a masked prompt is the tokenizer's mask token, no column


def columns(entry: str, key: str = "task.text") -> list[str]:
    """The columns of one entry, in order, each once. Raises UnipetError for a template that cannot be parsed."""
    if "{" not in entry and "}" not in entry:
        return [entry]
    try:
        parts = list(Formatter().parse(entry))
    except ValueError as error:
        raise UnipetError(
            f"{key}: {entry!r} is no template ({error}). Write {{column}}; a brace itself is {{{{."
        ) from error
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        if name is not None and (not name.strip() or spec or conversion):
            raise UnipetError(f"{key}: {entry!r}: a plain column name is needed in each pair of braces.")
    return list(dict.fromkeys(names))


def render(entry: str, values: Mapping[str, str]) -> str:
    """The text of one entry: the column's value, or the template filled in. Values are never parsed as templates."""
    if "{" not in entry and "}" not in entry:
        return values[entry]
    return "".join(
        literal + (values[name] if name is not None else "") for literal, name, _, _ in Formatter().parse(entry)
    )


def text_columns(task: TaskConfig) -> list[str]:
    """Every column that the texts and choices of `task` are made of, each once."""
    found = [name for entry in task.text for name in columns(entry)]
    found += [name for entry in task.choices for name in columns(entry, "task.choices")]
    return list(dict.fromkeys(name for name in found if not (task.kind == "masked_prompt" and name == MASK)))


def answer_columns(task: TaskConfig, evaluation: bool) -> list[str]:
    """The columns that may hold the answer; of several one is enough."""
    if not KINDS[task.kind].generates:
        return [task.label]
    return [task.references, task.target] if evaluation else [task.target]


def wanted(task: TaskConfig) -> str:
    """What a file of examples must hold, for a message: "columns: sentence, label"."""
    return ", ".join([*text_columns(task), answer_columns(task, False)[0]])
