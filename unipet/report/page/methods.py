"""One part of the page per method: its compositions drawn, what they compute, and how they scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unipet.report.aggregate import Row
from unipet.report.numbers import percent
from unipet.report.page.circuit import circuit_svg
from unipet.report.page.comparison_table import method_id
from unipet.report.page.comparisons import Comparison
from unipet.report.page.composition import Composed, Inserted, compositions
from unipet.report.page.layer import layer_svg
from unipet.report.page.markup import e, number, section, table, tag
from unipet.report.table import score_text, seeds_text
from unipet.runs.labels import AS_GIVEN, SEPARATOR, leaves, plain

MOST = 60  # compositions that are drawn unless told otherwise; the others are described in words


def methods(comparisons: Sequence[Comparison], most: int = MOST) -> str:
    """The parts of all methods, and the list that leads to them; so many compositions are drawn."""
    found = compositions(comparisons)
    links = "".join(tag("li", tag("a", e(method), href=f"#{method_id(method)}")) for method in found)
    left, parts = most, []
    for method, kinds in found.items():
        parts.append(_method(method, kinds, max(left, 0)))
        left -= len(kinds)
    note = (
        "Each drawing is made from what a run trained, with the sizes that a budget solved. The layer is a scheme, "
        "bottom to top, with norms after their blocks."
    )
    if left < 0:
        note += (
            f" The first {most} compositions are drawn, the others described: a report of fewer runs draws them all."
        )
    return section(
        "methods",
        "Methods",
        tag("p", note, css="note"),
        tag("nav", tag("ul", links, css="chips"), aria_label="methods"),
        *parts,
    )


def _method(method: str, kinds: Sequence[Composed], drawings: int) -> str:
    blocks = []
    for at, kind in enumerate(kinds):
        block = _composition(kind, at < drawings)
        title = "; ".join(dict.fromkeys(_title(line.row) for _, line in kind.lines))
        blocks.append(block if len(kinds) == 1 else tag("details", tag("summary", e(title)), block, open=at == 0))
    return tag("article", tag("h3", e(method)), *blocks, id=method_id(method), css="method")


def _title(row: Row) -> str:
    """A variant, and the size that a budget solved."""
    size = [f"fitted size {row.size}"] if row.fitted else []
    return SEPARATOR.join([*([row.variant] if row.variant else []), *size]) or AS_GIVEN


def _composition(kind: Composed, drawn: bool) -> str:
    pictures = tag("figure", layer_svg(kind), tag("figcaption", e(_caption(kind)))) if drawn else ""
    parts = "".join(_insertion(one, drawn) for one in kind.insertions) or tag(
        "p", "It inserts nothing into the base model."
    )
    scores = table(
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
    rest = {key: value for key, value in kind.content.items() if key not in ("name", "insertions")}
    trained = (
        tag("p", e(f"Trains besides its insertions: {', '.join(kind.unfreeze)}."), css="note") if kind.unfreeze else ""
    )
    regularised = {key: value for key, value in leaves(rest.get("objective") or {}).items() if value is not None}
    objective = (
        tag(
            "p",
            e("Objective: " + ", ".join(f"{key} {plain(value)}" for key, value in regularised.items()) + "."),
            css="note",
        )
        if regularised
        else ""
    )
    return tag("div", pictures, tag("div", parts, trained, objective, scores, css="says"), css="composition")


def _caption(kind: Composed) -> str:
    inserted = "Numbered: inserted; the sign says how it joins."
    if not kind.content:
        return f"{inserted} Drawn from a record without a configuration: options, and what else trains, are not known."
    return f"Grey: frozen. ● and a thick border: trained. {inserted}"


def _insertion(one: Inserted, drawn: bool) -> str:
    """Equation, drawing, and every choice of one insertion."""
    worth = f"; s = {one.s}" if one.scaling.get("name") not in ("constant", None) else ""
    facts = [
        ("function", _said(one.function)),
        ("position", _said({**one.position, "site": one.sites})),
        ("composition", _said(one.composition)),
        ("scaling", _said(one.scaling) + worth),
        *([("mixture", _said(one.mixture))] if one.mixture else []),
    ]
    listed = "".join(tag("dt", e(key)) + tag("dd", e(value)) for key, value in facts)
    return tag(
        "div",
        tag("h4", e(f"{one.number} · {one.name}")),
        tag("p", e(one.equation), css="equation"),
        circuit_svg(one) if drawn else "",
        tag("dl", listed),
        css="insertion",
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
