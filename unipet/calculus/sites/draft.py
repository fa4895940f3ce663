"""A first draft of a table for an unknown architecture: YAML text, guessed from the model's modules.

What names and widths make likely becomes a role; what they cannot tell (the order inside a fused projection, where the
norms stand) becomes a comment, because a wrong guess would train without an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

from torch import nn

from unipet.calculus.sites.guess import Guess, guess_layer, guess_stacks
from unipet.calculus.sites.resolve import base_of
from unipet.calculus.sites.table import ROLES, Stack

_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads")
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "true_hidden_size")
_THIRDS = (
    "# Uncomment if it yields query, key and value in this order, each a third of the whole; with per_head: true",
    "# in the braces if each is a third of every head's share. The modelling code tells.",
)
_YAML_WORDS = "y n yes no on off true false null".split()


def draft(model: nn.Module) -> str | None:
    """The text of a YAML file that `sites` takes, or None where the model has no list of equal layers."""
    base = base_of(model)
    config: Any = getattr(model, "config", None)
    stacks = guess_stacks(base, config)
    if not stacks:
        return None
    kind = _text(str(getattr(config, "model_type", type(model).__name__.lower())))
    lines, without = [f"name: {kind}", f"model_types: [{kind}]", "stacks:"], dict[str, str]()
    for name, path in stacks.items():
        layer = guess_layer(base.get_submodule(path))
        lines += _stack_lines(layer, name, path, base, config, len(stacks) > 1)
        without |= layer.without
    lines += ["without:"] * bool(without) + [f"  {role}: {why}" for role, why in without.items()]
    return "\n".join(lines)


def _stack_lines(layer: Guess, name: str, path: str, base: nn.Module, config: Any, several: bool) -> list[str]:
    layers: Any = base.get_submodule(path)
    lines = [f"  {name}:", f"    layers: {_text(path)}    # {len(layers)} of {type(layers[0]).__name__}", "    roles:"]
    lines += [f"      {line}" for line in _role_lines(layer)]
    lines += [f"    {line}" for line in _geometry(layer, name, config)]
    if (embed := _embedding(base, path, len(layers), config)) is not None:
        lines += ["    outside:", f"      embed: {embed}"]
    entry = path.split(".")[0] if several else ""
    lines += [f"    entry: {_text(entry)}"] if entry else []
    if name == "decoder" or not several:
        guess = "" if name == "decoder" else "# "
        lines.append(f"    {guess}causal: true    # if a token does not see later ones")
    if layer.norms:
        lines.append(
            "    # If the norms stand before the blocks, and if attention and feed-forward read the same stream:"
        )
        lines.append(f"    # norms: {{attn: {_text(layer.norms[0])}, ffn: {_text(layer.norms[-1])}}}")
        lines.append("    # parallel: true")
    return lines


def _text(path: str) -> str:
    """A module path as YAML: quoted where YAML would read something else."""
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*", path) and path.lower() not in _YAML_WORDS
    return path if plain else json.dumps(path)


def _role_lines(layer: Guess) -> list[str]:
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
            lines += _THIRDS
            lines += [f"# attn.{key}: {{h: {path}, part: [{index}, 3]}}" for index, key in enumerate("qkv")]
        elif role == "attn.qkv":
            lines.append("# attn.q, attn.k, attn.v: not three equal parts of it, so there is none of them alone")
    lines.append('layer: ""')
    if layer.norms:
        lines.append(f"norm: [{', '.join(map(_text, layer.norms))}]")
    lines.append("# attn.post, ffn.post: the module that yields the stream after the residual add,")
    lines.append("# or {h: NEXT, at: stream} where no module does and NEXT is the next to read it")
    rest = [f"{path} ({i} -> {o})" for path, (i, o) in layer.linear.items() if path not in roles.values()]
    return lines + [f"# no role found for {one}" for one in rest[:12]]


def _geometry(layer: Guess, name: str, config: Any) -> list[str]:
    """The configuration's names for widths and heads, where they are not the usual ones."""
    q, k = (layer.linear.get(layer.roles.get(f"attn.{key}", "")) for key in ("q", "k"))
    fused = layer.linear.get(layer.roles.get("attn.qkv", ""))
    width = q[0] if q else fused[0] if fused else None
    known = [name for name in _HIDDEN if isinstance(getattr(config, name, None), int)]
    found = {"hidden": next((name for name in known if width in (None, getattr(config, name))), None)}
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
