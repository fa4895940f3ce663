"""`unipet list sites model=NAME`: the roles of one base model, their modules, and a picture of a layer of each stack."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from torch import nn

from unipet.calculus.sites import (
    ARCHITECTURES,
    ROLES,
    Architecture,
    Position,
    Site,
    Stack,
    architecture_of,
    base_of,
    prefix_of,
    resolve,
)
from unipet.cli.commands.picture import WIDTH, DrawnLayer, picture
from unipet.config import ModelConfig
from unipet.output.text_table import text_table

#: How a role begins -> why it is usually not there.
_BLOCKS = {
    "cross": "it has no cross-attention",
    "experts": "its table names no experts",
    "shared": "its table names no shared expert",
}
_ABSENT = {
    "head.tokens": "no output layer that is tied to its token embedding",
    "attn.qkv": "query, key and value are projections of their own",
    "ffn.gate": "its feed-forward block is not gated",
}
LEGEND = """\
An insertion of form parallel reads x, one of form sequential reads h. For the roles of a block
(attn.q ... attn, ffn.up ... ffn), x is the input of the block: in a pre-norm layer, the output of
its norm, or with position.input=pre_norm the stream before that norm."""


def site_list(model: ModelConfig) -> str:
    """The whole text, from a model without weights. Raises `UnipetError` for a model without a site table."""
    from unipet.calculus.site_files import sites_for
    from unipet.runs.base_model import skeleton

    built = skeleton(model, "classification", as_saved=True)
    table = sites_for(built, model.sites) or architecture_of(built, ARCHITECTURES)
    parts = [roles_of(built, table)]
    for name, stack in table.stacks.items():
        layers: Any = base_of(built).get_submodule(stack.layers)
        said = [_heading(built, table, name, len(layers)), *_unsaid(stack), ""]
        shown = set(DrawnLayer(stack, layers[-1]).has(*stack.roles))
        drawn = picture(stack, layers[-1])
        for number, layer in enumerate(layers):  # of another kind, as a dense layer between such of experts
            if not (own := set(DrawnLayer(stack, layer).has(*stack.roles))) <= shown:
                shown |= own
                drawn += ["", f"  layer {number}:", "", *picture(stack, layer)]
        parts.append("\n".join([*said, *drawn]))
    parts.append(LEGEND)
    return "\n\n".join(parts)


def roles_of(model: nn.Module, table: Architecture) -> str:
    """A table of the roles and their modules, and why this model lacks the other roles."""
    rows: list[list[str]] = []
    absent: dict[str, str] = {}
    for role in dict.fromkeys([*ROLES, *table.roles()]):
        places = _places(resolve(model, table, Position(site=[role], optional=True), role), model, table)
        rows += [[role if number == 0 else "", *place] for number, place in enumerate(places)]
        if not places:
            usual = _BLOCKS.get(role.split(".")[0]) or _ABSENT.get(role, "the table does not say where")
            absent[role] = table.without.get(role, usual)
    text = text_table(["role", "stack", "h", "x"], rows)
    return f"{text}\n\nnot here:\n{_reasons(absent)}" if absent else text


def _reasons(absent: Mapping[str, str]) -> str:
    """One line per reason, with the roles to which it applies."""
    roles: dict[str, list[str]] = {}
    for role, why in absent.items():
        roles.setdefault(why, []).append(role)
    lines = [f"  {', '.join(own)}: {why}" for why, own in roles.items()]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False) for line in lines)


def _places(sites: list[Site], model: nn.Module, table: Architecture) -> list[list[str]]:
    """(stack, h, x) of each distinct place, with * for layer numbers."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for site in sites:
        layers = prefix_of(model) + table.stacks[site.stack].layers
        places = found.setdefault((site.stack, _h(site, layers), _x(site, layers, prefix_of(model))), [])
        places += [] if site.layer is None else [site.layer]
    result = []
    for (stack, h, x), numbers in found.items():
        count = len(list(model.get_submodule(prefix_of(model) + table.stacks[stack].layers).children()))
        some = f" (layer {_range(numbers)})" if numbers and len(numbers) < count else ""
        result.append([stack, h + some, x])
    return result


def _unsaid(stack: Stack) -> list[str]:
    """A note if the picture lacks norms, because the table does not give them."""
    if stack.norms or stack.parallel or "attn.post" in stack.roles:
        return []
    return ["  The table does not say where the norms stand (norms, attn.post, parallel), so none is drawn."]


def _h(site: Site, layers: str) -> str:
    path = _starred(site.path, site, layers)
    if site.expert is not None:
        return f"{site.at.rpartition('.')[2]} of each expert in {path}"
    if site.part is not None:
        share = "each head of " if site.part.groups > 1 else ""
        return f"part {site.part.index + 1} of {site.part.count} of {share}{path}"
    words = {"output": "output of", "input": "input of", "stream": "stream entering", "heads": "heads inside"}
    return f"{words[site.at]} {path}"


def _x(site: Site, layers: str, prefix: str) -> str:
    """The place of x, relative to the layer, or to the base model for a site outside the layers."""
    if site.path == site.x_path:
        return "none of its own" if site.at in ("input", "expert.mid") else "its input"
    root = prefix if site.layer is None else f"{layers}.*."
    return f"input of {_starred(site.x_path, site, layers).removeprefix(root)}"


def _starred(path: str, site: Site, layers: str) -> str:
    """The path with * in place of the number of the site's layer."""
    own = f"{layers}.{site.layer}"
    return f"{layers}.*{path.removeprefix(own)}" if f"{path}.".startswith(f"{own}.") else path


def _heading(model: nn.Module, table: Architecture, name: str, count: int) -> str:
    stack = table.stacks[name]
    hidden, heads, kv_heads, head_dim = stack.geometry(model.config)
    said = ["pre-norm"] if stack.norms else ["post-norm"] if "attn.post" in stack.roles else []
    said += ["attention and feed-forward in parallel"] * stack.parallel + ["causal"] * stack.causal
    said += [f"{hidden} wide", f"{heads} heads of {head_dim}"]
    said += [f"{kv_heads} key/value heads"] * (kv_heads != heads)
    text = f"{name}: {prefix_of(model)}{stack.layers}.* ({count} layers), {', '.join(said)}"
    return text if len(text) <= WIDTH else text.replace("), ", "),\n  ", 1)


def _range(layers: list[int]) -> str:
    whole = layers == list(range(layers[0], layers[-1] + 1)) and len(layers) > 1
    return f"{layers[0]}-{layers[-1]}" if whole else ", ".join(map(str, layers))
