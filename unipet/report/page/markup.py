"""HTML in small pieces. Every value passes through `e`; nothing else on the page turns text into markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def e(value: object) -> str:
    """Text as HTML text or attribute value, quotes included."""
    return escape(str(value), quote=True)


def attributes(**given: object) -> str:
    """` class="..." data-task="..."`; None is left out, True stands alone; `css` is class, `_` becomes `-`."""
    parts = []
    for name, value in given.items():
        key = "class" if name == "css" else name.strip("_").replace("_", "-")
        if value is True:
            parts.append(f" {key}")
        elif value is not None and value is not False:
            parts.append(f' {key}="{e(value)}"')
    return "".join(parts)


def tag(name: str, *inside: str, **given: object) -> str:
    """An element around markup that is already escaped."""
    return f"<{name}{attributes(**given)}>{''.join(inside)}</{name}>"


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), **given: object
) -> str:
    """A table of texts; `numbers` are the columns that align right. It scrolls sideways by itself, also by keyboard."""
    head = "".join(tag("th", e(one), scope="col", css="n" if at in numbers else None) for at, one in enumerate(heads))
    body = "".join(
        tag(
            "tr",
            *(
                tag(
                    "th" if at == 0 else "td",
                    e(cell),
                    scope="row" if at == 0 else None,
                    css="n" if at in numbers else None,
                )
                for at, cell in enumerate(row)
            ),
        )
        for row in rows
    )
    inner = tag("table", tag("caption", e(caption)), tag("thead", tag("tr", head)), tag("tbody", body))
    return tag("div", inner, css="scroll", role="region", tabindex="0", aria_label=caption, **given)


def section(name: str, title: str, *inside: str) -> str:
    """A part of the page with a heading that the navigation leads to."""
    return tag("section", tag("h2", e(title), id=f"{name}-title"), *inside, id=name, aria_labelledby=f"{name}-title")


def options(values: Iterable[tuple[str, str]]) -> str:
    """The options of a select: (value, what is shown)."""
    return "".join(tag("option", e(shown), value=value) for value, shown in values)


def choice(name: str, legend: str, values: Sequence[tuple[str, str]]) -> str:
    """Radio buttons, the first one chosen: (value, what is shown)."""
    buttons = "".join(
        tag("label", f"<input{attributes(type='radio', name=name, value=value, checked=at == 0)}>", e(shown))
        for at, (value, shown) in enumerate(values)
    )
    return tag("fieldset", tag("legend", e(legend)), buttons, css="choice")


def number(value: Any, pattern: str) -> str:
    """The number in this format, or a dash for what is not known."""
    return "–" if value is None else format(value, pattern)
