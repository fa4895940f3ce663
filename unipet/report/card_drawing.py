"""A method as text: for each insertion the frozen path, what is inserted beside it, and how the two are joined."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.page.composition import Inserted
from unipet.report.page.formulas import formula, joined


def drawing(insertions: Sequence[Inserted]) -> str:
    """The drawings of all insertions, one below the other; a line of text where there is none."""
    if not insertions:
        return "no insertions: only what it unfreezes trains"
    return "\n\n".join(_circuit(insertion) for insertion in insertions)


def _circuit(insertion: Inserted) -> str:
    """Four lines: a heading, the frozen path, and below it what is fed, computed, scaled and joined."""
    copies = f", {insertion.copies} copies" if insertion.mixture else ""
    before = f"x ──► [ {', '.join(insertion.sites)}, frozen ] ──► h ──"
    from_h = insertion.input == "h"
    start = before.rindex("h") if from_h else 0  # where what is inserted is fed from
    fed = {"x": "└──► ", "h": "└──► ", "q": "q ──► "}.get(insertion.input, "")
    below = f"{'':{start}}{fed}[ {formula(insertion.function, insertion.input or 'u')} ] ── Δ ── × {insertion.s} ─"
    joint = max(len(below), len(before) + 3)  # where the two are joined
    above = f"{before}{'─' * (joint - len(before) - 3)}► ( {joined(insertion.composition, insertion.s)} ) ──► h'"
    side = f"{'':{start}}{'│' if insertion.input in ('x', 'h') else ' '}"
    lines = [
        f"{insertion.name}: {insertion.sized_function}{copies}",
        above,
        f"{side:{joint}}▲",
        f"{below}{'─' * (joint - len(below))}┘",
    ]
    return "\n".join(lines)
