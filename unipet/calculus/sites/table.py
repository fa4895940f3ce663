"""What an architecture table says: which module's output (or input) is h for each role, and which module reads x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unipet.calculus.sites.experts import INSIDE

_ATTENTION: dict[str, str] = {
    "attn.qkv": "output of a fused query, key and value projection, where there is one",
    "attn.q": "output of the query projection",
    "attn.k": "output of the key projection",
    "attn.v": "output of the value projection",
    "attn.heads": "concatenated per-head outputs, before the output projection; x is the attention block's input",
    "attn.o": "output of the attention output projection; x is its input",
    "attn": "attention block output, before dropout, residual and norm; x is the attention block's input",
    "attn.post": "after the attention block's residual add (and norm, in a post-norm layer)",
}
_CROSS = {
    role.replace("attn", "cross"): what.replace("attention", "cross-attention")
    for role, what in _ATTENTION.items()
    if role != "attn.qkv"
}
#: Every role of the vocabulary, in the order of one layer. `cross.` repeats the attention roles on encoder-decoders.
ROLES: dict[str, str] = {
    "embed": "the embedded input sequence; x is the token ids",
    "embed.tokens": "the token embedding's output, before anything is added to it; x is the token ids",
    **_ATTENTION,
    **_CROSS,
    "ffn.up": "output of the first feed-forward projection",
    "ffn.gate": "output of the gating feed-forward projection, which the activation function acts on",
    "ffn.mid": "the activation that enters the last feed-forward projection",
    "ffn.down": "output of the last feed-forward projection; x is its input",
    "ffn": "feed-forward block output, before dropout, residual and norm; x is the feed-forward block's input",
    "ffn.post": "after the feed-forward block's residual add (and norm, in a post-norm layer)",
    "experts": "the weighted sum of the routed experts' outputs; x is what they and their router read",
    "experts.gate": "inside each routed expert: output of its gating projection",
    "experts.up": "inside each routed expert: output of its first projection",
    "experts.mid": "inside each routed expert: the activation that enters its last projection",
    "experts.down": "inside each routed expert: output of its last projection, before its weight; x is its input",
    "shared": "output of the expert that every token takes; x is its input",
    "shared.gate": "output of the shared expert's gating projection",
    "shared.up": "output of the shared expert's first projection",
    "shared.mid": "the activation that enters the shared expert's last projection",
    "shared.down": "output of the shared expert's last projection; x is its input",
    "layer": "the residual stream leaving a layer; x is the stream entering it",
    "norm": "a norm's output; x is its input",
    "head.tokens": "scores from an output layer that is tied to the token embedding; x is its input",
}
#: Roles that no table has to hold: the model itself says where they are.
OF_TOKENS = ("embed.tokens", "head.tokens")
#: Roles whose x is the input of their block, so that it can be read before or after a pre-norm model's norm.
BLOCK_INPUT = frozenset(
    f"{block}{role}"
    for block, roles in {
        "attn": ("", ".qkv", ".q", ".k", ".v", ".heads", ".post"),
        "cross": ("", ".q", ".heads", ".post"),
        "ffn": ("", ".up", ".gate", ".post"),
    }.items()
    for role in roles
)
#: The blocks of a layer, in its order; also the roles whose h is a block's output before its residual sum.
BLOCKS = ("attn", "cross", "ffn")
#: What of a module can be h.
AT = ("output", "input", "stream", "heads", *INSIDE)


@dataclass(frozen=True)
class HookPoint:
    """Where one role's h and x are found.

    `h` is a module path (relative to the layer, "" the layer itself). `at` says what of it is h: its `output`, its
    `input`, the residual `stream` that it reads (so that what bypasses the module changes as well), the `heads`
    computed inside it, or, of a module of experts, a place inside of each (`expert.up` and others). `x` is the module
    whose first input is x; None means h's own module. Of a fused projection, h is
    part `part[0]` (from 0) of `part[1]` equal parts of the output: of the whole, or `per_head` of every head's share.
    A hook point whose modules a model does not have (a gated feed-forward block's, an optional norm's) is left out there.
    """

    h: str
    x: str | None = None
    at: str = "output"
    part: tuple[int, int] | None = None
    per_head: bool = False


@dataclass(frozen=True)
class Stack:
    """One stack of layers: the path of its layer list (relative to the base model) and the hook points of each role.

    `outside` holds roles outside any layer (embeddings, final norm), relative to the base model. A layer's norms are
    listed in the order in which it computes them; `norms` names, for a pre-norm model, those that its blocks (`attn`,
    `cross`, `ffn`) read through; `post_norms` the norm after each block: of its residual sum, or of its output alone
    where the stack has both. `parallel` says that attention and feed-forward read the same stream. `entry` is the
    module whose forward takes this stack's 2-D attention mask ("" the base model). `causal` says that a token must not
    see later ones. `hidden`, `heads`, `kv_heads` and `head_dim` are the configuration's names for these numbers.
    """

    layers: str
    roles: Mapping[str, tuple[HookPoint, ...]]
    outside: Mapping[str, tuple[HookPoint, ...]] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)
    parallel: bool = False
    post_norms: Mapping[str, str] = field(default_factory=dict)
    entry: str = ""
    causal: bool = False
    hidden: str = "hidden_size"
    heads: str = "num_attention_heads"
    kv_heads: str = "num_key_value_heads"
    head_dim: str = "head_dim"

    def geometry(self, config: Any) -> tuple[int, int, int, int]:
        """(hidden width, query heads, key/value heads, head width) of a model with this configuration."""
        hidden, heads = int(getattr(config, self.hidden)), int(getattr(config, self.heads))
        kv_heads = int(getattr(config, self.kv_heads, None) or heads)
        return hidden, heads, kv_heads, int(getattr(config, self.head_dim, None) or hidden // heads)


@dataclass(frozen=True)
class Architecture:
    """The table of one architecture.

    `when` holds configuration values that a model must have for this table to be its own (one model type may come in
    several shapes). `without` gives, for roles that a reader would look for and not find, the reason. `unit_norms` says
    that norms scale by 1 + weight (Gemma).
    """

    name: str
    model_types: tuple[str, ...]
    stacks: Mapping[str, Stack]
    when: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    unit_norms: bool = False

    def roles(self) -> list[str]:
        """The roles this architecture has, in the vocabulary's order."""
        found = {role for stack in self.stacks.values() for role in (*stack.roles, *stack.outside)}
        found |= set(OF_TOKENS) - set(self.without)
        return [role for role in ROLES if role in found] + sorted(found - set(ROLES))

    def fits(self, config: Any) -> bool:
        """Whether this is the table of a model with this configuration."""
        return getattr(config, "model_type", None) in self.model_types and all(
            getattr(config, key, None) == value for key, value in self.when.items()
        )
