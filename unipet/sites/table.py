"""What an architecture table says: which module's output (or input) is h for each role, and which module reads x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Every role of the vocabulary, in the order of one layer. `cross.` repeats the attention roles on encoder-decoders.
ROLES: dict[str, str] = {
    "embed": "the embedded input sequence; x is the token ids",
    "attn.q": "output of the query projection",
    "attn.k": "output of the key projection",
    "attn.v": "output of the value projection",
    "attn.heads": "concatenated per-head outputs, before the output projection; x is the attention block's input",
    "attn.o": "output of the attention output projection; x is its input",
    "attn": "attention block output, before dropout, residual and norm; x is the attention block's input",
    "attn.post": "after the attention block's residual add (and norm, in a post-norm layer)",
    "ffn.up": "output of the first feed-forward projection",
    "ffn.gate": "output of the gating feed-forward projection",
    "ffn.mid": "the activation that enters the last feed-forward projection",
    "ffn.down": "output of the last feed-forward projection; x is its input",
    "ffn": "feed-forward block output, before dropout, residual and norm; x is the feed-forward block's input",
    "ffn.post": "after the feed-forward block's residual add (and norm, in a post-norm layer)",
    "layer": "the residual stream leaving a layer; x is the stream entering it",
    "norm": "a norm's output; x is its input",
}


@dataclass(frozen=True)
class Tap:
    """Where one role's h and x are found.

    `h` is a module path (relative to the layer, "" the layer itself); `at` says whether h is that module's `output`,
    its `input`, or the `heads` computed inside it. `x` is the module whose first input is x; None means h's own module.
    """

    h: str
    x: str | None = None
    at: str = "output"


@dataclass(frozen=True)
class Stack:
    """One stack of layers: the path of its layer list (relative to the base model) and the taps of each role."""

    layers: str
    roles: Mapping[str, tuple[Tap, ...]]


@dataclass(frozen=True)
class Architecture:
    """The table of one architecture. `outside` holds the roles that sit outside any layer (embeddings, final norm)."""

    name: str
    model_types: tuple[str, ...]
    stacks: Mapping[str, Stack]
    outside: Mapping[str, tuple[Tap, ...]] = field(default_factory=dict)
    pre_norm: bool = False

    def roles(self) -> list[str]:
        """The roles this architecture has, in the vocabulary's order."""
        found = {role for stack in self.stacks.values() for role in stack.roles} | set(self.outside)
        return [role for role in ROLES if role in found] + sorted(found - set(ROLES))
