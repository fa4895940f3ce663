"""Parameter counts of the shipped methods as their papers state them, biases included where the function has them.

d width, f inner width of the feed-forward block, L layers. He et al. 2022, Tables 9-11: prefix 2ld and adapter 2rd per
sub-layer, LoRA 4rd per attention sub-layer (their counts leave biases out; ours are what trains).
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
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


def _lokr(d: int, r: int) -> int:
    """d = m n with m the largest divisor up to √d: m² numbers whole, and n² or 2rn."""
    m = max(divisor for divisor in range(1, int(d**0.5) + 1) if d % divisor == 0)
    n = d // m
    return m * m + (2 * r * n if r < n / 2 else n * n)


CLOSED_FORMS: dict[str, Callable[..., Count]] = {
    "adapter": lambda d, f, L, biases, base: _same(2 * L * _bottleneck(d, 16)),
    "adapter_pfeiffer": lambda d, f, L, biases, base: _same(L * _bottleneck(d, 48)),
    "seq_bn": lambda d, f, L, biases, base: _same(L * _bottleneck(d, 48)),
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
    # Two d × d weights a layer, query and value. Orthogonal families: r or b(b-1)/2 numbers for a block.
    "oft": lambda d, f, L, biases, base: _same(L * 2 * (d // 32) * (32 * 31 // 2)),
    "boft": lambda d, f, L, biases, base: _same(L * 2 * (2 * d * 8 + d)),
    "hra": lambda d, f, L, biases, base: _same(L * 2 * 8 * d),
    "road": lambda d, f, L, biases, base: _same(L * 2 * d),
    "psoft": lambda d, f, L, biases, base: _same(L * 2 * (16 * 15 // 2 + 2 * 16)),
    "deft": lambda d, f, L, biases, base: _same(L * 2 * 2 * 8 * d),
    "loha": lambda d, f, L, biases, base: _same(L * 2 * 4 * 8 * d),
    "lokr": lambda d, f, L, biases, base: _same(L * 2 * _lokr(d, 8)),
    "gralora": lambda d, f, L, biases, base: _same(L * 2 * 2 * 32 * d),
    "miss": lambda d, f, L, biases, base: _same(L * 2 * 64 * d),
    "c3a": lambda d, f, L, biases, base: _same(L * 2 * d * d // 16),
    "fourierft": lambda d, f, L, biases, base: _same(L * 2 * min(1000, d * d)),
    "waveft": lambda d, f, L, biases, base: _same(L * 2 * min(2592, d * d)),
    "shira": lambda d, f, L, biases, base: _same(L * 2 * min(16 * 2 * d, d * d)),
    "supertuning": lambda d, f, L, biases, base: _same(L * 2 * (d * d // 100)),
    "delora": lambda d, f, L, biases, base: _same(L * 2 * (2 * 8 * d + 1)),
    "peanut": lambda d, f, L, biases, base: _same(L * 2 * 2 * 32 * d),
    "glora": lambda d, f, L, biases, base: _same(L * 2 * (4 * 8 * d + 3 * d)),
    "beft": lambda d, f, L, biases, base: _same(L * d),
    "rslora": lambda d, f, L, biases, base: _same(L * 2 * 2 * 16 * d),
    # Virtual tokens l d; through a network with two hidden layers of 128; gates (1,) per layer; rows of 10 tokens.
    "prompt_tuning": lambda d, f, L, biases, base: _same(20 * d),
    "p_tuning": lambda d, f, L, biases, base: Count(20 * d + 2 * 128 * d + d + 128 + 128 * 129, 20 * d),
    "llama_adapter": lambda d, f, L, biases, base: _same(L * (10 * d + 1)),
    "trainable_tokens": lambda d, f, L, biases, base: _same(10 * d),
    "ln_tuning": lambda d, f, L, biases, base: _same((2 * L + 1) * 2 * d),
    # Shared and frozen: vectors r and d_out per weight; bases n = d/r; logits and one bank; one vector for all.
    "vera": lambda d, f, L, biases, base: _same(L * 2 * (1024 + d)),
    "randlora": lambda d, f, L, biases, base: _same(L * 5 * -(-d // 32) * (32 + d)),
    "vblora": lambda d, f, L, biases, base: _same(L * 2 * 2 * 4 * 90 * d // gcd(256, d) + 90 * gcd(256, d)),
    "unilora": lambda d, f, L, biases, base: _same(23040),
    "tinylora": lambda d, f, L, biases, base: _same(16),
    "adalora_fixed": lambda d, f, L, biases, base: _same(L * 12 * (3 * (2 * d + 1) + 2 * (d + f + 1))),
    "lora_fa": lambda d, f, L, biases, base: _same(L * 2 * 16 * d),
    "pissa": lambda d, f, L, biases, base: _same(L * 4 * 16 * d),
    "milora": lambda d, f, L, biases, base: _same(L * 4 * 16 * d),
    "olora": lambda d, f, L, biases, base: _same(L * 4 * 16 * d),
    # Compacter: of each map two factors of rank one, a bias; n = 4, so a rule of 4³ (Karimi Mahabadi et al., Table 1).
    "compacter": lambda d, f, L, biases, base: _same(2 * L * 3 * (d + 24) + 4**3),
    "compacterpp": lambda d, f, L, biases, base: _same(L * 3 * (d + 24) + 4**3),
    "adapter_plus": lambda d, f, L, biases, base: _same(L * (_bottleneck(d, 8) + d)),
    "scaled_par_bn": lambda d, f, L, biases, base: _same(L * (_bottleneck(d, 384) + 1)),
    "prefix_flat": lambda d, f, L, biases, base: _same(L * 2 * 32 * d),
    "prefix_gated": lambda d, f, L, biases, base: Count(
        _prefix_network(d, L, 32, 512) + L * (d + 1), L * (2 * 32 * d + d + 1)
    ),
    "loreft": lambda d, f, L, biases, base: _same(2 * L * (2 * 8 * d + 8)),
    "noreft": lambda d, f, L, biases, base: _same(2 * L * (2 * 8 * d + 8)),
    "direft": lambda d, f, L, biases, base: _same(2 * L * (2 * 8 * d + 8)),
}
