"""From a few measured batches to all batches: which to measure, and the mean cost of the others."""

from __future__ import annotations

from collections.abc import Sequence

#: (size of a batch in tokens, padding included; what it cost)
Point = tuple[float, float]


def spread(sizes: Sequence[float], count: int) -> list[int]:
    """`count` indices (all, if there are no more) that stand for all sizes: sorted by size and cut into equal parts, the
    middle of each part."""
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    count = min(count, len(order))
    return [order[(2 * part + 1) * len(order) // (2 * count)] for part in range(count)]


def mean_cost(points: Sequence[Point], mean_size: float) -> float:
    """The mean cost of batches of `mean_size` on average: the measured mean, moved along the least-squares line through
    `points` (the regression estimator of survey sampling; Cochran, Sampling Techniques, chapter 7).

    With no two sizes to draw a line through, cost goes with size. Raises ValueError without points.
    """
    if not points:
        raise ValueError("no batch was measured")
    size = sum(x for x, _ in points) / len(points)
    cost = sum(y for _, y in points) / len(points)
    spread_of_sizes = sum((x - size) ** 2 for x, _ in points)
    if spread_of_sizes > 0:
        slope = sum((x - size) * (y - cost) for x, y in points) / spread_of_sizes
    else:
        slope = cost / size if size else 0.0
    slope = max(slope, 0.0)  # a larger batch takes no less: noise would say so
    return max(cost + slope * (mean_size - size), 0.0)
