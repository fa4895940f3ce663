"""Which method an oracle is, and where our tensors are in it: one builder and one name map per family.

A family is recognised by what the oracle's entry says (group, method, configuration), never by its file's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tests.support.oracle_reading import (
    Case,
    NameMap,
    Oracle,
    Owned,
    Ref,
    insertion,
    linear_sites,
    pre_norm,
    roles_of,
    table_of,
)

ACTIVATIONS = {"swish": "silu", "gelu_new": "gelu_tanh"}
Builder = Callable[[Oracle, nn.Module], "Case | None"]


def rows(first: int, last: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[first:last]


#: Why some references' methods have no counterpart here. Their oracles are listed, never silently passed over.
NOT_COVERED: dict[str, tuple[str, ...]] = {
    "reference fault, not reproduced: full matrices train where the method has vectors": ("adapters vera",),
}


def kind_of(entry: dict[str, Any]) -> str:
    """The group and method of an index entry: `adapters lora`. A suffix that counts seeds is no part of it."""
    return f"{entry['group']} {re.sub(r'_s[0-9]+$', '', str(entry.get('method', '')))}"


def method_of(which: Oracle) -> str:
    return kind_of(which.entry).partition(" ")[2]


# -- functions of linear maps ------------------------------------------------------------------------------------------

LOW_RANK: NameMap = {"down": "{path}/lora_A", "up": "{path}/lora_B"}


def fused(which: Oracle, model: nn.Module, letters: list[str]) -> tuple[list[str], NameMap]:
    """Roles and map of a low-rank pair for each part of a fused projection: the parts' rows stand one after another."""
    order = [letter for letter in "qkv" if letter in letters]

    def part(name: str) -> Callable[[Owned], Ref]:
        def find(owned: Owned) -> Ref:
            count = len(order) if owned.part else 1
            at = order.index(owned.part) if owned.part else 0

            def take(tensor: Tensor) -> Tensor:
                size = len(tensor) // count
                return tensor[at * size : (at + 1) * size]

            return Ref(f"{owned.path}/{name}", take)

        return find

    table = table_of(model)
    paths = linear_sites(which, "lora_A")
    if "attn.qkv" not in table.roles():
        return roles_of(model, paths), {slot: part(name) for slot, name in SLOTS_OF_A_PAIR.items()}
    own = {path for path in paths if roles_of(model, like(path, paths)) == ["attn.qkv"]}
    roles = [f"attn.{letter}" for letter in order] if own else []
    return roles + roles_of(model, paths - own), {slot: part(name) for slot, name in SLOTS_OF_A_PAIR.items()}


SLOTS_OF_A_PAIR = {"down": "lora_A", "up": "lora_B", "gate.weight": "gate.weight", "gate.bias": "gate.bias"}


def like(path: str, paths: set[str]) -> set[str]:
    """The same module in all layers."""
    kind = re.sub(r"\d+", "*", path)
    return {other for other in paths if re.sub(r"\d+", "*", other) == kind}


def low_rank(which: Oracle, roles: list[str], size: int, scaling: Any, **options: Any) -> dict[str, Any]:
    given = {
        "function.size": size,
        "function.dropout": 0.0,
        "position.site": roles,
        "position.optional": False,
        "scaling": scaling,
    }
    return insertion("lora", "attention", {**given, **{key.replace("__", "."): v for key, v in options.items()}})


def over_rank(alpha: float) -> dict[str, Any]:
    return {"name": "alpha_over_rank", "alpha": float(alpha)}


# -- bottlenecks -------------------------------------------------------------------------------------------------------

BOTTLENECK: NameMap = {
    **{f"{slot}.{leaf}": f"{{block}}/{slot}.{leaf}" for slot in ("down", "up", "gate") for leaf in ("weight", "bias")},
    "norm.weight": "{block}/ln.weight",
    "norm.bias": "{block}/ln.bias",
    "scale": "{block}/scale",
    **{f"{slot}.{side}": f"{{block}}/{slot}.W_{side}" for slot in ("down", "up") for side in ("left", "right")},
    "rule": "phm.shared/phm_rule",
}


def bottleneck(which: Oracle, model: nn.Module, c: dict[str, Any]) -> dict[str, Any]:
    """The adapters library's bottleneck configurations."""
    activation = ACTIVATIONS.get(c["non_linearity"], c["non_linearity"])
    scaling: Any = "learned" if c["scaling"] == "learned" else float(c["scaling"])
    options: dict[str, Any] = {
        "function.size": which.shape("/down.bias")[0],
        "function.activation": activation,
        "function.norm": "in" if c["ln_before"] else "none",
        "scaling": {"name": "input_gate", "pool": "all"} if c["use_gating"] else scaling,
    }
    if c["phm_layer"]:
        assert c["factorized_phm_W"] and c["shared_phm_rule"] and not c["factorized_phm_rule"] and c["phm_bias"]
        kind = {"name": "kronecker_bottleneck", "terms": c["phm_dim"], "rank": c["phm_rank"]}
        options |= {f"function.{key}": value for key, value in kind.items()}
    blocks = ["attn"] * bool(c["mh_adapter"]) + ["ffn"] * bool(c["output_adapter"])
    if c["cross_adapter"] and any("cross.o" in stack.roles for stack in table_of(model).stacks.values()):
        blocks.append("cross")
    if c["original_ln_before"] and not c["is_parallel"]:
        return {"ffn": insertion("seq_bn", "ffn", {**options, "position.site": blocks})}
    if c["is_parallel"]:
        options |= {"position.site": blocks, "position.input": "pre_norm" if pre_norm(model) else "post_norm"}
        return {"ffn": insertion("parallel_adapter", "ffn", options)}
    return {"ffn": insertion("adapter", "ffn", {**options, "position.site": blocks})}


