"""Groups of consecutive layers whose sizes follow a scheme (Chen et al., "Parameter-Efficient Fine-Tuning Design Spaces", ICLR
2023, §4.1): `spindle:2/4` is the second of four groups."""

from __future__ import annotations

import re
from collections.abc import Callable

#: Scheme -> the share of the i-th of n groups, i from 0, before all are divided by their sum.
SCHEMES: dict[str, Callable[[int, int], int]] = {
    "uniform": lambda i, n: 1,
    "increasing": lambda i, n: i + 1,
    "decreasing": lambda i, n: n - i,
    "spindle": lambda i, n: min(i + 1, n - i),
    "bottleneck": lambda i, n: (n + 1) // 2 + 1 - min(i + 1, n - i),
}


def read_group(text: str) -> tuple[str, int, int] | None:
    """The scheme, the number of a group from 1, and how many there are; None for a text that names no group."""
    match = re.fullmatch(r"([a-z]+):([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or match[1] not in SCHEMES or not 1 <= int(match[2]) <= int(match[3]):
        return None
    return match[1], int(match[2]), int(match[3])


def group_sizes(scheme: str, groups: int, count: int) -> list[int]:
    """How many of `count` layers each group has: the scheme's shares, rounded by largest remainders (of equal ones the first),
    and at least one. Needs `groups` <= `count`."""
    shares = [SCHEMES[scheme](index, groups) for index in range(groups)]
    exact = [count * share / sum(shares) for share in shares]
    sizes = [int(each) for each in exact]
    for index in sorted(range(groups), key=lambda i: (sizes[i] - exact[i], i))[: count - sum(sizes)]:
        sizes[index] += 1
    while 0 in sizes:
        sizes[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(0)] += 1
    return sizes


def group_layers(scheme: str, number: int, groups: int, count: int) -> list[int]:
    """The layers of a group, which is numbered from 1."""
    sizes = group_sizes(scheme, groups, count)
    start = sum(sizes[: number - 1])
    return list(range(start, start + sizes[number - 1]))
