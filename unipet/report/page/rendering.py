"""The page's templates, rendered. Whatever a template is given is text and escaped; only `document.html` says what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unipet.errors import UnipetError

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent / "templates"
MISSING = "unipet report --html needs Jinja2, Altair and vl-convert. Install them: pip install 'unipet[report]'."


@dataclass(frozen=True)
class Table:
    """A table of texts; `numbers` are the columns that align right. Shown with the comparison `group` only, and with it
    only where `chart` is the chart that is drawn, if these are given."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    group: str | None = None
    chart: str | None = None


def render(template: str, **content: object) -> str:
    """The template filled in. Raises `UnipetError` where Jinja2 is missing."""
    return environment().get_template(template).render(content)


@cache
def environment() -> Environment:
    """Where templates are found and how they are read."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise UnipetError(MISSING) from None
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["g"] = "{:g}".format
    return made


def number(value: float | None, pattern: str) -> str:
    """The number in this format, or a dash for what is not known."""
    return "–" if value is None else format(value, pattern)