# -- prefixes ----------------------------------------------------------------------------------------------------------


def network(group: str) -> NameMap:
    """The reference's last layer holds all sites, keys and values in turn; ours one slice per site."""

    def last(which: int, leaf: str) -> Callable[[Owned], Ref]:
        def find(owned: Owned) -> Ref:
            row = 2 * owned.number + which
            key = f"{group}/fc2.{leaf}".format(insertion=owned.insertion)
            return Ref(key, rows(row * owned.kv, (row + 1) * owned.kv))

        return find

    return {
        "tokens": f"{group}/wte",
        "hidden.weight": f"{group}/fc1.weight",
        "hidden.bias": f"{group}/fc1.bias",
        **{f"{slot}.{leaf}": last(i, leaf) for i, slot in enumerate(("keys", "values")) for leaf in ("weight", "bias")},
        "keys": "{block}/prefix_k",
        "values": "{block}/prefix_v",
        "gate.weight": "{block}/gate.weight",
        "gate.bias": "{block}/gate.bias",
        "norm.weight": "{block}/ln.weight",
        "norm.bias": "{block}/ln.bias",
    }


def prefixes(model: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
    """One insertion per place that has attention; a model of one stack has the decoder's place alone."""
    if len(table_of(model).stacks) == 1:
        return {"self": insertion("three_prefixes", "self", {**options, "position.stack": "all"})}
    return {place: insertion("three_prefixes", place, options) for place in ("encoder", "self", "cross")}


def prefix(which: Oracle, model: nn.Module, c: dict[str, Any]) -> dict[str, Any]:
    reparam = None if c["flat"] else {"hidden": c["bottleneck_size"], "activation": c["non_linearity"]}
    options: dict[str, Any] = {"function.size": c["prefix_length"], "function.reparam": reparam}
    if any(mod["kind"] == "t5_prefix_bias_shift" for mod in which.entry["mods"]):
        options["composition.shift_bias"] = True
    if c["use_gating"]:
        options |= {"function.scale_keys": True, "scaling": {"name": "input_gate", "pool": "all"}}
    return prefixes(model, options)


# -- the references ----------------------------------------------------------------------------------------------------


def adapters_lora(which: Oracle, model: nn.Module, c: dict[str, Any]) -> tuple[dict[str, Any], NameMap] | None:
    if c["vera_d"] is not None:
        return None
    if c["composition_mode"] == "scale":
        roles = roles_of(model, linear_sites(which, "scale"))
        return _scaled(roles, [letter for letter in "qkv" if letter in c["attn_matrices"]])
    roles, names = fused(which, model, c["attn_matrices"])
    scaling: Any = {"name": "input_gate", "pool": "all"} if c["use_gating"] else over_rank(c["alpha"])
    if c["use_dora"]:
        options = {"function.size": c["r"], "position.site": roles, "position.optional": False, "scaling": scaling}
        rule = {"name": "normalise", "detach": False, "bias": True, "scaled": False}
        return {"attention": insertion("dora", "attention", {**options, "composition": rule})}, {
            **names,
            "magnitude": "{path}/m",
        }
    return {"attention": low_rank(which, roles, c["r"], scaling)}, names


def _scaled(roles: list[str], letters: list[str]) -> tuple[dict[str, Any], NameMap]:
    """Outputs times l; of a fused projection, l has the chosen parts one after another."""

    def find(owned: Owned) -> Ref:
        def take(tensor: Tensor) -> Tensor:
            if not owned.part:
                return tensor
            size = len(tensor) // len(letters)
            return tensor[letters.index(owned.part) * size :][:size]

        return Ref(f"{owned.path}/scale", take, shift=-1.0)

    sites = [part for role in roles for part in ([f"attn.{x}" for x in letters] if role == "attn.qkv" else [role])]
    return {"output": insertion("vectors", "output", {"position.site": sites})}, {"value": find}


def knows(entry: dict[str, Any]) -> bool:
    """Whether a builder of GROUPS has all that the entry's configuration says."""
    if entry["group"] != "adapters":
        return True
    config = entry.get("method_config") or {}
    return all(
        (c.get("architecture") == "lora" and c["vera_d"] is None)
        or c.get("architecture") == "prefix_tuning"
        or (c.get("architecture") is None and c.get("inv_adapter", "?") is None)
        for c in config.get("configs", [config])
    )


def adapters(which: Oracle, model: nn.Module) -> Case | None:
    """Configurations of the adapters library; a union is all of its parts."""
    names: dict[str, Any] = {}
    insertions: dict[str, Any] = {}
    for c in which.config.get("configs", [which.config]):
        if c.get("architecture") == "lora":
            built = adapters_lora(which, model, c)
            if built is None:
                return None
            insertions |= built[0]
            names |= {f"{name}:{slot}": ref for name in built[0] for slot, ref in built[1].items()}
        elif c.get("architecture") == "prefix_tuning":
            own = prefix(which, model, c)
            insertions |= own
            group = network("prefix.{insertion}_prefix")
            names |= {f"{name}:{slot}": ref for name in own for slot, ref in group.items()}
        elif c.get("architecture") is None and not c["inv_adapter"]:
            own = bottleneck(which, model, c)
            insertions |= own
            names |= {f"{name}:{slot}": ref for name in own for slot, ref in BOTTLENECK.items()}
        else:
            return None
    return Case(kind_of(which.entry), insertions, names)


def he(which: Oracle, model: nn.Module) -> Case | None:
    """The code of He et al. (2022)."""
    c, insertions = which.config, {}
    names: dict[str, Any] = {}
    scale = c["ffn_adapter_scalar"]
    cross = {"position.optional": ["cross"]}
    if c["attn_mode"] == "lora" or c["ffn_mode"] == "lora":
        size = which.shape("lora_A")[0]
        roles = roles_of(model, linear_sites(which, "lora_A"))
        insertions["attention"] = low_rank(which, roles, size, over_rank(c["lora_alpha"]))
        names |= LOW_RANK
    if c["attn_mode"] == "adapter":
        options: dict[str, Any] = {"function.size": c["attn_bn"], "function.norm": "in"}
        if c["attn_option"] == "parallel":
            insertions["attention"] = insertion("heads", "attention", options)
        else:
            insertions["attention"] = insertion("adapter", "attention", {**options, **cross})
        names |= {f"attention:{slot}": ref for slot, ref in BOTTLENECK.items()}
    if c["attn_mode"] in ("prefix", "prefix_nomlp"):
        reparam = {"hidden": c["mid_dim"], "activation": "tanh"} if c["attn_mode"] == "prefix" else None
        options = {"function.size": c["attn_bn"], "function.reparam": reparam}
        option = c["attn_option"]
        if option != "concat" and c["attn_composition"] == "add":
            options["composition"] = "add"
        if option in ("cross_attn", "cross_attn_relu"):
            options |= {"function.norm": "in"}
        if option == "cross_attn_relu":
            options |= {"function.activation": "relu", "function.scaled": False}
        own = prefixes(model, options)
        insertions |= own
        names |= {f"{name}:{slot}": ref for name in own for slot, ref in network("prefix.{insertion}").items()}
    if c["ffn_mode"] == "adapter":
        norm = c["ffn_adapter_layernorm_option"]
        options = {"function.size": c["ffn_bn"], "function.norm": norm}
        if scale == "learnable_scalar":
            options["scaling"] = "learned"
        elif norm == "out":  # the reference normalises s·f: LN(s z) with ε is LN(z) with ε/s²
            options |= {"function.eps": 1e-5 / float(scale) ** 2, "scaling": 1.0}
        else:
            options["scaling"] = float(scale)
        file = {"parallel": "parallel_adapter", "sequential": "adapter", "pfeiffer": "seq_bn"}[c["ffn_option"]]
        insertions["ffn"] = insertion(file, "ffn", options)
        names |= {f"ffn:{slot}": ref for slot, ref in BOTTLENECK.items()}
    return Case(kind_of(which.entry), insertions, names)


def adamix(which: Oracle, model: nn.Module) -> Case:
    """The released AdaMix code on whole models: bottlenecks after the feed-forward block."""
    c = which.config
    share = [slot for slot in ("down", "up") if c[f"sharing_{slot}"]]
    mixture = {"experts": c["num_experts"], "share": share}
    options = {"function.size": c["adapter_size"], "function.activation": "gelu", "mixture": mixture}

    def find(owned: Owned) -> Ref:
        kind, *rest = owned.slot.split(".")
        return Ref(f"{owned.block}/{'.'.join([kind, *(['0'] if kind in share else []), *rest])}")

    counts = [str(i) for i in range(c["num_experts"])]
    slots = [f"{kind}.{i}.{leaf}" for kind in ("down", "up") for i in counts for leaf in ("weight", "bias")]
    slots += [f"{kind}.{leaf}" for kind in share for leaf in ("weight", "bias")]
    return Case(kind_of(which.entry), {"ffn": insertion("adamix", "ffn", options)}, dict.fromkeys(slots, find))


GROUPS: dict[str, Builder] = {"adapters": adapters, "he": he, "adamix": adamix}
