"""One part of the page per method: its compositions drawn, what they compute, and how they scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unipet.report.aggregate import Row
from unipet.report.numbers import percent
from unipet.report.page.circuit import circuit
from unipet.report.page.comparison_table import method_id
from unipet.report.page.composition import Composed, Inserted
from unipet.report.page.layer import layer
from unipet.report.page.rendering import Table, number
from unipet.report.page.shapes import Drawing
from unipet.report.table import score_text, seeds_text
from unipet.runs.labels import AS_GIVEN, SEPARATOR, leaves, plain

MOST = 60  # compositions that are drawn unless told otherwise; the others are described in words


@dataclass(frozen=True)
class ShownInsertion:
    """One insertion: its equation, drawing and every choice."""

    title: str
    equation: str
    circuit: Drawing | None
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ShownComposition:
    """One composition of a method, drawn or in words, and how it scored."""

    title: str
    layer: Drawing | None
    caption: str
    insertions: Sequence[ShownInsertion]
    unfreeze: Sequence[str]
    objective: str
    scores: Table


@dataclass(frozen=True)
class ShownMethod:
    """A method and its compositions."""

    name: str
    anchor: str
    kinds: Sequence[ShownComposition]


def methods(composed: Mapping[str, Sequence[Composed]], most: int = MOST) -> list[ShownMethod]:
    """Every method of `compositions`, in its order; so many compositions are drawn."""
    left, shown = most, []
    for name, kinds in composed.items():
        parts = [_composition(kind, at < left) for at, kind in enumerate(kinds)]
        shown.append(ShownMethod(name, method_id(name), parts))
        left -= len(kinds)
    return shown


def _title(row: Row) -> str:
    """A variant, and the size that a budget solved."""
    size = [f"fitted size {row.size}"] if row.fitted else []
    return SEPARATOR.join([*([row.variant] if row.variant else []), *size]) or AS_GIVEN


def _composition(kind: Composed, drawn: bool) -> ShownComposition:
    scores = Table(
        "Scores",
        ("task", "model", "budget", "score", "seeds", "trainable", "%"),
        [
            (
                line.row.task_label,
                line.row.model,
                comparison.budget,
                f"{score_text(line.row)} {line.row.metric}",
                seeds_text(line.row),
                number(line.row.trainable, ",d"),
                percent(line.row.percent),
            )
            for comparison, line in kind.lines
        ],
        (3, 4, 5, 6),
    )
    regularised = {key: value for key, value in leaves(kind.objective).items() if value is not None}
    return ShownComposition(
        title="; ".join(dict.fromkeys(_title(line.row) for _, line in kind.lines)),
        layer=layer(kind) if drawn else None,
        caption=_caption(kind),
        insertions=[_insertion(insertion, drawn) for insertion in kind.insertions],
        unfreeze=kind.unfreeze,
        objective=", ".join(f"{key} {plain(value)}" for key, value in regularised.items()),
        scores=scores,
    )


def _caption(kind: Composed) -> str:
    inserted = "Numbered: inserted; the sign says how it joins."
    if not kind.content:
        return f"{inserted} Drawn from a record without a configuration: options, and what else trains, are not known."
    return f"Grey: frozen. ● and a thick border: trained. {inserted}"


def _insertion(insertion: Inserted, drawn: bool) -> ShownInsertion:
    worth = f"; s = {insertion.s}" if insertion.scaling.get("name") not in ("constant", None) else ""
    facts = [
        ("function", insertion.sized_function if "experts" in insertion.function else _said(insertion.function)),
        ("position", _said({**insertion.position, "site": insertion.sites})),
        ("composition", _said(insertion.composition)),
        ("scaling", _said(insertion.scaling) + worth),
        *([("mixture", _said(insertion.mixture))] if insertion.mixture else []),
    ]
    return ShownInsertion(
        f"{insertion.number} · {insertion.name}", insertion.equation, circuit(insertion) if drawn else None, facts
    )


def _said(value: Mapping[str, Any]) -> str:
    """The name first, then every option that says something."""
    options = {
        key: inner
        for key, inner in leaves(value).items()
        if key != "name" and inner not in (None, False, [], {}, "all")
    }
    words = [
        f"{key} {' '.join(map(str, inner)) if isinstance(inner, list) else plain(inner)}"
        for key, inner in options.items()
    ]
    return ", ".join([*([str(value["name"])] if value.get("name") else []), *words])
