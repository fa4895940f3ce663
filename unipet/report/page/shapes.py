"""The few shapes that the drawings are made of; `drawing.html` writes them as SVG. Colours are classes of page.css."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

Point = tuple[float, float]


@dataclass(frozen=True)
class Text:
    kind: ClassVar[str] = "text"

    x: float
    y: float
    content: str
    css: str = ""
    anchor: str = "middle"


@dataclass(frozen=True)
class Box:
    """A rounded rectangle with its label in the middle."""

    kind: ClassVar[str] = "box"

    x: float
    y: float
    width: float
    height: float
    css: str
    name: str = ""
    name_css: str = ""

    @property
    def label(self) -> Text | None:
        if not self.name:
            return None
        return Text(self.x + self.width / 2, self.y + self.height / 2 + 4, self.name, self.name_css)


@dataclass(frozen=True)
class Line:
    """A line through points, with an arrow's tip at its end where asked for."""

    kind: ClassVar[str] = "line"

    points: Sequence[Point]
    css: str
    arrow: bool = False

    @property
    def path(self) -> str:
        return "M" + " L".join(f"{x:g} {y:g}" for x, y in self.points)

    @property
    def tip(self) -> str:
        """The corners of a triangle at the end: markers would need an id that is unique on the page."""
        if not self.arrow:
            return ""
        (x0, y0), (x, y) = self.points[-2:]
        length = max(abs(x - x0), abs(y - y0)) or 1.0
        dx, dy = (x - x0) / length, (y - y0) / length
        corners = [(x, y), (x - 7 * dx - 4 * dy, y - 7 * dy + 4 * dx), (x - 7 * dx + 4 * dy, y - 7 * dy - 4 * dx)]
        return " ".join(f"{a:g},{b:g}" for a, b in corners)


@dataclass(frozen=True)
class Badge:
    """A circle with a sign in it."""

    kind: ClassVar[str] = "badge"

    x: float
    y: float
    content: str
    css: str
    radius: float = 9

    @property
    def sign(self) -> Text:
        return Text(self.x, self.y + 4, self.content, "sign")


Shape = Text | Box | Line | Badge


@dataclass(frozen=True)
class Drawing:
    """A whole drawing from y = `top` down; later shapes lie over earlier ones."""

    width: float
    height: float
    title: str
    description: str
    shapes: Sequence[Shape]
    css: str
    top: float = 0


def short(content: str, letters: int) -> str:
    """The text, cut to so many letters."""
    return content if len(content) <= letters else content[: letters - 1] + "…"
