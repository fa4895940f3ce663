"""What one insertion computes: x, the frozen module, h, f, s and the composition, with this insertion's values."""

from __future__ import annotations

from unipet.report.page.composition import Inserted
from unipet.report.page.formulas import formula, mark
from unipet.report.page.shapes import Badge, Box, Drawing, Line, Shape, Text, short

WIDTH, HEIGHT = 380, 176
MAIN, ABOVE = 138, 58  # y of the frozen path and of the inserted one


def circuit(insertion: Inserted) -> Drawing:
    """The drawing of h' = compose(h, s · f(u)) for one insertion."""
    copies, kind = insertion.copies, "experts" if "experts" in insertion.function else "copies"
    body: list[Shape] = [Text(14, MAIN + 4, "x", "name"), Text(366, MAIN + 4, "h′", "name")]
    body.append(Line([(22, MAIN), (50, MAIN)], "wire", True))
    body.append(Box(52, MAIN - 15, 132, 30, "frozen", short(", ".join(insertion.sites), 20), "label"))
    body.append(Line([(184, MAIN), (321, MAIN)], "wire", True))
    body.append(Text(206, MAIN + 18, "h", "name"))
    body.append(Line([(343, MAIN), (356, MAIN)], "wire", True))
    if insertion.input == "h":
        body.append(Line([(206, MAIN), (206, MAIN - 30), (44, MAIN - 30), (44, ABOVE), (66, ABOVE)], "in", True))
        body.append(Text(50, MAIN - 36, "u = h", "small", "start"))
    elif insertion.input:
        body.append(Line([(34, MAIN), (34, ABOVE), (66, ABOVE)], "in", True))
        body.append(Text(40, MAIN - 36, "u = x" if insertion.input == "x" else "from the queries", "small", "start"))
    for copy in range(min(copies, 4) - 1, 0, -1):
        body.append(Box(68 + 4 * copy, ABOVE - 24 - 4 * copy, 150, 48, "copy"))
    body.append(Box(68, ABOVE - 24, 150, 48, "inserted"))
    body.append(Text(143, ABOVE - 2, short(insertion.sized_function, 22), "pill strong"))
    body.append(
        Text(143, ABOVE + 15, short(formula(insertion.function, insertion.input or "u").partition(",")[0], 26), "small")
    )
    if copies > 1:
        body.append(
            Text(
                68,
                ABOVE - 28 - 4 * min(copies, 4),
                f"{copies} {kind}, {(insertion.mixture or {}).get('router')}",
                "small",
                "start",
            )
        )
    body.append(Line([(218, ABOVE), (242, ABOVE)], "out", True))
    body.append(Text(232, ABOVE - 6, "Δ", "small"))
    body.append(Box(244, ABOVE - 16, 76, 32, "scale", short(f"× {insertion.s}", 12), "label"))
    body.append(Line([(320, ABOVE), (332, ABOVE), (332, MAIN - 11)], "out", True))
    body.append(Badge(332, MAIN, mark(insertion.composition), "joins", 11))
    body.append(Text(332, MAIN + 27, str(insertion.composition.get("name")), "small"))
    return Drawing(
        WIDTH, HEIGHT, f"What {insertion.name} computes", f"{insertion.sentence} {insertion.equation}.", body, "circuit"
    )
