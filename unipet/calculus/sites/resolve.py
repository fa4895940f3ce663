"""From roles to modules: which sites a position has on one base model. Everything or an error, never a partial match."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from torch import nn

from unipet.calculus.sites.experts import INSIDE, OneExpert, experts_in, why_not_inside
from unipet.calculus.sites.position import Position, layer_indices
from unipet.calculus.sites.table import BLOCK_INPUT, BLOCKS, OF_TOKENS, ROLES, Architecture, HookPoint, Stack
from unipet.calculus.sites.tokens import tied_head, token_embeddings
from unipet.errors import UnipetError, nearest, not_allowed


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of a fused projection's output, of each of `groups` equal groups."""

    index: int
    count: int
    groups: int


@dataclass(frozen=True)
class Total:
    """What a block yields: N(h + x), or N(h) + x where `of_h`, with x the residual and `norm` N's path ("": no norm)."""

    norm: str
    of_h: bool


@dataclass(frozen=True)
class Site:
    """One place on one base model.

    `path` names the module whose output (or input, stream, heads) is h; `x_path` the module whose first input is x.
    `tokens_of` is the stack whose tokens h runs over: the encoder for keys and values of cross-attention.
    `norm_offset` is what a norm adds to its weight before it scales. `total` makes x the block's output. `expert` is the
    number of the expert that it is inside of, in a module of experts.
    """

    role: str
    path: str
    x_path: str
    at: str
    stack: str
    layer: int | None
    part: Part | None = None
    tokens_of: str = ""
    causal: bool = False
    norm_offset: float = 0.0
    total: Total | None = None
    expert: int | None = None

    @property
    def name(self) -> str:
        """The path in parameter names; a part of a fused projection adds its own, `h.0.attn.c_attn.q`, and a place inside of
        an expert the expert's number: `layers.0.mlp.experts.3.down`."""
        if self.expert is not None:
            return f"{self.path}.{self.expert}.{self.at.rpartition('.')[2]}"
        return self.path if self.part is None else f"{self.path}.{self.role.rpartition('.')[2]}"

    @property
    def on_input(self) -> bool:
        """Whether h is what the site's module reads."""
        return self.at in ("input", "expert.mid")

    @property
    def weight_name(self) -> str:
        """The name of the parameter that yields h, or reads it."""
        return f"{self.path}.{'weight' if self.expert is None else INSIDE[self.at][0]}"


def prefix_of(model: nn.Module) -> str:
    """The path of the base model inside `model`: "bert." under a task head, "" for the bare base model."""
    name = getattr(model, "base_model_prefix", "")
    return f"{name}." if name and isinstance(getattr(model, name, None), nn.Module) else ""


def module_at(model: nn.Module, path: str) -> Any:
    """The module at a path, `model` itself at "". Raises AttributeError where there is none.

    As nn.Module.get_submodule, which checks every step: adapting looks up every site's module several times.
    """
    return attrgetter(path)(model) if path else model


def module_of(model: nn.Module, site: Site) -> Any:
    """The module whose output or input is h at a site; inside of an expert, the expert's own weight."""
    module = module_at(model, site.path)
    return module if site.expert is None else OneExpert(module, INSIDE[site.at][0], site.expert)


def base_of(model: nn.Module) -> nn.Module:
    """The base model inside `model` (itself where there is no head)."""
    base: nn.Module = module_at(model, prefix_of(model).rstrip("."))
    return base


def resolve(model: nn.Module, table: Architecture, position: Position, key: str) -> list[Site]:
    """Every site of a position, in layer order. Raises UnipetError for a role that matches nothing here."""
    if position.stack != "all" and position.stack not in table.stacks:
        raise UnipetError(
            f"{key}.stack: {table.name} has no {position.stack} stack. It has: {', '.join(table.stacks)}."
        )
    sites: list[Site] = []
    for role in position.site:
        if role not in ROLES and role not in table.roles():
            raise UnipetError(
                f"{key}.site: unknown role {role!r:.200}.{nearest(role, ROLES)} {table.name} has: {', '.join(table.roles())}."
            )
        found = _sites_of(role, model, table, position, key)
        if not found and not position.may_miss(role):
            why = f" ({table.without[role]})" if role in table.without else ""
            raise UnipetError(
                f"{key}.site: {role!r} matches nothing on this {table.name} model{why}. "
                f"It has: {', '.join(table.roles())}. Choose one of them, or say optional: [{role}]."
            )
        sites += found
    names = [site.name for site in sites]
    for site in sites:
        if names.count(site.name) > 1:
            raise UnipetError(
                f"{key}.site: {' and '.join(s.role for s in sites if s.name == site.name)} are both at {site.name}, so "
                "their tensors would bear the same name. Make two insertions of them."
            )
    return sites


