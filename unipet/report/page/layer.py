"""Where a method sits: a transformer layer with every insertion of a composition at its sites.

The layer is a scheme in the order of computation, bottom to top, the same for every architecture: norms stand after
their blocks, as in a post-norm model. An insertion is a numbered box at the right; it joins the stream at a numbered
sign. Its input comes from the site's input (parallel), from h just below the sign (sequential), or is none at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unipet.report.page.composition import Composed, Inserted
from unipet.report.page.formulas import mark
from unipet.report.page.shapes import badge, box, line, short, svg, text

WIDTH, TRUNK, LEFT, RIGHT, PILL = 380, 150, 80, 220, 256
COLUMNS = {"q": 103, "k": 150, "v": 197}
BOX, SLOT, GAP = 24, 27, 16


@dataclass(frozen=True)
class Row:
    """One row of boxes. `roles`: what is h above it -> (columns, where x is read: a row's name, "" for below this one)."""

    name: str
    boxes: tuple[tuple[str, float, float], ...]  # label, centre, width
    roles: dict[str, tuple[tuple[float, ...], str]]
    block: str = ""  # the block that it belongs to; its first row reads the block's input
    parts: tuple[str, ...] = ()  # parts of the base model that a method may unfreeze


def _whole(label: str) -> tuple[tuple[str, float, float], ...]:
    return ((label, TRUNK, RIGHT - LEFT),)


def _attention(block: str, label: str) -> list[Row]:
    thirds = tuple((name, x, 40.0) for name, x in COLUMNS.items())
    projections = {f"{block}.{name}": ((float(x),), "") for name, x in COLUMNS.items()}
    first, on = f"{block}.qkv", (float(TRUNK),)
    fused = {f"{block}.qkv": (tuple(float(x) for x in COLUMNS.values()), "")}
    return [
        Row(first, thirds, {**projections, **fused}, block),
        Row(f"{block}.heads", _whole(f"{label} heads"), {f"{block}.heads": (on, first)}, block),
        Row(f"{block}.o", _whole("output projection"), {f"{block}.o": (on, ""), block: (on, first)}, block),
        Row(f"{block}.post", _whole("add & norm"), {f"{block}.post": (on, first), "norm": (on, "")}, block, ("norm",)),
    ]


ON = (float(TRUNK),)
EMBEDDING = Row("embed", _whole("embedding"), {"embed": (ON, ""), "embed.tokens": (ON, "")}, "", ("embeddings",))
HEAD = Row("head", _whole("head of the task"), {"head.tokens": (ON, "")}, "", ("head",))
FEED_FORWARD = [
    Row("ffn.up", _whole("up projection"), {"ffn.up": (ON, ""), "ffn.gate": (ON, "")}, "ffn"),
    Row("ffn.mid", _whole("activation"), {"ffn.mid": (ON, "")}, "ffn"),
    Row("ffn.down", _whole("down projection"), {"ffn.down": (ON, ""), "ffn": (ON, "ffn.up")}, "ffn"),
    Row(
        "ffn.post",
        _whole("add & norm"),
        {"ffn.post": (ON, "ffn.up"), "norm": (ON, ""), "layer": (ON, "attn.qkv")},
        "ffn",
        ("norm",),
    ),
]
ATTENTION, CROSS = _attention("attn", "attention"), _attention("cross", "cross-attention")


@dataclass
class _Drawing:
    """Shapes from the bottom up: y is 0 at the bottom and negative above it, which the drawing's view box allows."""

    y: float = -26.0
    lines: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)  # over the lines
    signs: list[str] = field(default_factory=list)  # over the boxes
    inputs: dict[str, float] = field(default_factory=dict)  # row -> y of its input
    centres: dict[str, float] = field(default_factory=dict)  # row -> y of its box
    lanes: int = 0

    def wire(self, *points: tuple[float, float], css: str = "wire", tip: bool = False) -> None:
        self.lines.append(line(list(points), css, tip))


