"""The report of `adapt` and `describe`: one row per insertion, and the parameter counts."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.merging import reasons
from unipet.calculus.composition import COMPOSITIONS
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.insertion import Insertion
from unipet.calculus.method import name_of
from unipet.calculus.mixture.expert_functions import functions_of
from unipet.calculus.scaling import SCALINGS
from unipet.calculus.weights import size
from unipet.output.text_table import text_table


@dataclass(frozen=True)
class InsertionRow:
    """One insertion on one base model."""

    name: str
    function: str
    sites: list[str]
    form: str
    composition: str
    scaling: str
    modules: list[str]
    shapes: dict[str, list[int]]
    parameters: int
    percent: float
    foldable: bool
    why_not: str | None
    identity_at_start: bool
    experts: dict[str, dict[str, int]] = field(default_factory=dict)  # routed, shared -> {sites, parameters} at theirs

    def to_dict(self) -> dict[str, Any]:
        """Plain data; without experts of the base model, nothing is said of them."""
        return {name: value for name, value in vars(self).items() if name != "experts" or value}


@dataclass(frozen=True)
class AdaptReport:
    """A method on a base model. Counts are parameters; `percent` is trainable over base, the head in neither.

    `stored` is what a saved adapter holds without the head; `merged` what remains of the insertions once mixtures and
    reparametrisations are baked, unfrozen base parameters included; `formula` the same without the biases and norms of
    functions, as the papers' formulas count (He et al. 2022, App. B: prefix 2ld, adapter 2rd, LoRA 4rd per sub-layer).
    """

    method: str
    base: int
    trainable: int
    head: int
    stored: int
    merged: int
    formula: int
    insertions: list[InsertionRow]
    unfrozen: dict[str, tuple[int, int]]  # part of `unfreeze` -> (tensors, parameters)

    @property
    def percent(self) -> float:
        return 100.0 * self.trainable / self.base if self.base else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `--json` prints and as a run's record keeps it."""
        params = {key: getattr(self, key) for key in ("base", "trainable", "head", "stored", "merged", "formula")}
        return {
            "method": self.method,
            "params": {**params, "percent": round(self.percent, 6)},
            "insertions": [row.to_dict() for row in self.insertions],
            "unfrozen": {part: {"tensors": n, "parameters": count} for part, (n, count) in self.unfrozen.items()},
        }

    def table(self) -> str:
        """The report as text for a terminal."""
        header = ["insertion", "site", "modules", "shapes", "parameters", "percent", "folds"]
        rows = [
            [
                row.name,
                "\n".join(textwrap.wrap(", ".join(row.sites), 24)),
                "\n".join(f"{count} x {kind}" for kind, count in _patterns(row.modules).items()),
                "\n".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in row.shapes.items()),
                f"{row.parameters:,}",
                f"{row.percent:.3f}",
                "yes" if row.foldable else "no",
            ]
            for row in self.insertions
        ]
        lines = [text_table(header, rows)] if rows else []
        lines += [
            f"{row.name}: {', '.join(_said(kind, counts) for kind, counts in row.experts.items())}"
            for row in self.insertions
            if row.experts
        ]
        lines += [f"{row.name} does not fold: {row.why_not}" for row in self.insertions if not row.foldable]
        lines += [
            f"unfreeze {part}: {tensors:,} tensors, {count:,} parameters"
            for part, (tensors, count) in self.unfrozen.items()
        ]
        lines.append(
            f"{self.method}: {self.trainable:,} trainable parameters, {self.percent:.3f} % of the base model's {self.base:,}"
        )
        lines.append(
            f"stored {self.stored:,}; merged {self.merged:,} (mixtures averaged, reparametrisations dropped); by formula "
            f"{self.formula:,}\n(merged, without biases and norms of functions); the head's {self.head:,} are in none of these"
        )
        return "\n".join(lines)


#: Which of the base model's experts a role is in, by how it begins.
_EXPERTS = {"experts": "routed", "shared": "shared"}


def _said(kind: str, counts: dict[str, int]) -> str:
    return f"{counts['parameters']:,} parameters at {counts['sites']:,} sites of {kind} experts"


