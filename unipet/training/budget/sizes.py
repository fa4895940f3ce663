"""The largest sizes that a limit on trained parameters allows.

One knob g turns the sizes of all insertions: each is the largest that its function allows up to g times the insertion's
ratio. What trains is counted from the shapes of the slots, site by site, and nothing is built while g is searched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Sized:
    """One insertion whose size a budget may choose. `sizes` are in the order of what they train."""

    spec: InsertionSpec
    widths: tuple[Widths, ...]  # of its sites
    sizes: Sequence[int]
    at: Sequence[Fraction] | None  # the g that reaches each size; None: the size over the ratio

    @property
    def key(self) -> str:
        """The option that holds the size, as an override says it."""
        return f"method.insertions.{self.spec.name}.function.{self.spec.function.knob}"

    def growth(self, number: int) -> Fraction:
        """The g that reaches the size of this number."""
        return Fraction(self.sizes[number]) / _ratio(self.spec) if self.at is None else self.at[number]

    def size(self, g: Fraction) -> int:
        """The largest size up to g; the smallest where g is below all."""
        return self.sizes[max(0, self.reached(g) - 1)]

    def reached(self, g: Fraction) -> int:
        """How many of the sizes g reaches."""
        if self.at is None and isinstance(self.sizes, range):
            largest = int(g * _ratio(self.spec))
            return min(len(self.sizes), max(0, (largest - self.sizes.start) // self.sizes.step + 1))
        return bisect_right(range(len(self.sizes)), g, key=self.growth)

    def count(self, size: int) -> int:
        """How many numbers train at a size."""
        return trained(self.spec.function.with_knob(size), self.widths, self.spec.mixture)


def trained(function: Function, widths: Sequence[Widths], mixture: Mixture | None) -> int:
    """How many numbers of a function train on sites of these widths, the copies of a mixture and what all sites share
    included."""
    total = _numbers(function.shared(widths), None)
    for width, sites in Counter(replace(one, number=0) for one in widths).items():
        total += sites * _numbers(function.slots(width), mixture)
    return total


def _numbers(slots: Slots, mixture: Mixture | None) -> int:
    return sum(
        sum(spec.count for spec in tensors.values())
        * (mixture.experts if mixture is not None and slot not in mixture.share else 1)
        for slot, tensors in slots.items()
    )


def sized(method: Method, model: nn.Module, sites: Architecture | None = None, length: int = 0) -> list[Sized]:
    """The insertions of `method` whose size may change on `model`.

    `length` are the positions that the input takes: virtual tokens get no more than what a base model with learned
    positions leaves. Raises UnipetError for a ratio of an insertion without a size, and as `describe` for bad sites.
    """
    found: list[Sized] = []
    table = (sites or architecture_of(model, ARCHITECTURES)) if method.insertions else None
    for spec in method.insertions:
        assert table is not None
        function = spec.function
        where, widths = places(model, table, spec)
        sizes = function.sizes(widths) if widths else ()
        if not sizes:
            if spec.ratio is not None and widths:
                raise UnipetError(
                    f"method.insertions.{spec.name}.ratio: its function has no size that a budget could choose. Remove it "
                    f"with the override '~method.insertions.{spec.name}.ratio' (or delete the line)."
                )
        elif spec.ratio != 0:
            sizes = _within(sizes, _room(model, table, spec, where, length))
            found.append(_ordered(spec, tuple(widths), sizes))
    return found


def _room(model: nn.Module, table: Architecture, spec: InsertionSpec, sites: Sequence[Site], length: int) -> int | None:
    """How many positions an insertion that takes some may have."""
    if not (spec.composition.lengthens or getattr(spec.composition, "shift_positions", False)):
        return None
    limits = [position_limit(entry_of(model, table, site)) for site in sites]
    return min((limit - length for limit in limits if limit is not None), default=None)


def _within(sizes: Sequence[int], most: int | None) -> Sequence[int]:
    """The sizes up to `most`, but always the smallest."""
    if most is None:
        return sizes
    if isinstance(sizes, range):
        return range(sizes.start, max(most, sizes.start) + 1, sizes.step)
    return [size for size in sizes if size <= max(most, sizes[0])]


def _ordered(spec: InsertionSpec, widths: tuple[Widths, ...], sizes: Sequence[int]) -> Sized:
    """Sizes in the order of what they train, without those that train no more than the one before."""
    if isinstance(sizes, range):
        return Sized(spec, widths, sizes, None)
    made = Sized(spec, widths, sizes, None)
    counts: dict[int, int] = {}
    for size in sizes:
        counts.setdefault(made.count(size), size)
    ordered = [counts[count] for count in sorted(counts)]
    if ordered == sorted(ordered):
        return replace(made, sizes=ordered)
    # Where a smaller size trains more, g is about what is trained, over what the size nearest to the ratio trains.
    ratio = _ratio(spec)
    start = made.count(min(ordered, key=lambda size: (abs(size - ratio), size)))
    return replace(made, sizes=ordered, at=[Fraction(count, start) for count in sorted(counts)])


def _ratio(spec: InsertionSpec) -> Fraction:
    given = getattr(spec.function, spec.function.knob, None) if spec.ratio is None else spec.ratio
    return Fraction(str(given or 1))


def with_sizes(method: Method, sizes: Mapping[str, int]) -> Method:
    """`method` with the sizes of some of its insertions, by the insertion's name, replaced."""
    return replace(
        method,
        insertions=tuple(
            replace(spec, function=spec.function.with_knob(sizes[spec.name])) if spec.name in sizes else spec
            for spec in method.insertions
        ),
    )


