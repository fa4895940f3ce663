"""A method within a budget's limit on trained parameters: fitted, left as it is, or not possible, and then why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import Any

from torch import nn

from unipet.adaptation.describing import Draft, draft
from unipet.adaptation.report import AdaptReport
from unipet.calculus.method import Method
from unipet.calculus.site_files import Sites, sites_for
from unipet.calculus.sites import head_names
from unipet.calculus.weights import size
from unipet.config import BudgetConfig
from unipet.errors import UnipetError
from unipet.training.budget.sizes import sized, solve


@dataclass(frozen=True)
class ParameterFit:
    """What a budget makes of a method. `why_not` says why the run cannot be, None where it can.

    `sizes` and `requested` map the option that holds a size to its value, after and before fitting; both are empty where
    nothing was fitted. `larger_trains` is what the next larger sizes would train, None where there are none. `limit` is
    None where the budget has no limit on parameters.
    """

    method: Method
    draft: Draft  # the method on the base model, without weights
    limit: int | None = None
    sizes: dict[str, int] | None = None
    requested: dict[str, int] | None = None
    larger_trains: int | None = None
    why_not: str | None = None

    @property
    def report(self) -> AdaptReport:
        """What trains on the base model."""
        return self.draft.report

    def record(self) -> dict[str, Any]:
        """Plain data, for a run's record."""
        return {
            "parameter_limit": self.limit,
            "requested": self.requested or {},
            "sizes": self.sizes or {},
            "larger_trains": self.larger_trains,
        }

    def text(self) -> str:
        """The same for a terminal; empty where the budget has no limit on parameters."""
        if self.limit is None:
            return ""
        lines = [f"budget: at most {self.limit:,} trained parameters"]
        for key, value in (self.sizes or {}).items():
            lines.append(f"fitted: {key}={value} (given: {(self.requested or {})[key]})")
        if self.why_not is not None:
            lines.append(f"does not fit: {self.why_not}")
        elif self.larger_trains is not None:
            lines.append(f"the next larger sizes would train {self.larger_trains:,}")
        elif self.sizes:
            lines.append("no larger sizes are possible on this base model")
        return "\n".join(lines)


def parameter_limit(budget: BudgetConfig, base: int) -> tuple[int, str] | None:
    """How many parameters may train on a base model of `base`, the heads in neither, and in words why; None: any number."""
    limits = []
    if budget.trainable_params is not None:
        limits.append((budget.trainable_params, f"budget.trainable_params={budget.trainable_params}"))
    if budget.trainable_percent is not None:
        percent = Fraction(str(budget.trainable_percent))  # as it is written: 0.1 is a tenth
        text = f"budget.trainable_percent={budget.trainable_percent:g} of the base model's {base:,}"
        limits.append((floor(percent * base / 100), text))
    return min(limits, default=None)


def fit_parameters(
    method: Method, model: nn.Module, budget: BudgetConfig, sites: Sites = None, length: int = 0
) -> ParameterFit:
    """`method` on `model` (which may be on the meta device) within the budget's limit on trained parameters.

    With `on_exceed: fit` the method's sizes become the largest within the limit, whatever they were: what the file says
    is their ratio. Otherwise they stay. `length` are the positions that inputs take (virtual tokens get the rest).
    Raises UnipetError as `describe`, and with `on_exceed: error` where the limit cannot be kept.
    """
    table = sites_for(model, sites)
    head = head_names(model)
    base = sum(size(each) for name, each in model.named_parameters() if name not in head)
    found = parameter_limit(budget, base)
    if found is None:
        return ParameterFit(method, draft(method, model, table))
    limit, why = found
    if budget.on_exceed == "fit" and sized(method, model, table, length):
        solution = solve(method, model, limit, table, length)
        sizes = solution.sizes
        given = {key: _given(method, key) for key in sizes}
        fit = ParameterFit(solution.method, solution.draft, limit, sizes, given, solution.larger_trains)
    else:
        fit = ParameterFit(method, draft(method, model, table), limit)
    if fit.report.trainable <= limit:
        return fit
    problem = _too_many(fit, budget, why)
    if budget.on_exceed == "error":
        raise UnipetError(f"{problem} Raise the limit, or leave such runs out: budget.on_exceed=skip.")
    return replace(fit, why_not=problem)


def _given(method: Method, key: str) -> int:
    """The value of an option `method.insertions.NAME.function.OPTION`."""
    _, _, name, _, option = key.split(".")
    found: int = getattr(next(spec.function for spec in method.insertions if spec.name == name), option)
    return found


def _too_many(fit: ParameterFit, budget: BudgetConfig, why: str) -> str:
    """What does not fit, by how much, and what could be done."""
    report, limit = fit.report, fit.limit or 0
    smallest = ""
    if fit.sizes:
        smallest = f" at its smallest ({', '.join(f'{key}={value}' for key, value in fit.sizes.items())})"
    text = (
        f"{why} allows {limit:,} trained parameters; {report.method} trains {report.trainable:,}{smallest}, "
        f"{report.trainable - limit:,} too many."
    )
    if budget.on_exceed != "fit":
        return f"{text} budget.on_exceed=fit would solve its sizes."
    if not fit.sizes:
        return f"{text} It has no size that could be lowered."
    for spec in fit.method.insertions:
        if getattr(spec.function, "reparam", None) is not None:
            text += (
                f" Most of them may be the network that method.insertions.{spec.name}.function.reparam trains and merging "
                f"drops: without it (=null) {report.merged:,} would train."
            )
    return text