def _of_experts(own: list[Insertion]) -> dict[str, dict[str, int]]:
    """What of an insertion is at routed and at shared experts; {} where it is at neither."""
    found: dict[str, dict[str, int]] = {}
    for insertion in own:
        if (kind := _EXPERTS.get(insertion.site.role.split(".")[0])) is not None:
            counts = found.setdefault(kind, {"sites": 0, "parameters": 0})
            counts["sites"] += 1
            counts["parameters"] += sum(bank.count for bank in insertion.banks)
    return found


def _patterns(modules: list[str]) -> dict[str, int]:
    """Module paths with * for their numbers, and how many modules each stands for."""
    found: dict[str, int] = {}
    for path in modules:
        kind = ".".join("*" if part.isdigit() else part for part in path.split("."))
        found[kind] = found.get(kind, 0) + 1
    return found


def report_of(model: nn.Module, inserted: Adaptation) -> AdaptReport:
    """Count and describe an adaptation, attached or not."""
    base = head = unfrozen = 0
    parts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith("_unipet"):
            continue
        part = inserted.unfrozen.get(name)
        if part is not None:
            tensors, count = parts.get(part, (0, 0))
            parts[part] = (tensors + 1, count + size(parameter))
        if name not in inserted.head:
            base += size(parameter)
            unfrozen += size(parameter) if part is not None else 0
        elif part == "head":
            head += size(parameter)
    counts = [_merged_counts(insertion) for insertion in inserted.items]
    merged = sum(count for count, _ in counts)
    merged += sum(_kept_shared({i.name: i for i in inserted.items}[name]) for name in inserted.shared)
    rows = _rows(model, inserted, base)
    owned = sum(row.parameters for row in rows)
    trainable, left = owned + unfrozen, merged + unfrozen
    formula = left - sum(small for _, small in counts)
    stored = trainable + sum(p.numel() for i in inserted.items for _, p in i.bank.settled_tensors())
    return AdaptReport(inserted.method.name, base, trainable, head, stored, left, formula, rows, parts)


def _merged_counts(insertion: Insertion) -> tuple[int, int]:
    """What remains once mixtures and reparametrisations are baked, and of it the function's biases and norms, which
    formulas leave out. Experts that differ remain all, and what weighs them."""
    functions = functions_of(insertion.parts.evaluated.plain())
    slots = [item for function in functions for item in function.slots(insertion.widths).items()]
    own = [(slot, spec) for slot, tensors in slots for spec in tensors.values()]
    small = sum(spec.count for slot, spec in own if slot == "norm" or spec.part == "bias")
    count = sum(spec.count for _, spec in own) + insertion.scale.count + insertion.joint.count
    bank = insertion.bank
    return count + (bank.home.parameter(bank.gate).numel() if bank.differ and bank.gate else 0), small


def _kept_shared(insertion: Insertion) -> int:
    """What all sites share counts once, unless it only served a reparametrisation."""
    function, shared = insertion.parts.evaluated, insertion.shared
    return shared.count if shared and function.plain() is function else 0


def _rows(model: nn.Module, inserted: Adaptation, base: int) -> list[InsertionRow]:
    why = dict(zip((i.number for i in inserted.items), reasons(model, inserted), strict=True))
    rows: list[InsertionRow] = []
    for spec in inserted.method.insertions:
        own = [i for i in inserted.items if i.name == spec.name]
        shapes: dict[str, list[int]] = {}
        count = 0
        for bank in (bank for insertion in own for bank in insertion.banks):
            for name, tensor in bank.named_tensors():
                shapes.setdefault(name, list(tensor.shape))
                count += tensor.numel()
        if spec.name in inserted.shared:
            shared = inserted.shared[spec.name]
            count += shared.count
            shapes |= {f"shared {name}": list(tensor.shape) for name, tensor in shared.named_tensors()}
        reason = next((why[i.number] for i in own if why[i.number]), None)
        rows.append(
            InsertionRow(
                name=spec.name,
                function=name_of(FUNCTIONS, spec.function),
                sites=list(dict.fromkeys(i.site.role for i in own)),
                form=spec.position.form,
                composition=name_of(COMPOSITIONS, spec.composition),
                scaling=name_of(SCALINGS, spec.scaling),
                modules=[i.site.name for i in own],
                shapes=shapes,
                parameters=count,
                percent=round(100.0 * count / base, 6) if base else 0.0,
                foldable=bool(own) and reason is None,
                why_not=reason if own else "no site on this base model",
                identity_at_start=all(i.parts.identity_at_start for i in own),
                experts=_of_experts(own),
            )
        )
    return rows
