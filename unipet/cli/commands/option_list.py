"""`unipet list functions NAME`: what one value of a dimension is, and each of its options: default, and what is allowed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unipet.calculus.options import MISSING, allowed, hints_of
from unipet.errors import unknown
from unipet.output.text_table import text_table

WIDTH = 120
#: Topics whose values have options -> the key that holds them, in a method.
KEYS = {
    "functions": "method.insertions.NAME.function",
    "compositions": "method.insertions.NAME.composition",
    "scalings": "method.insertions.NAME.scaling",
    "routers": "method.insertions.NAME.mixture",
    "reducers": "method.insertions.NAME.mixture",
    "objectives": "method.objective.NAME",
}


@dataclass(frozen=True)
class Value:
    """A value of a dimension in words, paragraph by paragraph, with its options."""

    paragraphs: tuple[str, ...]
    options: tuple[OptionRow, ...]


@dataclass(frozen=True)
class OptionRow:
    """One option as text: its name, its default, and what it takes."""

    name: str
    default: str
    allowed: str


def values_of(topic: str) -> Mapping[str, Value]:
    """The values of a topic by name."""
    from unipet.calculus.composition import COMPOSITIONS
    from unipet.calculus.functions import FUNCTIONS
    from unipet.calculus.mixture import REDUCERS, ROUTERS, Mixture
    from unipet.calculus.objectives import REGULARISERS
    from unipet.calculus.scaling import SCALINGS

    if topic in ("routers", "reducers"):
        choices = ROUTERS if topic == "routers" else REDUCERS
        return {
            name: Value((choice.words,), tuple(option_rows(Mixture, choice.options)))
            for name, choice in choices.items()
        }
    tables: dict[str, Mapping[str, type]] = {
        "functions": FUNCTIONS,
        "compositions": COMPOSITIONS,
        "scalings": SCALINGS,
        "objectives": REGULARISERS,
    }
    return {name: Value(paragraphs(kind), tuple(option_rows(kind))) for name, kind in tables[topic].items()}


def described(topic: str, name: str) -> str:
    """What `unipet list TOPIC NAME` prints. Raises `UnipetError` for a name that the topic does not have."""
    values = values_of(topic)
    if name not in values:
        raise unknown(f"unipet list {topic}", name, values)
    value = values[name]
    blocks = [
        textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        for text in value.paragraphs
    ]
    if not value.options:
        of_mixture = KEYS[topic].endswith("mixture")  # which has options that every router and reducer goes with
        return "\n\n".join([name, *blocks, f"It has no options{' of its own' if of_mixture else ''}."])
    rows = [(row.name, row.default, row.allowed) for row in value.options]
    told = f"Key: {KEYS[topic]}.OPTION (`unipet describe method=...` shows the insertions of a method by name)"
    if topic == "objectives":
        told = f"Key: {KEYS[topic].replace('NAME', name)}.OPTION"
    return "\n\n".join([name, *blocks, text_table(["option", "default", "allowed"], rows, WIDTH), told])


def paragraphs(kind: type) -> tuple[str, ...]:
    """The docstring of a class, each paragraph on one line."""
    text = inspect.cleandoc(kind.__doc__ or "")
    return tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def option_rows(kind: type, only: Collection[str] | None = None, prefix: str = "") -> Iterator[OptionRow]:
    """A row for each option of a dataclass, or for some of them; options inside an option follow it, with a dot."""
    for field in dataclasses.fields(kind):
        if only is not None and field.name not in only:
            continue
        hint, name = hints_of(kind)[field.name], prefix + field.name
        inner = next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)
        if inner is not hint:
            yield OptionRow(name, as_written(_default(field)), taken(hint, field.metadata))
        if inner is not None:
            yield from option_rows(typing.cast("type", inner), None, f"{name}.")


def taken(hint: Any, limits: Mapping[str, Any]) -> str:
    """What an option of this type takes, in words."""
    if typing.get_origin(hint) is list and not limits.get("words"):
        (inner,) = typing.get_args(hint)
        if inner is str and not limits.get("choices"):
            return "a list of texts"
        return f"a list{' of:' if limits.get('choices') else ', each'} {allowed(inner, limits)}"
    if hint is Any and not limits.get("words"):
        return "any value"
    return allowed(hint, limits).replace(" (a number in quotes is one)", "")


def as_written(value: Any) -> str:
    """A default as YAML has it."""
    if value is dataclasses.MISSING or value == MISSING:
        return "(required)"
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w.:/ -]+", value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(as_written(item) for item in value)}]"
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
