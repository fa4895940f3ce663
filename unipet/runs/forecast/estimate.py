"""From a few measured batches to all batches: which ones to measure, and the mean cost of the others."""

from __future__ import annotations

from collections.abc import Sequence

#: (size of a batch in tokens, including padding; its cost)
Point = tuple[float, float]


def representatives(sizes: Sequence[float], count: int) -> list[int]:
    """`count` representative indices (all, if there are fewer): the sizes are sorted and divided into equal groups, and
    the middle of each group is taken."""
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    count = min(count, len(order))
    return [order[(2 * part + 1) * len(order) // (2 * count)] for part in range(count)]


def mean_cost(points: Sequence[Point], mean_size: float) -> float:
    """The mean cost of batches of `mean_size` on average: the measured mean, moved along the least-squares line through
    `points` (the regression estimator of survey sampling; Cochran, Sampling Techniques, chapter 7).

    If all measured sizes are equal, cost is taken as proportional to size. Raises ValueError without points.
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
    slope = max(slope, 0.0)  # a larger batch never costs less; a negative slope is noise
    return max(cost + slope * (mean_size - size), 0.0)
