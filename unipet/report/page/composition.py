"""A method as a page shows it: its insertions as plain mappings, as they were trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unipet.report.aggregate import named
from unipet.report.collect import Entry
from unipet.report.page.comparisons import Comparison, Line
from unipet.report.page.formulas import formula, joined, reads, scale
from unipet.runs.design import functions_in, trained
from unipet.runs.record import InsertionRow


@dataclass(frozen=True)
class Inserted:
    """One insertion: number and name, and its dimensions as mappings with a `name` each."""

    number: int
    name: str
    function: Mapping[str, Any]
    position: Mapping[str, Any]
    composition: Mapping[str, Any]
    scaling: Mapping[str, Any]
    mixture: Mapping[str, Any] | None
    matched: tuple[str, ...] = ()  # the sites that the base model has, where the record says which

    @property
    def sites(self) -> list[str]:
        """Where it sits: as the record says, else those sites that every base model has."""
        if self.matched:
            return list(self.matched)
        site, optional = self.position.get("site") or [], self.position.get("optional")
        asked = [site] if isinstance(site, str) else [str(role) for role in site]
        sure = [role for role in asked if not (optional is True or (isinstance(optional, list) and role in optional))]
        return sure or [role for role in asked if not role.startswith("cross") and not role.endswith("qkv")] or asked

    @property
    def input(self) -> str:
        """The name of what f reads: x, h, or nothing."""
        if reads(self.function) == "nothing":
            return ""
        if reads(self.function) == "heads":
            return "q"
        return "h" if self.position.get("form") == "sequential" else "x"

    @property
    def s(self) -> str:
        return scale(self.scaling, self.function.get("size"))

    @property
    def copies(self) -> int:
        """How many experts it has; 1 without a mixture."""
        experts = (self.mixture or {}).get("experts") or 1
        return len(experts) if isinstance(experts, Mapping) else int(experts)

    @property
    def sized_function(self) -> str:
        """The function with its size; those of all experts, where each has its own."""
        return ", ".join(map(_sized, self.function.get("experts", [self.function])))

    @property
    def equation(self) -> str:
        return f"h′ = {joined(self.composition, self.s)},  Δ = {formula(self.function, self.input or 'u')}"

    @property
    def sentence(self) -> str:
        """For those who do not see the drawing."""
        fed = {"": "reads nothing", "q": "reads the queries", "h": "reads h, the site's own output (sequential)"}.get(
            self.input, "reads x, the site's input (parallel)"
        )
        kind = "experts" if "experts" in self.function else "copies of its tensors"
        copies = f" It has {self.copies} {kind}." if self.mixture else ""
        return (
            f"Insertion {self.number}, {self.name}: function {self.sized_function} at {', '.join(self.sites)}; it {fed}; "
            f"composition {self.composition.get('name')}; scaling {self.s}.{copies}"
        )


@dataclass(frozen=True)
class Composed:
    """One distinct composition of a method, and the lines of the comparisons that used it."""

    method: str
    insertions: tuple[Inserted, ...]
    unfreeze: tuple[str, ...]
    objective: Mapping[str, Any]
    content: Mapping[str, Any]  # the whole method as it was trained; {} where only the record tells
    lines: tuple[tuple[Comparison, Line], ...]


def compositions(comparisons: Sequence[Comparison]) -> dict[str, list[Composed]]:
    """Method name -> its distinct compositions, in the order in which they appear."""
    composed: dict[str, dict[str, tuple[Entry, list[tuple[Comparison, Line]]]]] = {}
    for comparison in comparisons:
        for line in comparison.lines:
            entry = line.entries[0]
            key = json.dumps(trained(entry.record, entry.config) or _rows(entry), default=str)
            composed.setdefault(line.row.method, {}).setdefault(key, (entry, []))[1].append((comparison, line))
    return {
        method: [_composed(method, entry, lines) for entry, lines in kinds.values()]
        for method, kinds in sorted(composed.items())
    }


def composed_of(entry: Entry) -> Composed:
    """The composition of one run, as it was trained."""
    return _composed(named(entry.record.method), entry, ())


def _composed(method: str, entry: Entry, lines: Sequence[tuple[Comparison, Line]]) -> Composed:
    content = trained(entry.record, entry.config)
    if not isinstance(content.get("insertions"), Mapping):
        return Composed(method, _recorded(entry.record.insertions), (), {}, {}, tuple(lines))
    matched = {row.name: tuple(row.sites) for row in entry.record.insertions}
    insertions = tuple(
        Inserted(
            number,
            str(name),
            _function(written),
            _mapping(written.get("position")),
            _mapping(written.get("composition")),
            _mapping(written.get("scaling")),
            written.get("mixture"),
            matched.get(str(name), ()),
        )
        for number, (name, written) in enumerate(content["insertions"].items(), 1)
        if isinstance(written, Mapping)
    )
    unfreeze = content.get("unfreeze") or ()
    return Composed(
        method, insertions, tuple(map(str, unfreeze)), _mapping(content.get("objective")), content, tuple(lines)
    )


def _rows(entry: Entry) -> list[dict[str, Any]]:
    return [row.to_dict() for row in entry.record.insertions]


def _recorded(insertions: Sequence[InsertionRow]) -> tuple[Inserted, ...]:
    """The insertions of a record without a configuration: names, no options."""
    return tuple(
        Inserted(
            number,
            str(row.name),
            {"name": row.function},
            {"site": row.sites, "form": row.form},
            {"name": row.composition},
            {"name": row.scaling},
            None,
        )
        for number, row in enumerate(insertions, 1)
    )


def _function(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function of a written insertion; of experts that differ, all of them under `experts`."""
    own = [_mapping(holder.get("function")) for holder in functions_in(written)]
    if len(own) == 1:
        return own[0]
    return {"name": " + ".join(dict.fromkeys(str(function.get("name")) for function in own)), "experts": own}


def _sized(function: Mapping[str, Any]) -> str:
    size = function.get("size")
    return f"{function.get('name')}" + (f" {size}" if size is not None else "")


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {"name": value}
