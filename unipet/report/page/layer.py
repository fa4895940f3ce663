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
from unipet.report.page.shapes import Badge, Box, Drawing, Line, Point, Shape, Text, short

WIDTH, TRUNK, LEFT, RIGHT, PILL = 380, 150, 80, 220, 256
COLUMNS = {"q": 103, "k": 150, "v": 197}
TALL, SLOT, GAP = 24, 27, 16


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
class _Sketch:
    """Shapes from the bottom up: y is 0 at the bottom and negative above it, which the drawing's view box allows."""

    y: float = -26.0
    lines: list[Shape] = field(default_factory=list)
    boxes: list[Shape] = field(default_factory=list)  # over the lines
    signs: list[Shape] = field(default_factory=list)  # over the boxes
    inputs: dict[str, float] = field(default_factory=dict)  # row -> y of its input
    centres: dict[str, float] = field(default_factory=dict)  # row -> y of its box
    lanes: int = 0

    def wire(self, *points: Point, css: str = "wire", tip: bool = False) -> None:
        self.lines.append(Line(points, css, tip))


def layer(composed: Composed) -> Drawing:
    """The drawing of one composition."""
    roles = {role for insertion in composed.insertions for role in insertion.sites}
    cross = CROSS if any(role.startswith("cross") for role in roles) else []
    sketch = _Sketch()
    _row(sketch, EMBEDDING, composed)
    bottom = sketch.y - 2
    for row in [*ATTENTION, *cross, *FEED_FORWARD]:
        _row(sketch, row, composed)
    top = sketch.y - 4
    sketch.y -= 14
    _row(sketch, HEAD, composed)
    sketch.wire((TRUNK, -18), (TRUNK, -26))
    sketch.wire((TRUNK, sketch.y), (TRUNK, sketch.y - 12), tip=True)
    for first, last in (("attn.qkv", "attn.post"), ("cross.qkv", "cross.post"), ("ffn.up", "ffn.post")):
        if first in sketch.inputs:  # the residual stream around a block
            start, end = sketch.inputs[first] + GAP / 2 - 2, sketch.centres[last]
            sketch.wire((TRUNK, start), (54, start), (54, end), (LEFT, end), tip=True)
    frame = Box(40, top, RIGHT - 36, bottom - top, "frame")
    notes = [Text(42, top - 5, "one layer", "note", "start"), Text(TRUNK, -4, "tokens", "note")]
    described = " ".join(insertion.sentence for insertion in composed.insertions) or "It inserts nothing."
    body = [frame, *notes, *sketch.lines, *sketch.boxes, *sketch.signs]
    return Drawing(
        WIDTH, 16 - sketch.y, f"{composed.method} on a transformer layer", described, body, "layer", sketch.y - 14
    )


def _row(sketch: _Sketch, row: Row, composed: Composed) -> None:
    """Draw one row: its input, insertions on the input side, its boxes, the insertions above them."""
    named = [(insertion, [role for role in insertion.sites if role in row.roles]) for insertion in composed.insertions]
    here = [(insertion, roles) for insertion, roles in named if roles]
    columns = [x for _, x, _ in row.boxes]
    start = sketch.inputs[row.name] = sketch.y - GAP / 2
    split = len(columns) > 1
    sketch.wire((TRUNK, sketch.y), (TRUNK, start))
    sketch.wire((columns[0], start), (columns[-1], start))
    sketch.y -= GAP
    for insertion, roles in here:
        if insertion.position.get("side") == "input":
            _insertion(sketch, row, insertion, roles, below=True)
    trains = "all" in composed.unfreeze or any(part in composed.unfreeze for part in row.parts)
    usual = "frozen" if composed.content else "unknown"  # a record alone does not say what else trains
    for label, x, width in row.boxes:
        sketch.wire((x, start), (x, sketch.y), tip=True)
        shown = f"● {label}" if trains else label
        sketch.boxes.append(
            Box(x - width / 2, sketch.y - TALL, width, TALL, "trained" if trains else usual, shown, "label")
        )
    sketch.centres[row.name] = sketch.y - TALL / 2
    sketch.y -= TALL
    above = sketch.y
    for insertion, roles in here:
        if insertion.position.get("side") != "input":
            _insertion(sketch, row, insertion, roles, below=False)
    if split:
        sketch.y -= 6
    for x in columns:
        sketch.wire((x, above), (x, sketch.y))
    sketch.wire((columns[0], sketch.y), (columns[-1], sketch.y))


def _insertion(sketch: _Sketch, row: Row, insertion: Inserted, roles: Sequence[str], below: bool) -> None:
    """Draw one insertion: its box at the right, its signs on the wires, its input."""
    sketch.y -= SLOT
    y = sketch.y + SLOT / 2 - 2
    columns = sorted({x for role in roles for x in row.roles[role][0]})
    sketch.wire((PILL, y), (columns[0] + 9, y), css="out", tip=True)
    sketch.signs += [Badge(x, y, mark(insertion.composition), "joins") for x in columns]
    if insertion.input in ("x", "q") and not below:
        lane = RIGHT + 8 + 6 * (sketch.lanes % 4)
        sketch.lanes += 1
        source = row.name if insertion.input == "q" else row.roles[roles[0]][1] or row.name
        level = sketch.inputs[source]
        sketch.wire((TRUNK, level), (lane, level), (lane, y + 7), (PILL, y + 7), css="in", tip=True)
    elif insertion.input:  # h, just below the sign
        reach = max(columns)
        sketch.wire((reach, y + 13), (PILL - 8, y + 13), (PILL - 8, y + 7), (PILL, y + 7), css="in", tip=True)
    sketch.boxes.append(Box(PILL, y - 11, WIDTH - PILL - 2, 22, "inserted"))
    label = f"{insertion.number} · {short(str(insertion.function.get('name')), 15)}"
    sketch.signs.append(Text(PILL + 7, y + 4, label, "pill", "start"))
