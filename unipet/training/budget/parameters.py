"""A method under a budget's limit on trained parameters: fitted, unchanged, or impossible with the reason."""

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
from unipet.training.budget.size_places import sizes_of
from unipet.training.budget.sizes import sized, solve


@dataclass(frozen=True)
class ParameterFit:
    """A method after fitting to a budget. `why_not` says why it cannot stay within the limit; None if it can.

    `sizes` and `requested` map the option of each fitted size to its value after and before fitting; both are empty if
    nothing was fitted. `larger_trains` is the number of parameters that the next larger sizes would train, None if there
    are none. `limit` is None if the budget has no limit on parameters.
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
        """The report of the fitted method on the base model."""
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
        """The same for a terminal; empty if the budget has no limit on parameters."""
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
    """The number of parameters that may train, and a text that explains it; None without a limit. `base` is the size of the
    base model. Both numbers exclude the head."""
    limits = []
    if budget.trainable_params is not None:
        limits.append((budget.trainable_params, f"budget.trainable_params={budget.trainable_params}"))
    if budget.trainable_percent is not None:
        percent = Fraction(str(budget.trainable_percent))  # exactly as written: 0.1 is a tenth
        text = f"budget.trainable_percent={budget.trainable_percent:g} of the base model's {base:,}"
        limits.append((floor(percent * base / 100), text))
    return min(limits, default=None)


def fit_parameters(
    method: Method, model: nn.Module, budget: BudgetConfig, sites: Sites = None, length: int = 0
) -> ParameterFit:
    """Fit `method` on `model` (which may be on the meta device) to the budget's limit on trained parameters.

    With `on_exceed: fit`, the method's sizes become the largest within the limit; the sizes in its file only give their
    ratio. Otherwise the sizes stay. `length` is the number of positions that inputs occupy; virtual tokens get the rest.
    Raises UnipetError as `describe`, and with `on_exceed: error` if the limit cannot be met.
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
        before = sizes_of(method)
        given = {key: before[key] for key in sizes}
        fit = ParameterFit(solution.method, solution.draft, limit, sizes, given, solution.larger_trains)
    else:
        fit = ParameterFit(method, draft(method, model, table), limit)
    if fit.report.trainable <= limit:
        return fit
    problem = _too_many(fit, budget, why)
    if budget.on_exceed == "error":
        raise UnipetError(f"{problem} Raise the limit, or leave such runs out: budget.on_exceed=skip.")
    return replace(fit, why_not=problem)


def _too_many(fit: ParameterFit, budget: BudgetConfig, why: str) -> str:
    """A text that says by how much the method exceeds the limit, and what to do."""
    report, limit = fit.report, fit.limit or 0
    smallest = ""
    if fit.sizes:
        smallest = f" at its smallest ({', '.join(f'{key}={value}' for key, value in fit.sizes.items())})"
    text = (
        f"{why} allows {limit:,} trained parameters; {report.method} trains {report.trainable:,}{smallest}, "
        f"{report.trainable - limit:,} too many."
    )
    if budget.on_exceed != "fit":
        return f"{text} budget.on_exceed=fit would choose smaller sizes."
    if not fit.sizes:
        return f"{text} It has no size that could be reduced."
    for spec in fit.method.insertions:
        if getattr(spec.function, "reparam", None) is not None:
            text += (
                f" Most of them may belong to the network of method.insertions.{spec.name}.function.reparam, which merging "
                f"drops. Without it (=null) {report.merged:,} would train."
            )
    return text
