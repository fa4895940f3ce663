"""Parameter counts of the shipped methods as their papers state them, biases included where the function has them.

d width, f inner width of the feed-forward block, L layers. He et al. 2022, Tables 9-11: prefix 2ld and adapter 2rd per
sub-layer, LoRA 4rd per attention sub-layer (their counts leave biases out; ours are what trains).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Count(NamedTuple):
    trained: int
    merged: int


def _same(count: int) -> Count:
    return Count(count, count)


def _bottleneck(d: int, r: int) -> int:
    return 2 * r * d + r + d


def _prefix_network(d: int, L: int, size: int, hidden: int) -> int:
    """Embedding (l, d), Linear (d, m), Linear (m, 2dL): Li & Liang's network for all layers."""
    return size * d + (d * hidden + hidden) + L * 2 * (hidden * d + d)


def _adamix(d: int, f: int, L: int, biases: int, base: int) -> Count:
    r, experts = 16, 4
    down, up = r * d + r, r * d + d
    return Count(L * (experts * down + up), L * (down + up))


def _adamix_lora(d: int, f: int, L: int, biases: int, base: int) -> Count:
    r, experts = 4, 8
    return Count(L * 2 * (experts * r * d + r * d), L * 2 * 2 * r * d)


def _unipelt(d: int, f: int, L: int, biases: int, base: int) -> Count:
    gates = L * 4 * (d + 1)  # prefix, two LoRA sites, bottleneck
    others = L * (2 * 2 * 8 * d + _bottleneck(d, 48)) + gates
    return Count(others + _prefix_network(d, L, 10, 512), others + L * 2 * 10 * d)


CLOSED_FORMS: dict[str, Callable[..., Count]] = {
    "adapter": lambda d, f, L, biases, base: _same(2 * L * _bottleneck(d, 16)),
    "adapter_pfeiffer": lambda d, f, L, biases, base: _same(L * _bottleneck(d, 48)),
    "parallel_adapter": lambda d, f, L, biases, base: _same(L * _bottleneck(d, 512)),
    "scaled_parallel_adapter": lambda d, f, L, biases, base: _same(L * _bottleneck(d, 512)),
    "multihead_parallel_adapter": lambda d, f, L, biases, base: _same(L * 2 * 200 * d),
    "prefix": lambda d, f, L, biases, base: Count(_prefix_network(d, L, 32, 800), L * 2 * 32 * d),
    "lora": lambda d, f, L, biases, base: _same(L * 4 * 16 * d),
    "mam": lambda d, f, L, biases, base: _same(L * (2 * 30 * d + _bottleneck(d, 512))),
    "adamix": _adamix,
    "adamix_lora": _adamix_lora,
    "unipelt": _unipelt,
    "ia3": lambda d, f, L, biases, base: _same(L * (2 * d + f)),
    "bitfit": lambda d, f, L, biases, base: _same(biases),
    "full": lambda d, f, L, biases, base: _same(base),
    "head_only": lambda d, f, L, biases, base: _same(0),
}
