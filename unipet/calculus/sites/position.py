"""The position of an insertion: its options, and what `layers` and `tokens` mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from unipet.calculus.options import option
from unipet.calculus.sites.layer_groups import SCHEMES, group_layers, read_group
from unipet.errors import LONGEST, UnipetError, not_allowed

FORMS = ("parallel", "sequential")


@dataclass(frozen=True)
class Position:
    """Where an insertion sits, and what feeds it.

    `site` is a role or a list of roles. `form` is `parallel` (the function reads x) or `sequential` (it reads h).
    `layers`: `all`, a list of indices, "0-5" (inclusive), `first:k`, `last:k`, or a group such as `spindle:2/4`, the second of
    four whose sizes follow a scheme (`layer_groups.py`). `stack`: `all`, `encoder`, `decoder`.
    `tokens`: `all`, `first:k` or `last:k`, counting real tokens only. `input`: `post_norm`, or `pre_norm` to read the
    un-normed residual stream of a pre-norm model, or `block_output` for what the block would yield unchanged: N(h + r),
    with r its residual and N its norm where the layer is post-norm (the adapters library's default). `side: input` makes
    h what the site's module reads instead of what it yields (a weight's right side instead of its left). `optional:
    true` allows roles that the base model does not have, a list of roles those alone.
    """

    site: list[str] = option([])
    form: str = option("parallel", choices=FORMS)
    layers: Any = option("all")
    stack: str = option("all", choices=("all", "encoder", "decoder"))
    tokens: str = option("all")
    input: str = option("post_norm", choices=("post_norm", "pre_norm", "block_output"))
    side: str = option("output", choices=("output", "input"))
    optional: Any = option(False)

    def may_miss(self, role: str) -> bool:
        """Whether the base model may lack this role."""
        return self.optional is True or (isinstance(self.optional, list) and role in self.optional)

    def check(self, key: str) -> None:
        """Raise UnipetError where the options do not make sense by themselves, without any base model."""
        if not self.site:
            raise UnipetError(
                f"{key}.site: missing. Name a role or a list of roles, for example ffn or [attn.q, attn.v]."
            )
        if len(set(self.site)) != len(self.site):
            raise UnipetError(f"{key}.site: a role is listed twice in {str(self.site)[:LONGEST]}.")
        if not isinstance(self.optional, bool):
            listed = self.optional if isinstance(self.optional, list) else None
            if listed is None or any(role not in self.site for role in listed):
                allowed = f"true, false or a list of roles among {', '.join(self.site)[:LONGEST]}"
                raise not_allowed(f"{key}.optional", self.optional, allowed)
        layer_indices(self.layers, None, f"{key}.layers")
        token_span(self.tokens, f"{key}.tokens")


def _counted(text: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(first|last):([0-9]{1,9})", text)
    return (match[1], int(match[2])) if match and int(match[2]) > 0 else None


def token_span(tokens: str, key: str) -> tuple[str, int] | None:
    """("first", k), ("last", k), or None for all tokens."""
    if tokens == "all":
        return None
    span = _counted(tokens)
    if span is None:
        raise not_allowed(key, tokens, "all, first:k or last:k with k at least 1")
    return span


def layer_indices(layers: Any, count: int | None, key: str) -> list[int]:
    """The layer numbers that a selector names in a stack of `count` layers (None: only check its form)."""
    total = 10**6 if count is None else count
    allowed = 'all, a list of layer numbers, "0-5" (inclusive), first:k, last:k, or a group SCHEME:k/n'
    allowed += f" (SCHEME: {', '.join(SCHEMES)})"
    if isinstance(layers, int) and not isinstance(layers, bool):
        layers = [layers]
    if isinstance(layers, list):
        if not layers or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in layers):
            raise not_allowed(key, layers, allowed)
        chosen = sorted(set(layers))
    elif layers == "all":
        return [] if count is None else list(range(count))
    elif isinstance(layers, str) and (span := _counted(layers)):
        if span[1] > total:
            raise UnipetError(f"{key}: {layers!r} asks for {span[1]} layers, the stack has {total}.")
        return list(range(span[1])) if span[0] == "first" else list(range(total - span[1], total)) if count else []
    elif isinstance(layers, str) and (group := read_group(layers)):
        if group[2] > total:
            raise UnipetError(f"{key}: {layers!r} asks for {group[2]} groups, the stack has {total} layers.")
        return group_layers(*group, count) if count else []
    elif isinstance(layers, str) and (match := re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", layers)):
        low, high = int(match[1]), int(match[2])
        if low > high:
            raise UnipetError(f"{key}: {layers!r} runs backwards.")
        chosen = [*range(low, min(high, total)), high]
    else:
        raise not_allowed(key, layers, allowed)
    if chosen[-1] >= total:
        raise UnipetError(f"{key}: layer {chosen[-1]} does not exist, the stack has layers 0-{total - 1}.")
    return chosen
