"""A text picture of one layer, drawn from its site table: the modules in their order, and the place of each role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from unipet.calculus.sites import HookPoint, Stack
from unipet.calculus.sites.resolve import has_module
from unipet.calculus.sites.table import BLOCKS

WIDTH = 100
RAIL, INNER, TRUNK, RIGHT, LABELS = 2, 5, 20, 37, 42  # columns
SIDES = (9, 20, 31)  # of query, key and value


@dataclass
class _Drawing:
    """Lines from top to bottom. `rails` are the columns of the vertical lines beside the trunk in the current row."""

    lines: list[str] = field(default_factory=list)
    rails: list[int] = field(default_factory=list)

    def row(self, *pieces: tuple[int, str], roles: Sequence[str] = (), note: str = "") -> None:
        """Add one line: texts centred at columns, over the rails, then the roles at this place and a note."""
        cells = [" "] * LABELS
        for column in self.rails:
            cells[column] = "│"
        for column, text in pieces:
            start = max(column - len(text) // 2, 0)
            cells[start : start + len(text)] = text
        label = "  ".join([f"◄ {'  '.join(roles)}"] * bool(roles) + [note] * bool(note))
        self.lines.append(("".join(cells[:LABELS]) + label).rstrip())

    def line(
        self, left: int, right: int, ends: str, middle: str = "", roles: Sequence[str] = (), note: str = ""
    ) -> None:
        """Add one line with a horizontal stroke between two columns, with `middle` in its centre."""
        stroke = ends[0] + "─" * (right - left - 1) + ends[1]
        if middle:
            at = (TRUNK - left) - len(middle) // 2
            stroke = stroke[:at] + middle + stroke[at + len(middle) :]
        self.row((left + len(stroke) // 2, stroke), roles=roles, note=note)


@dataclass(frozen=True)
class DrawnLayer:
    """One layer with the hook points of its stack that exist there."""

    stack: Stack
    module: nn.Module

    def path(self, role: str) -> str | None:
        """The module of a role, relative to the layer."""
        for point in self.stack.roles.get(role, ()):
            if _there(self.module, point):
                return point.h
        return None

    def has(self, *roles: str) -> list[str]:
        return [role for role in roles if self.path(role) is not None]

    def norms(self) -> dict[tuple[str, str], str]:
        """(block, before | inside | after) -> norm: before the block, on its output, after the residual add."""
        blocks = [block for block in BLOCKS if self.path(block) is not None]
        points = [point.h for point in self.stack.roles.get("norm", ()) if _there(self.module, point)]
        if not self.stack.norms:  # a post-norm layer has one after each block, if the table gives its norms
            known = any(self.path(f"{block}.post") for block in blocks) and len(points) == len(blocks)
            return {(block, "after"): norm for block, norm in zip(blocks, points, strict=True)} if known else {}
        found = {(block, "before"): norm for block, norm in self.stack.norms.items() if norm in points}
        current = blocks[0] if blocks else "attn"
        for norm in points:
            before = next((block for block, first in self.stack.norms.items() if first == norm), None)
            if before is None:
                found[current, "inside"] = norm
            current = before or current
        return found


def picture(stack: Stack, layer: nn.Module) -> list[str]:
    """The lines of a layer's picture, at most `WIDTH` wide."""
    drawing, found = _Drawing(), DrawnLayer(stack, layer)
    if "embed" in stack.outside:
        drawing.row((TRUNK, "embedded sequence"), roles=["embed"])
    drawing.row((TRUNK, "┆"), note="the stream that enters the layer: x of layer")
    norms = found.norms()
    if stack.parallel:
        _parallel(drawing, found, norms)
    else:
        for block in (block for block in BLOCKS if found.path(block) is not None):
            _block(drawing, found, norms, block)
    drawing.row((TRUNK, "▼"))
    return drawing.lines


def _block(drawing: _Drawing, layer: DrawnLayer, norms: dict[tuple[str, str], str], block: str) -> None:
    """Draw one block, from the point where the stream splits to the residual sum."""
    post = [*layer.has(f"{block}.post"), *(layer.has("layer") if block == "ffn" else [])]
    drawing.line(RAIL, TRUNK, "┌┤")
    drawing.rails = [RAIL]
    _inside(drawing, layer, norms, block)
    drawing.rails = []
    after = norms.get((block, "after"))
    _add(drawing, [] if after else post)
    if after:
        drawing.row((TRUNK, after), roles=["norm", *post])


def _parallel(drawing: _Drawing, layer: DrawnLayer, norms: dict[tuple[str, str], str]) -> None:
    """Draw attention and feed-forward block side by side: both read the entering stream, and both are added to it."""
    drawing.line(RAIL, TRUNK, "┌┤")
    drawing.lines[-1] = drawing.lines[-1][:INNER] + "┬" + drawing.lines[-1][INNER + 1 :]
    drawing.rails = [RAIL, INNER]
    _inside(drawing, layer, norms, "attn")
    drawing.line(TRUNK, RIGHT, "└┐")
    drawing.rails = [RAIL, RIGHT]
    drawing.line(INNER, TRUNK, "└┐")
    _inside(drawing, layer, norms, "ffn")
    drawing.rails = []
    _add(drawing, layer.has("ffn.post", "layer"), both=True)