@dataclass(frozen=True)
class Solution:
    """`draft` is `method` on the base model; where it trains more than the limit, these are the smallest sizes.

    `sizes` and `larger` map the option that holds a size to its value; `larger` are the next larger sizes, None where
    there are none, and `larger_trains` what these would train.
    """

    method: Method
    draft: Draft
    sizes: dict[str, int]
    larger: dict[str, int] | None
    larger_trains: int | None

    @property
    def report(self) -> AdaptReport:
        """What trains on the base model."""
        return self.draft.report


def solve(method: Method, model: nn.Module, limit: int, sites: Architecture | None = None, length: int = 0) -> Solution:
    """The largest sizes of `method` on `model` with at most `limit` trained parameters, the head excluded.

    Sizes share the limit by the ratios of their insertions. `model` may be on the meta device. See `sized` for `length`
    and for what is raised.
    """
    insertions = sized(method, model, sites, length)
    smallest = with_sizes(method, {one.spec.name: one.sizes[0] for one in insertions})
    built = draft(smallest, model, sites)
    rest = built.report.trainable - sum(one.count(one.sizes[0]) for one in insertions)
    g, after = largest(insertions, limit - rest)
    solved = with_sizes(method, {one.spec.name: one.size(g) for one in insertions})
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
    """The largest g at which the functions train at most `limit` numbers (0, the smallest sizes, where none does), and the
    next g that changes a size (None: all are as large as they may be)."""
    g = Fraction(0)
    if together(insertions, g) <= limit:
        for one in insertions:
            counts = range(len(one.sizes))
            within = bisect_right(counts, limit, key=lambda k, one=one: together(insertions, one.growth(k)))  # type: ignore[misc]
            g = max(g, one.growth(within - 1)) if within else g
    return g, min((one.growth(k) for one in insertions if (k := _next(one, g)) is not None), default=None)


def together(insertions: Sequence[Sized], g: Fraction) -> int:
    """How many numbers the functions train at g."""
    return sum(one.count(one.size(g)) for one in insertions)


def _next(one: Sized, g: Fraction) -> int | None:
    """The number of the first size that takes more than g and differs from the one at g."""
    number = max(1, one.reached(g))
    return number if number < len(one.sizes) else None