def _sites_of(role: str, model: nn.Module, table: Architecture, position: Position, key: str) -> list[Site]:
    prefix = prefix_of(model)
    if position.side == "input" and role in ("embed", *OF_TOKENS):
        raise UnipetError(f"{key}.side: at {role}, no function can change what the module reads. Use output.")
    if role in OF_TOKENS:
        return _of_tokens(role, model, table, position, prefix)
    sites: list[Site] = []
    for name, stack in table.stacks.items():
        if position.stack not in ("all", name) or not has_module(model, prefix + stack.layers):
            continue
        if position.layers == "all":
            for point in stack.outside.get(role, ()):
                if _exists(model, prefix, point):
                    sites.append(_site(role, point, prefix, name, None, table, model.config))
        layers = module_at(model, prefix + stack.layers)
        for index in layer_indices(position.layers, len(layers), f"{key}.layers"):
            root = f"{prefix}{stack.layers}.{index}."
            for point in stack.roles.get(role, ()):
                if _exists(model, root, point):
                    site = _site(role, point, root, name, index, table, model.config)
                    if site.at in INSIDE:
                        sites += _inside(model, site, key)
                    else:
                        sites.append(_reading(site, root, table, stack, position, key))
    if position.side == "input":
        # The parts of a fused projection read one input together: optional, they leave it to attn.qkv.
        kept = [site for site in sites if site.part is None or site.expert is not None or not position.may_miss(role)]
        sites = [_on_input(site, key) for site in kept]
    if sites and position.input == "pre_norm" and role not in BLOCK_INPUT:
        raise UnipetError(f"{key}.input: {role} does not read the input of its block. Use post_norm.")
    if sites and position.input == "block_output" and (role not in BLOCKS or position.form != "parallel"):
        raise not_allowed(
            f"{key}.input",
            position.input,
            f"post_norm at {role} in form {position.form}",
            f"What a block would yield unchanged can be read at {', '.join(BLOCKS)}, in form parallel.",
        )
    return sites


def _inside(model: nn.Module, site: Site, key: str) -> list[Site]:
    """The same place in every expert of a module of experts."""
    experts = module_at(model, site.path)
    if (reason := why_not_inside(experts)) is not None:
        raise UnipetError(f"{key}.site: nothing can act at {site.role} of this model: {reason}. Use experts, or ffn.")
    rows = INSIDE[site.at][1]
    part = None if rows is None else Part(*rows, groups=1)
    return [replace(site, part=part, expert=number) for number in range(experts_in(experts))]


def _of_tokens(role: str, model: nn.Module, table: Architecture, position: Position, prefix: str) -> list[Site]:
    embeddings = token_embeddings(model, table, prefix)
    chosen = {name: path for name, (path, _) in embeddings.items() if position.stack in ("all", name)}
    if position.layers != "all":
        return []
    if role == "head.tokens":
        head, last = tied_head(model, embeddings), list(table.stacks)[-1]
        chosen = {last: head} if head is not None and position.stack in ("all", last) else {}
    return [
        Site(role, path, path, "output", name, None, tokens_of=name, causal=table.stacks[name].causal)
        for name, path in chosen.items()
    ]


def _on_input(site: Site, key: str) -> Site:
    """The site with the input of its module as h."""
    if site.part is not None or site.at != "output" or site.x_path != site.path:
        also = " (it is a part of a fused projection: use attn.qkv)" if site.part else ""
        raise UnipetError(f"{key}.side: {site.role} is not the output of one module with an input of its own{also}.")
    return replace(site, at="input")


def has_module(model: nn.Module, path: str) -> bool:
    """Whether the model has such a module, and the module does something."""
    try:
        found = module_at(model, path.rstrip("."))
    except AttributeError:
        return False
    return isinstance(found, nn.Module) and not isinstance(found, nn.Identity)


def _exists(model: nn.Module, root: str, point: HookPoint) -> bool:
    return has_module(model, root + point.h) and (point.x is None or has_module(model, root + point.x))


def _reading(site: Site, root: str, table: Architecture, stack: Stack, position: Position, key: str) -> Site:
    """The site as `input` asks: x is the block's input, with pre_norm the stream before the block's norm, and with
    block_output that stream summed with h."""
    if position.input == "post_norm" or site.role not in BLOCK_INPUT:
        return site
    block = site.role.split(".")[0]
    if position.input == "block_output":
        stream = root + stack.norms[block] if block in stack.norms else site.x_path
        norm = root + stack.post_norms[block] if block in stack.post_norms else ""
        return replace(site, x_path=stream, total=Total(norm, of_h=block in stack.norms))
    if block not in stack.norms:
        raise UnipetError(
            f"{key}.input: {table.name} normalises after each block, so it has no pre_norm stream. Use post_norm."
        )
    return replace(site, x_path=root + stack.norms[block])


def _site(
    role: str, point: HookPoint, root: str, stack_name: str, layer: int | None, table: Architecture, config: Any
) -> Site:
    stack = table.stacks[stack_name]
    path = (root + point.h).rstrip(".")
    x_path = path if point.x is None else (root + point.x).rstrip(".")
    part = None
    if point.part is not None:
        part = Part(*point.part, groups=stack.geometry(config)[1] if point.per_head else 1)
    of_encoder = role in ("cross.k", "cross.v")
    tokens_of = "encoder" if of_encoder else stack_name
    causal = stack.causal and not of_encoder
    offset = 1.0 if table.unit_norms and role == "norm" else 0.0
    return Site(role, path, x_path, point.at, stack_name, layer, part, tokens_of, causal, offset)