def _add(drawing: _Drawing, roles: Sequence[str], both: bool = False) -> None:
    stroke = "└" + "─" * (TRUNK - RAIL - 3) + "► +"
    if both:
        stroke += " ◄" + "─" * (RIGHT - TRUNK - 3) + "┘"
    drawing.row((RAIL + len(stroke) // 2, stroke), roles=roles)


def _inside(drawing: _Drawing, layer: DrawnLayer, norms: dict[tuple[str, str], str], block: str) -> None:
    if (before := norms.get((block, "before"))) is not None:
        drawing.row((TRUNK, before), roles=["norm"])
    if block == "ffn":
        _feed_forward(drawing, layer)
    else:
        _attention(drawing, layer, block)
    if (inside := norms.get((block, "inside"))) is not None:
        drawing.row((TRUNK, inside), roles=["norm"])


def _attention(drawing: _Drawing, layer: DrawnLayer, block: str) -> None:
    roles = [f"{block}.{one}" for one in ("q", "k", "v")]
    fused, present = layer.path(f"{block}.qkv"), layer.has(*roles)
    names = [_leaf(layer.path(role) or role) for role in roles]
    if fused is not None:
        drawing.row((TRUNK, fused), roles=[f"{block}.qkv"])
        names = ["q", "k", "v"]
    if block == "cross":
        drawing.row((SIDES[0] + 6, "┌──────────┘"), (SIDES[2], "encoder"))
        drawing.row((SIDES[0], "│"), (SIDES[1] + 6, "┌──────────┤"))
    else:
        drawing.line(SIDES[0], SIDES[2], "┌┐", middle="┼")
    note = "parts of its output" if fused is not None and present else ""
    drawing.row(*zip(SIDES, names, strict=True), roles=present, note=note)
    drawing.line(SIDES[0], SIDES[2], "└┘", middle=" attention ", roles=layer.has(f"{block}.heads"))
    last = layer.path(f"{block}.o") or layer.path(block)
    drawing.row((TRUNK, last or "output projection"), roles=layer.has(f"{block}.o", block))


def _experts(drawing: _Drawing, layer: DrawnLayer) -> None:
    """Draw a block of experts: those that a router chooses, in one column, and the one that every token takes."""
    drawing.row((TRUNK, "router, then each expert:"))
    drawing.row((TRUNK, "gate and up"), roles=layer.has("experts.gate", "experts.up"))
    drawing.row((TRUNK, "gate × up, then down"), roles=layer.has("experts.mid", "experts.down"))
    drawing.row((TRUNK, "weighted sum"), roles=layer.has("experts"))
    if layer.has("shared"):
        drawing.row((TRUNK, "and the shared expert:"))
        drawing.row((TRUNK, "gate and up"), roles=layer.has("shared.gate", "shared.up"))
        drawing.row((TRUNK, "gate × up, then down"), roles=layer.has("shared.mid", "shared.down", "shared"))
    drawing.row((TRUNK, layer.path("ffn") or "their sum"), roles=layer.has("ffn"))


def _feed_forward(drawing: _Drawing, layer: DrawnLayer) -> None:
    if layer.has("experts"):
        _experts(drawing, layer)
        return
    up, gate, down = (layer.path(f"ffn.{one}") for one in ("up", "gate", "down"))
    if gate is not None and up is not None:
        names = [_leaf(gate), _leaf(up)]
        if gate == up:  # one projection yields both
            drawing.row((TRUNK, gate), note="yields both")
            names = ["gate", "up"]
        drawing.line(SIDES[0] + 3, SIDES[2] - 3, "┌┐", middle="┴")
        drawing.row((SIDES[0] + 3, names[0]), (SIDES[2] - 3, names[1]), roles=layer.has("ffn.gate", "ffn.up"))
        drawing.row((SIDES[0] + 3, "activation"), (SIDES[2] - 3, "│"))
        drawing.line(SIDES[0] + 3, SIDES[2] - 3, "└┘", middle=" × ", roles=layer.has("ffn.mid"))
    else:
        drawing.row((TRUNK, up or "first projection"), roles=layer.has("ffn.up"))
        drawing.row((TRUNK, "activation"), roles=layer.has("ffn.mid"))
    drawing.row((TRUNK, down or layer.path("ffn") or "last projection"), roles=layer.has("ffn.down", "ffn"))


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _there(layer: nn.Module, point: HookPoint) -> bool:
    return has_module(layer, point.h) and (point.x is None or has_module(layer, point.x))
