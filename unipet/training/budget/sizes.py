"""The largest sizes that a limit on trained parameters allows.

One factor g controls the sizes of all insertions: each size is the largest that its function allows up to g times the
insertion's ratio. Trained parameters are counted from the shapes of the slots, site by site. Nothing is built during the
search for g.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import nn

from unipet.adaptation.build import places
from unipet.adaptation.describing import Draft, draft
from unipet.adaptation.report import AdaptReport
from unipet.adaptation.stack_hooks import entry_of
from unipet.adaptation.virtual_tokens import position_limit
from unipet.calculus.functions.base import Function, Slots, Widths
from unipet.calculus.method import InsertionSpec, Method
from unipet.calculus.mixture import Mixture
from unipet.calculus.sites import ARCHITECTURES, Architecture, Site, architecture_of
from unipet.errors import UnipetError
from unipet.training.budget.size_places import key_of, parts_of, place_of, with_sizes


@dataclass(frozen=True)
class Sized:
    """One size that a budget may choose: an insertion's, or one `expert`'s of a mixture of functions, whose function `spec` then
    has. `sizes` are sorted by the number of parameters that they train."""

    spec: InsertionSpec
    expert: str | None
    widths: tuple[Widths, ...]  # of its sites
    sizes: Sequence[int]
    at: Sequence[Fraction] | None  # the g that reaches each size; None: the size over the ratio

    @property
    def key(self) -> str:
        """The option of the size, as written in an override."""
        return key_of(self.spec, self.expert)

    @property
    def place(self) -> str:
        """The name of the insertion, or of its expert."""
        return place_of(self.spec, self.expert)

    def growth(self, number: int) -> Fraction:
        """The smallest g that reaches the size with this index."""
        return Fraction(self.sizes[number]) / _ratio(self.spec) if self.at is None else self.at[number]

    def size(self, g: Fraction) -> int:
        """The largest size that g reaches, or the smallest size if g reaches none."""
        return self.sizes[max(0, self.reached(g) - 1)]

    def reached(self, g: Fraction) -> int:
        """How many of the sizes are reached by g."""
        if self.at is None and isinstance(self.sizes, range):
            largest = int(g * _ratio(self.spec))
            return min(len(self.sizes), max(0, (largest - self.sizes.start) // self.sizes.step + 1))
        return bisect_right(range(len(self.sizes)), g, key=self.growth)

    def count(self, size: int) -> int:
        """The number of trained parameters at a size."""
        return trained(self.spec.function.with_knob(size), self.widths, self.spec.mixture)


def trained(function: Function, widths: Sequence[Widths], mixture: Mixture | None) -> int:
    """The number of parameters that a function trains on sites of these widths, including the experts of a mixture and
    tensors that all sites share."""
    total = _numbers(function.shared(widths), None)
    for width, sites in Counter(replace(one, number=0) for one in widths).items():
        slots = function.slots(width)
        total += sites * (_numbers(slots, mixture) + (0 if mixture is None else mixture.weights(slots, width.u)))
    return total


def _numbers(slots: Slots, mixture: Mixture | None) -> int:
    return sum(
        sum(spec.count for spec in tensors.values())
        * (
            0
            if mixture is not None and mixture.frozen
            else mixture.experts
            if mixture is not None and slot not in mixture.share
            else 1
        )
        for slot, tensors in slots.items()
    )


def sized(method: Method, model: nn.Module, sites: Architecture | None = None, length: int = 0) -> list[Sized]:
    """The insertions of `method` whose size may change on `model`.

    `length` is the number of positions that the input occupies: on a base model with learned positions, virtual tokens get
    at most the rest. Raises UnipetError for a `ratio` of an insertion without a size, and as `describe` for invalid sites.
    """
    found: list[Sized] = []
    table = (sites or architecture_of(model, ARCHITECTURES)) if method.insertions else None
    for spec in method.insertions:
        assert table is not None
        where, widths = places(model, table, spec)
        own = [(expert, one, one.function.sizes(widths) if widths else ()) for expert, one in parts_of(spec)]
        if spec.ratio is not None and widths and not any(sizes for _, _, sizes in own):
            raise UnipetError(
                f"method.insertions.{spec.name}.ratio: its function has no size that a budget could choose. Remove it "
                f"with the override '~method.insertions.{spec.name}.ratio' (or delete the line)."
            )
        for expert, one, sizes in own if spec.ratio != 0 else ():
            if sizes:
                sizes = _within(sizes, _room(model, table, one, where, length))
                found.append(_ordered(Sized(one, expert, tuple(widths), sizes, None)))
    return found


def _room(model: nn.Module, table: Architecture, spec: InsertionSpec, sites: Sequence[Site], length: int) -> int | None:
    """How many positions are left for the virtual tokens of an insertion."""
    if not (spec.composition.lengthens or getattr(spec.composition, "shift_positions", False)):
        return None
    limits = [position_limit(entry_of(model, table, site)) for site in sites]
    return min((limit - length for limit in limits if limit is not None), default=None)


def _within(sizes: Sequence[int], most: int | None) -> Sequence[int]:
    """The sizes up to `most`, but at least the smallest one."""
    if most is None:
        return sizes
    if isinstance(sizes, range):
        return range(sizes.start, max(most, sizes.start) + 1, sizes.step)
    return [size for size in sizes if size <= max(most, sizes[0])]


def _ordered(made: Sized) -> Sized:
    """Sizes sorted by the number of trained parameters, without those that train no more than the size before."""
    if isinstance(made.sizes, range):
        return made
    counts: dict[int, int] = {}
    for size in made.sizes:
        counts.setdefault(made.count(size), size)
    ordered = [counts[count] for count in sorted(counts)]
    if ordered == sorted(ordered):
        return replace(made, sizes=ordered)
    # If a smaller size can train more, g is relative to the parameters that the size nearest to the ratio trains.
    ratio = _ratio(made.spec)
    start = made.count(min(ordered, key=lambda size: (abs(size - ratio), size)))
    return replace(made, sizes=ordered, at=[Fraction(count, start) for count in sorted(counts)])


def _ratio(spec: InsertionSpec) -> Fraction:
    given = getattr(spec.function, spec.function.knob, None) if spec.ratio is None else spec.ratio
    return Fraction(str(given or 1))


@dataclass(frozen=True)
class Solution:
    """`draft` is `method` on the base model. If it trains more than the limit, its sizes are the smallest possible ones.

    `sizes` and `larger` map the option of each size to its value. `larger` are the next larger sizes, None if there are
    none; `larger_trains` is the number of parameters that they would train.
    """

    method: Method
    draft: Draft
    sizes: dict[str, int]
    larger: dict[str, int] | None
    larger_trains: int | None

    @property
    def report(self) -> AdaptReport:
        """The report of the method on the base model."""
        return self.draft.report


def solve(method: Method, model: nn.Module, limit: int, sites: Architecture | None = None, length: int = 0) -> Solution:
    """Find the largest sizes of `method` on `model` with at most `limit` trained parameters, excluding the head.

    The ratios of the insertions determine how their sizes share the limit. `model` may be on the meta device. `length`
    and errors are as in `sized`.
    """
    insertions = sized(method, model, sites, length)
    smallest = with_sizes(method, {one.place: one.sizes[0] for one in insertions})
    built = draft(smallest, model, sites)
    rest = built.report.trainable - sum(one.count(one.sizes[0]) for one in insertions)
    g, after = largest(insertions, limit - rest)
    solved = with_sizes(method, {one.place: one.size(g) for one in insertions})
    if solved != smallest:
        built = draft(solved, model, sites)
    if built.report.trainable != rest + together(insertions, g):
        raise AssertionError(f"counted {rest + together(insertions, g)} parameters, {built.report.trainable} train")
    sizes = {one.key: one.size(g) for one in insertions}
    if after is None:
        return Solution(solved, built, sizes, None, None)
    larger = {one.key: one.size(after) for one in insertions}
    return Solution(solved, built, sizes, larger, rest + together(insertions, after))


def largest(insertions: Sequence[Sized], limit: int) -> tuple[Fraction, Fraction | None]:
    """The largest g at which the functions train at most `limit` parameters (0, for the smallest sizes, if there is none),
    and the next g that changes a size (None if all sizes are at their maximum)."""
    g = Fraction(0)
    if together(insertions, g) <= limit:
        for one in insertions:
            counts = range(len(one.sizes))
            within = bisect_right(counts, limit, key=lambda k, one=one: together(insertions, one.growth(k)))  # type: ignore[misc]
            g = max(g, one.growth(within - 1)) if within else g
    return g, min((one.growth(k) for one in insertions if (k := _next(one, g)) is not None), default=None)


def together(insertions: Sequence[Sized], g: Fraction) -> int:
    """The number of parameters that the functions train at g."""
    return sum(one.count(one.size(g)) for one in insertions)


def _next(sized: Sized, g: Fraction) -> int | None:
    """The index of the first size that needs more than g and differs from the size at g."""
    number = max(1, sized.reached(g))
    return number if number < len(sized.sizes) else None
