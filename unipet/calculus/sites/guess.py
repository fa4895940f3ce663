"""Guesses about a model without a table: where its layers are, and which modules of a layer have which role.

Names and widths together decide; where they leave a doubt, a role stays without a guess.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unipet.calculus.sites.checks import calls_interface, names_in_forward, widths_of

#: Last parts of module paths, by role; of a path that several roles claim, the first unclaimed in the layer's order.
NAMES: dict[str, tuple[str, ...]] = {
    "q": ("query", "q_proj", "q_lin", "wq", "q", "query_proj", "to_q", "q_linear"),
    "k": ("key", "k_proj", "k_lin", "wk", "k", "key_proj", "to_k", "k_linear"),
    "v": ("value", "v_proj", "v_lin", "wv", "v", "value_proj", "to_v", "v_linear"),
    "qkv": ("query_key_value", "qkv", "qkv_proj", "c_attn", "wqkv", "attn_qkv"),
    "o": ("dense", "out_proj", "o_proj", "out_lin", "wo", "o", "c_proj", "to_out", "proj", "linear"),
    "gate": ("gate_proj", "w1", "wi_0", "gate", "linear_gate"),
}
_CROSS = ("cross", "encdec", "enc_attn", "encoder_attn", "encoder_decoder")
_HEAD_NORM = re.compile(r"(^|\.)[qk]_?(layer)?norm$")  # a norm of each head's queries or keys does not norm the stream


@dataclass
class Guess:
    """What one layer of a stack holds: linear maps with (in, out), norms, and the roles guessed so far."""

    root: nn.Module
    linear: dict[str, tuple[int, int]]
    norms: list[str]
    roles: dict[str, str] = field(default_factory=dict)  # role -> module path
    without: dict[str, str] = field(default_factory=dict)  # role -> why it is not there


def guess_stacks(base: nn.Module, config: Any) -> dict[str, str]:
    """Stack name -> path of its layers: the longest list of equal modules, and of an encoder-decoder one of each."""
    found: list[tuple[str, nn.ModuleList]] = []
    for path, module in base.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer, _ in found)
        if not isinstance(module, nn.ModuleList) or inside or len({type(one) for one in module}) != 1:
            continue
        if any(widths_of(one) for one in module[0].modules()):
            found.append((path, module))
    found.sort(key=lambda one: -len(one[1]))
    if getattr(config, "is_encoder_decoder", False):
        sides = {side: next((path for path, _ in found if side in path), None) for side in ("encoder", "decoder")}
        if all(sides.values()):
            return {side: path for side, path in sides.items() if path}
    if not found:
        return {}
    path, module = found[0]
    return {"decoder" if _causal(base, module[0]) else "encoder": path}


def _causal(base: nn.Module, layer: nn.Module) -> bool:
    """Whether a single stack is a decoder: its attention or its masks say so, or it comes with causal heads only."""
    if any(getattr(one, "is_causal", None) is True for one in layer.modules()):
        return True
    classes = [name for name in vars(sys.modules[type(base).__module__]) if name.startswith(type(base).__name__[:3])]
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) and "WithLMHead" not in name for name in classes)
    masked = any(name.endswith("ForMaskedLM") for name in classes)
    masks = [name for name in names_in_forward(base) if name.endswith("_mask")]
    only_causal = any("causal" in name for name in masks) and not any("bidirectional" in name for name in masks)
    return (causal and not masked) or only_causal


def guess_layer(layers: Any) -> Guess:
    inside = list(layers[-1].named_modules())
    linear = {key: widths for key, module in inside if (widths := widths_of(module))}
    norms = [key for key, module in inside if "norm" in type(module).__name__.lower() and not _HEAD_NORM.search(key)]
    layer = Guess(layers[-1], linear, norms)
    _attention(layer, "attn", [key for key in linear if not _is_cross(key)])
    _attention(layer, "cross", [key for key in linear if _is_cross(key)])
    _feed_forward(layer)
    return layer


def _is_cross(path: str) -> bool:
    return any(word in path.lower() for word in _CROSS)


def _attention(layer: Guess, block: str, paths: list[str]) -> None:
    """Query, key, value (apart or fused) and the output projection, which follows them and has their width as input."""

    def named(key: str) -> str | None:
        return next((path for path in paths if path.rpartition(".")[2].lower() in NAMES[key]), None)

    three = {key: named(key) for key in ("q", "k", "v")}
    fused = named("qkv")
    if all(three.values()):
        layer.roles |= {f"{block}.{key}": path for key, path in three.items() if path}
        width = layer.linear[str(three["q"])][1]
    elif fused and block == "attn":
        layer.roles["attn.qkv"] = fused
        width = layer.linear[fused][0]
    else:
        return
    read = [path for role, path in layer.roles.items() if role.startswith(f"{block}.")]
    after = paths[max(paths.index(path) for path in read) + 1 :]
    o = next((p for p in after if p.rpartition(".")[2].lower() in NAMES["o"] and layer.linear[p][0] == width), None)
    holder = _common(read)
    attention = layer.root.get_submodule(holder)
    if calls_interface(attention):
        layer.roles[f"{block}.heads"] = holder
    else:
        layer.without[f"{block}.heads"] = f"{type(attention).__name__} does not use transformers' AttentionInterface"
    if o is not None:
        layer.roles |= {f"{block}.o": o, block: o}


def _feed_forward(layer: Guess) -> None:
    """Of the linear maps left, the last that yields the stream's width, and those before it that yield its input."""
    taken = set(layer.roles.values())
    left = [path for path in layer.linear if path not in taken and not _is_cross(path)]
    first = next((layer.linear[path] for role, path in layer.roles.items() if role in ("attn.q", "attn.qkv")), None)
    hidden = first[0] if first else None
    down = next((p for p in reversed(left) if layer.linear[p][1] == hidden), None)
    if down is None:
        return
    ups = [p for p in left if p != down and layer.linear[p] == (hidden, layer.linear[down][0])]
    gates = [p for p in ups if p.rpartition(".")[2].lower() in NAMES["gate"]]
    if len(ups) == 1:
        layer.roles["ffn.up"] = ups[0]
    elif len(ups) == 2 and len(gates) == 1:
        layer.roles |= {"ffn.up": next(p for p in ups if p not in gates), "ffn.gate": gates[0]}
    else:
        return
    layer.roles |= {"ffn.mid": down, "ffn.down": down, "ffn": down}


def _common(paths: list[str]) -> str:
    """The deepest module that holds all of these."""
    parts = [path.split(".")[:-1] for path in paths]
    same = [first for first, *others in zip(*parts, strict=False) if all(first == other for other in others)]
    return ".".join(same)
