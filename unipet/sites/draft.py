"""A first draft of a table for an unknown architecture: YAML text, guessed from the model's modules.

What names and widths make likely becomes a role; what they cannot tell (the order inside a fused projection, where the
norms stand) becomes a comment, because a wrong guess would train without an error.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unipet.sites.fit import calls_interface, names_in_forward, widths_of
from unipet.sites.resolve import base_of
from unipet.sites.table import ROLES, Stack

#: Last parts of module paths, by role; of a path that several roles claim, the first unclaimed in the layer's order.
NAMES: dict[str, tuple[str, ...]] = {
    "q": ("query", "q_proj", "q_lin", "wq", "q", "query_proj", "to_q", "q_linear"),
    "k": ("key", "k_proj", "k_lin", "wk", "k", "key_proj", "to_k", "k_linear"),
    "v": ("value", "v_proj", "v_lin", "wv", "v", "value_proj", "to_v", "v_linear"),
    "qkv": ("query_key_value", "qkv", "qkv_proj", "c_attn", "wqkv", "in_proj", "attn_qkv"),
    "o": ("dense", "out_proj", "o_proj", "out_lin", "wo", "o", "c_proj", "to_out", "proj", "linear"),
    "gate": ("gate_proj", "w1", "wi_0", "gate", "linear_gate"),
}
_CROSS = ("cross", "encdec", "enc_attn", "encoder_attn", "encoder_decoder")
_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads")
_HEAD_NORM = re.compile(r"(^|\.)[qk]_?(layer)?norm$")  # a norm of each head's queries or keys is no norm of the stream
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim")


@dataclass
class _Layer:
    """What one layer of a stack holds: linear maps with (in, out), norms, and the roles guessed so far."""

    root: nn.Module
    linear: dict[str, tuple[int, int]]
    norms: list[str]
    roles: dict[str, str] = field(default_factory=dict)  # role -> module path
    without: dict[str, str] = field(default_factory=dict)  # role -> why it is not there


def draft(model: nn.Module) -> str | None:
    """The text of a YAML file that `sites` takes, or None where the model has no list of equal layers."""
    base = base_of(model)
    config: Any = getattr(model, "config", None)
    stacks = _stacks(base, config)
    if not stacks:
        return None
    kind = _text(str(getattr(config, "model_type", type(model).__name__.lower())))
    lines, without = [f"name: {kind}", f"model_types: [{kind}]", "stacks:"], dict[str, str]()
    for name, path in stacks.items():
        layer = _guess(base.get_submodule(path))
        lines += _stack_lines(layer, name, path, base, config, len(stacks) > 1)
        without |= layer.without
    lines += ["without:"] * bool(without) + [f"  {role}: {why}" for role, why in without.items()]
    return "\n".join(lines)


def _stacks(base: nn.Module, config: Any) -> dict[str, str]:
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
    """A guess: whether the attention calls itself causal, or the model makes causal masks and no other."""
    says = [bool(one.is_causal) for one in layer.modules() if isinstance(getattr(one, "is_causal", None), bool)]
    names = names_in_forward(base)
    masks = any("causal" in name for name in names) and not any("bidirectional" in name for name in names)
    return any(says) or (masks and not says)


def _guess(layers: Any) -> _Layer:
    inside = list(layers[-1].named_modules())
    linear = {key: widths for key, module in inside if (widths := widths_of(module))}
    norms = [key for key, module in inside if "norm" in type(module).__name__.lower() and not _HEAD_NORM.search(key)]
    layer = _Layer(layers[-1], linear, norms)
    _attention(layer, "attn", [key for key in linear if not _is_cross(key)])
    _attention(layer, "cross", [key for key in linear if _is_cross(key)])
    _feed_forward(layer)
    return layer


def _stack_lines(layer: _Layer, name: str, path: str, base: nn.Module, config: Any, several: bool) -> list[str]:
    layers: Any = base.get_submodule(path)
    lines = [f"  {name}:", f"    layers: {_text(path)}    # {len(layers)} of {type(layers[0]).__name__}", "    roles:"]
    lines += [f"      {line}" for line in _role_lines(layer)]
    lines += [f"    {line}" for line in _geometry(layer, name, config)]
    if (embed := _embedding(base, path, len(layers), config)) is not None:
        lines += ["    outside:", f"      embed: {embed}"]
    entry = path.split(".")[0] if several else ""
    lines += [f"    entry: {_text(entry)}"] if entry else []
    if name == "decoder":
        lines.append("    causal: true    # a token does not see later ones")
    if layer.norms:
        lines.append("    # For input: pre_norm, if the norms stand before the blocks:")
        lines.append(f"    # norms: {{attn: {_text(layer.norms[0])}, ffn: {_text(layer.norms[-1])}}}")
    return lines


def _text(path: str) -> str:
    """A module path as YAML: quoted where YAML would read something else."""
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*", path) and path.lower() not in (
        "on",
        "off",
        "yes",
        "no",
        "y",
        "n",
        "true",
        "false",
        "null",
    )
    return path if plain else json.dumps(path)


def _is_cross(path: str) -> bool:
    return any(word in path.lower() for word in _CROSS)


def _attention(layer: _Layer, block: str, paths: list[str]) -> None:
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


def _feed_forward(layer: _Layer) -> None:
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


def _role_lines(layer: _Layer) -> list[str]:
    roles, lines = layer.roles, []
    for role in (role for role in ROLES if role in roles):
        block, path = role.split(".")[0], _text(roles[role])
        start = next((roles[r] for r in (f"{block}.q", f"{block}.qkv", f"{block}.up") if r in roles), "")
        widths = layer.linear.get(roles[role], (0, 0))
        if role in ("attn", "cross", "ffn"):
            lines.append(f"{role}: {{h: {path}, x: {_text(start)}}}")
        elif role == "ffn.mid":
            lines.append(f"{role}: {{h: {path}, at: input}}")
        elif role.endswith(".heads"):
            lines.append(f"{role}: {path}")
        else:
            lines.append(f"{role}: {path}    # {widths[0]} -> {widths[1]}")
        if role == "attn.qkv" and widths[1] == 3 * widths[0]:
            lines.append(
                "# Uncomment if this yields query, key and value in this order, each a third of the whole, or with"
            )
            lines.append(
                "# per_head: true in the braces if each is a third of every head's share. The modelling code tells."
            )
            lines += [f"# attn.{key}: {{h: {path}, part: [{index}, 3]}}" for index, key in enumerate("qkv")]
        elif role == "attn.qkv":
            lines.append(
                "# attn.q, attn.k, attn.v: not three equal parts of it, so no insertion can have one of them alone"
            )
    lines.append('layer: ""')
    if layer.norms:
        lines.append(f"norm: [{', '.join(map(_text, layer.norms))}]")
    lines.append(
        "# attn.post, ffn.post: the module that yields the stream after the residual add, or {h: MODULE, at: stream}"
    )
    rest = [f"{path} ({i} -> {o})" for path, (i, o) in layer.linear.items() if path not in roles.values()]
    return lines + [f"# no role found for {one}" for one in rest[:12]]


def _geometry(layer: _Layer, name: str, config: Any) -> list[str]:
    """The configuration's names for widths and heads, where they are not the usual ones."""
    q, k = (layer.linear.get(layer.roles.get(f"attn.{key}", "")) for key in ("q", "k"))
    fused = layer.linear.get(layer.roles.get("attn.qkv", ""))
    width = q[0] if q else fused[0] if fused else None
    found = {"hidden": next((n for n in _HIDDEN if getattr(config, n, None) == width), None)}
    found["heads"] = next(
        (n for n in (f"{name}_attention_heads", *_HEADS) if isinstance(getattr(config, n, None), int)), None
    )
    heads = getattr(config, found["heads"] or "", None)
    if q and k and heads:
        head_dim = q[1] // heads
        usual = getattr(config, Stack.head_dim, None) or (width or 0) // heads
        if head_dim != usual:
            found["head_dim"] = _number(config, head_dim, ("head", "d_kv", "kv"))
        if k[1] // head_dim != (getattr(config, Stack.kv_heads, None) or heads):
            found["kv_heads"] = _number(config, k[1] // head_dim, ("kv",))
    return [f"{key}: {value}" for key, value in found.items() if value and value != getattr(Stack, key)]


def _number(config: Any, value: int, words: tuple[str, ...]) -> str | None:
    """The configuration's name for a number, among those that hold one of `words`."""
    return next(
        (n for n, v in vars(config).items() if type(v) is int and v == value and any(w in n for w in words)), None
    )


def _embedding(base: nn.Module, path: str, count: int, config: Any) -> str | None:
    """The input of the first layer; x is what the token embedding reads. None where layers are used more than once."""
    get = getattr(base, "get_input_embeddings", None)
    try:
        embedding = get() if get is not None else None
    except NotImplementedError:
        embedding = None
    tokens = next((name for name, module in base.named_modules() if module is embedding and name), None)
    depth = getattr(config, "num_hidden_layers", count)
    return (
        f"{{h: {_text(path + '.0')}, x: {_text(tokens)}, at: input}}" if tokens is not None and depth == count else None
    )
