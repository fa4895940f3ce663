"""The few SVG shapes that the drawings are made of. Colours are classes of page.css; every text is escaped."""

from __future__ import annotations

from html import escape


def text(x: float, y: float, content: str, css: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, css: str, label: str = "", label_css: str = "") -> str:
    """A rounded rectangle with its label in the middle."""
    shape = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" class="{css}"/>'
    return shape + (text(x + width / 2, y + height / 2 + 4, label, label_css) if label else "")


def line(points: list[tuple[float, float]], css: str, tip: bool = False) -> str:
    """A line through points, with an arrow's tip at its end where asked for."""
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="{path}" class="{css}"/>' + (_tip(points[-2], points[-1], css) if tip else "")


def _tip(before: tuple[float, float], end: tuple[float, float], css: str) -> str:
    """A triangle at `end`: markers would need an id that is unique on the page."""
    (x0, y0), (x, y) = before, end
    length = max(abs(x - x0), abs(y - y0)) or 1.0
    dx, dy = (x - x0) / length, (y - y0) / length
    corners = [(x, y), (x - 7 * dx - 4 * dy, y - 7 * dy + 4 * dx), (x - 7 * dx + 4 * dy, y - 7 * dy - 4 * dx)]
    return f'<polygon points="{" ".join(f"{a:g},{b:g}" for a, b in corners)}" class="tip {css}"/>'


def badge(x: float, y: float, content: str, css: str, radius: float = 9) -> str:
    """A circle with a sign in it."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{css}"/>' + text(x, y + 4, content, "sign")


def svg(width: float, height: float, title: str, description: str, body: list[str], css: str, top: float = 0) -> str:
    """The whole drawing from y = `top` down, named and described for those who do not see it."""
    said = escape(f"{title}. {description}")
    return (
        f'<svg class="{css}" viewBox="0 {top:g} {width:g} {height:g}" role="img" aria-label="{said}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def short(content: str, letters: int) -> str:
    """The text, cut to so many letters."""
    return content if len(content) <= letters else content[: letters - 1] + "…"