def layer_svg(composed: Composed) -> str:
    """The drawing of one composition."""
    roles = {role for one in composed.insertions for role in one.sites}
    cross = CROSS if any(role.startswith("cross") for role in roles) else []
    drawing = _Drawing()
    _row(drawing, EMBEDDING, composed)
    bottom = drawing.y - 2
    for row in [*ATTENTION, *cross, *FEED_FORWARD]:
        _row(drawing, row, composed)
    top = drawing.y - 4
    drawing.y -= 14
    _row(drawing, HEAD, composed)
    drawing.wire((TRUNK, -18), (TRUNK, -26))
    drawing.wire((TRUNK, drawing.y), (TRUNK, drawing.y - 12), tip=True)
    for first, last in (("attn.qkv", "attn.post"), ("cross.qkv", "cross.post"), ("ffn.up", "ffn.post")):
        if first in drawing.inputs:  # the residual stream around a block
            start, end = drawing.inputs[first] + GAP / 2 - 2, drawing.centres[last]
            drawing.wire((TRUNK, start), (54, start), (54, end), (LEFT, end), tip=True)
    frame = box(40, top, RIGHT - 36, bottom - top, "frame")
    notes = [text(42, top - 5, "one layer", "note", "start"), text(TRUNK, -4, "tokens", "note")]
    described = " ".join(one.sentence for one in composed.insertions) or "It inserts nothing."
    body = [frame, *notes, *drawing.lines, *drawing.boxes, *drawing.signs]
    return svg(
        WIDTH, 16 - drawing.y, f"{composed.method} on a transformer layer", described, body, "layer", drawing.y - 14
    )


def _row(drawing: _Drawing, row: Row, composed: Composed) -> None:
    """Input, insertions on the input side, boxes, insertions above them."""
    named = [(one, [role for role in one.sites if role in row.roles]) for one in composed.insertions]
    here = [(one, found) for one, found in named if found]
    columns = [x for _, x, _ in row.boxes]
    start = drawing.inputs[row.name] = drawing.y - GAP / 2
    split = len(columns) > 1
    drawing.wire((TRUNK, drawing.y), (TRUNK, start))
    drawing.wire((columns[0], start), (columns[-1], start))
    drawing.y -= GAP
    for one, found in here:
        if one.position.get("side") == "input":
            _insertion(drawing, row, one, found, below=True)
    trains = "all" in composed.unfreeze or any(part in composed.unfreeze for part in row.parts)
    usual = "frozen" if composed.content else "unknown"  # a record alone does not say what else trains
    for label, x, width in row.boxes:
        drawing.wire((x, start), (x, drawing.y), tip=True)
        shown = f"● {label}" if trains else label
        drawing.boxes.append(
            box(x - width / 2, drawing.y - BOX, width, BOX, "trained" if trains else usual, shown, "label")
        )
    drawing.centres[row.name] = drawing.y - BOX / 2
    drawing.y -= BOX
    above = drawing.y
    for one, found in here:
        if one.position.get("side") != "input":
            _insertion(drawing, row, one, found, below=False)
    if split:
        drawing.y -= 6
    for x in columns:
        drawing.wire((x, above), (x, drawing.y))
    drawing.wire((columns[0], drawing.y), (columns[-1], drawing.y))


def _insertion(drawing: _Drawing, row: Row, one: Inserted, found: Sequence[str], below: bool) -> None:
    """A box at the right, its signs on the wires, its input."""
    drawing.y -= SLOT
    y = drawing.y + SLOT / 2 - 2
    columns = sorted({x for role in found for x in row.roles[role][0]})
    drawing.wire((PILL, y), (columns[0] + 9, y), css="out", tip=True)
    drawing.signs += [badge(x, y, mark(one.composition), "joins") for x in columns]
    if one.input in ("x", "q") and not below:
        lane = RIGHT + 8 + 6 * (drawing.lanes % 4)
        drawing.lanes += 1
        source = row.name if one.input == "q" else row.roles[found[0]][1] or row.name
        level = drawing.inputs[source]
        drawing.wire((TRUNK, level), (lane, level), (lane, y + 7), (PILL, y + 7), css="in", tip=True)
    elif one.input:  # h, just below the sign
        reach = max(columns)
        drawing.wire((reach, y + 13), (PILL - 8, y + 13), (PILL - 8, y + 7), (PILL, y + 7), css="in", tip=True)
    drawing.boxes.append(box(PILL, y - 11, WIDTH - PILL - 2, 22, "inserted"))
    label = f"{one.number} · {short(str(one.function.get('name')), 15)}"
    drawing.signs.append(text(PILL + 7, y + 4, label, "pill", "start"))
