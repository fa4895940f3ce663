"""Which points of a design space can run, and which are the same method written differently.

A point is drafted on the base model without weights, its sizes fitted to the budget. Two points are the same where what is left
is the same: insertions without the absent ones, each with the modules at which it sits instead of a list of layers, in an order
that does not depend on how they were written where none of them meet; and every other setting.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.identity import APART
from unipet.runs.record_files import canonical_json

if TYPE_CHECKING:
    from torch import nn

    from unipet.adaptation.report import InsertionRow
    from unipet.calculus.method import Method

EQUAL, BUDGET, IMPOSSIBLE = "equal", "budget", "impossible"  # why a choice does not become a trial
EACH_LAYER = "each_layer"  # in a subset: every layer of the base model


@dataclass(frozen=True)
class Refused(Exception):
    """A choice does not become a trial: `kind` is one of the names above."""

    kind: str
    text: str


class Judge:
    """Judges configurations; a base model is built once, without weights."""

    def __init__(self) -> None:
        self._built: dict[str, nn.Module] = {}

    def layers(self, config: RunConfig) -> int:
        """How many layers the base model has; of an encoder-decoder the longer stack."""
        from unipet.calculus.site_files import sites_for
        from unipet.calculus.sites import ARCHITECTURES, architecture_of
        from unipet.calculus.sites.resolve import base_of

        built = self._model(config)
        table = sites_for(built, config.model.sites) or architecture_of(built, ARCHITECTURES)
        base = base_of(built)
        return max(len(list(base.get_submodule(stack.layers).children())) for stack in table.stacks.values())

    def key(self, config: RunConfig) -> str:
        """A text that equal points have in common. Raises `Refused` for a point that cannot run."""
        from unipet.calculus.library import load_method
        from unipet.calculus.site_files import sites_for
        from unipet.tasks import input_length
        from unipet.training.budget.parameters import fit_parameters

        try:
            built = self._model(config)
            budget = dataclasses.replace(config.budget, on_exceed="fit" if config.budget.on_exceed == "fit" else "skip")
            fit = fit_parameters(
                load_method(config.method),
                built,
                budget,
                sites_for(built, config.model.sites),
                input_length(config.task),
            )
        except UnipetError as error:
            raise Refused(IMPOSSIBLE, str(error)) from None
        if fit.why_not is not None:
            raise Refused(BUDGET, fit.why_not)
        others = {
            name: value for name, value in dataclasses.asdict(config).items() if name not in (*APART, "method", "trial")
        }
        content = [canonical(fit.method, fit.report.insertions), others]
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def _model(self, config: RunConfig) -> nn.Module:
        from unipet.runs.base_model import skeleton

        key = canonical_json([dataclasses.asdict(config.model), config.task.kind, list(config.task.labels)])
        if key not in self._built:
            self._built[key] = skeleton(config.model, config.task.kind, config.task.labels)
        return self._built[key]


def canonical(method: Method, rows: Sequence[InsertionRow]) -> dict[str, Any]:
    """What a method computes, and not how it is written. `rows` are the report's, with the modules of every insertion."""
    modules = {row.name: row.modules for row in rows}
    insertions = [(_content(spec.to_dict(), modules[spec.name]), set(modules[spec.name])) for spec in method.insertions]
    ordered: list[str] = []
    while insertions:  # those that meet stay in their order: of the others the one whose text comes first
        free = [
            content
            for at, (content, own) in enumerate(insertions)
            if not any(own & earlier for _, earlier in insertions[:at])
        ]
        ordered.append(min(free))
        insertions.pop(next(at for at, (content, _) in enumerate(insertions) if content == ordered[-1]))
    return {"insertions": ordered, "unfreeze": sorted(method.unfreeze), "objective": method.objective.to_dict()}


def _content(insertion: Mapping[str, Any], modules: Sequence[str]) -> str:
    position = {
        key: value for key, value in insertion["position"].items() if key not in ("layers", "stack", "optional")
    }
    position["site"] = sorted(position["site"])
    rest = {key: value for key, value in insertion.items() if key not in ("position", "ratio")}
    return canonical_json([rest, position, sorted(modules)])
