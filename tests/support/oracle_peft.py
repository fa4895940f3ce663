"""The families of the peft library: one line of options and one name map each."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.oracle_families import LOW_RANK, kind_of, low_rank, network, over_rank, rows
from tests.support.oracle_reading import Case, NameMap, Oracle, Owned, Ref, insertion, linear_sites, roles_of

Linear = Callable[[dict[str, Any], Oracle], dict[str, Any]]


def transposed(key: str) -> Callable[[Owned], Ref]:
    return lambda owned: Ref(key.format(**vars(owned)), lambda tensor: tensor.T)


def first(key: str, squeeze: int | None = None) -> Callable[[Owned], Ref]:
    """The leading entries of a shared tensor, as many as ours has."""

    def find(owned: Owned) -> Ref:
        def take(tensor: Tensor) -> Tensor:
            tensor = tensor if squeeze is None else tensor.squeeze(squeeze)
            return tensor[tuple(slice(size) for size in owned.shape)]

        return Ref(key, take)

    return find


def flat(key: str) -> Callable[[Owned], Ref]:
    """Places given as (row, column), ours counted row by row."""
    return lambda owned: Ref(key.format(**vars(owned)), lambda at: at[0] * owned.u + at[1])


def sites(which: Oracle, model: nn.Module, *suffixes: str) -> list[str]:
    return roles_of(model, linear_sites(which, *suffixes))


#: type -> (method file, insertion, name of a delta at its sites, options from the configuration, name map).
LINEAR: dict[str, tuple[str, str, str, Callable[[dict[str, Any], Oracle], dict[str, Any]], NameMap]] = {
    "HIRA": (
        "hira",
        "weights",
        "hira_A",
        lambda c, o: {"function.size": c["r"]},
        {"down": "{path}/hira_A", "up": "{path}/hira_B"},
    ),
    "LOHA": (
        "loha",
        "attention",
        "hada_w1_a",
        lambda c, o: {"function.size": c["r"], "scaling": over_rank(c["alpha"])},
        {f"{ours}{i}": f"{{path}}/hada_w{i}_{theirs}" for i in (1, 2) for ours, theirs in (("up", "a"), ("down", "b"))},
    ),
    "LOKR": (
        "lokr",
        "attention",
        "lokr_w",
        lambda c, o: {
            "function.size": c["r"],
            "function.factor": c["decompose_factor"],
            "function.decompose_both": c["decompose_both"],
            "scaling": over_rank(c["alpha"]),
        },
        {
            ours + half: f"{{path}}/lokr_{theirs}{letter}"
            for ours, theirs in (("outer", "w1"), ("inner", "w2"))
            for half, letter in (("", ""), ("_up", "_a"), ("_down", "_b"))
        },
    ),
    "ADALORA": (
        "adalora_fixed",
        "weights",
        "lora_E",
        lambda c, o: {
            "function.size": o.shape("lora_E")[0],
            "scaling": {"name": "alpha_over_rank", "alpha": float(c["lora_alpha"]), "epsilon": 1e-5},
        },
        {**LOW_RANK, "diagonal": "{path}/lora_E"},
    ),
    "OFT": (
        "oft",
        "rotation",
        "oft_R",
        lambda c, o: {
            "function.size": c["oft_block_size"] or (1 + isqrt(1 + 8 * o.shape("oft_R")[1])) // 2,
            "function.cayley": "neumann" if c["use_cayley_neumann"] else "exact",
            "function.terms": c["num_cayley_neumann_terms"],
            "function.share_blocks": c["block_share"],
        },
        {"upper": "{path}/oft_R"},
    ),
    "HRA": (
        "hra",
        "reflection",
        "hra_u",
        lambda c, o: {"function.size": c["r"], "function.gram_schmidt": c["apply_GS"]},
        {"vectors": transposed("{path}/hra_u")},
    ),
    "ROAD": (
        "road",
        "rotation",
        "road_theta",
        lambda c, o: {"function.per_pair": int(c["variant"][-1]), "function.group_size": c["group_size"]},
        {"angles": "{path}/road_theta", "gains": "{path}/road_alpha"},
    ),
    "C3A": ("c3a", "attention", "kernel", lambda c, o: {"function.size": c["block_size"]}, {"kernel": "{path}/kernel"}),
    "FOURIERFT": (
        "fourierft",
        "attention",
        "spectrum",
        lambda c, o: {"function.size": c["n_frequency"], "scaling": float(c["scaling"])},
        {"values": "{path}/spectrum", "places": flat("{path}/indices")},
    ),
    "SHIRA": (
        "shira",
        "attention",
        "values",
        lambda c, o: {"function.size": c["r"]},
        {"values": "{path}/values", "places": flat("{path}/indices")},
    ),
    "MISS": (
        "miss",
        "attention",
        "miss_block",
        lambda c, o: {"function.size": c["r"], "function.of_weight": c["init_weights"] == "bat"},
        {"up": transposed("{path}/miss_block"), "blocks": "{path}/miss_block"},
    ),
    "RANDLORA": (
        "randlora",
        "weights",
        "lambda",
        lambda c, o: {
            "function.size": c["r"],
            "function.released_order": True,
            "scaling": over_rank(c["randlora_alpha"]),
        },
        {
            "inner": "{path}/lambda",
            "outer": "{path}/gamma",
            "A": first("randlora.shared/randlora_A", squeeze=1),
            "B": first("randlora.shared/randlora_B"),
        },
    ),
    "VBLORA": (
        "vblora",
        "attention",
        "logits_A",
        lambda c, o: {
            "function.size": c["r"],
            "function.vectors": c["num_vectors"],
            "function.vector": c["vector_length"],
            "function.top": c["topk"],
        },
        {
            "down.logits": "{path}/logits_A",
            "up.logits": "{path}/logits_B",
            "bank": "vblora.shared/vector_bank",
        },
    ),
    "VERA": (
        "vera",
        "attention",
        "lambda_d",
        lambda c, o: {"function.size": c["r"]},
        {
            "inner": "{path}/lambda_d",
            "outer": "{path}/lambda_b",
            "down": first("vera.shared/vera_A"),
            "up": first("vera.shared/vera_B"),
        },
    ),
    "BEFT": ("beft", "attention", "beft_bias", lambda c, o: {}, {"value": "{path}/beft_bias"}),
}


def linear(which: Oracle, model: nn.Module, kind: str) -> Case:
    file, name, delta, options, names = LINEAR[kind]
    paths = {key.rpartition("/")[0] for key in which.keys("delta") if key.rpartition("/")[2].startswith(delta)}
    given = {"position.site": roles_of(model, paths), "position.optional": False, **options(which.config, which)}
    return Case(kind_of(which.entry), {name: insertion(file, name, given)}, names)


def lora(which: Oracle, model: nn.Module) -> Case:
    """LoRA and its switches: the root of the rank, a magnitude, a bias."""
    c, roles = which.config, sites(which, model, "lora_A")
    scaling = over_rank(c["lora_alpha"])
    names = {**LOW_RANK, "up.bias": "{path}/lora_B_bias", "magnitude": "{path}/magnitude"}
    if c["use_rslora"]:
        scaling["name"] = "alpha_over_sqrt_rank"
    if c["use_dora"]:
        options = {"function.size": c["r"], "position.site": roles, "position.optional": False, "scaling": scaling}
        return Case(kind_of(which.entry), {"attention": insertion("dora", "attention", options)}, names)
    return Case(
        kind_of(which.entry),
        {"attention": low_rank(which, roles, c["r"], scaling, function__bias=c["lora_bias"])},
        names,
    )


def ia3(which: Oracle, model: nn.Module) -> Case:
    paths = linear_sites(which, "ia3_l")
    inner = set(which.config["feedforward_modules"])
    inputs = {path for path in paths if any(path == name or path.endswith(f".{name}") for name in inner)}
    insertions = {
        "output": insertion("vectors", "output", {"position.site": roles_of(model, paths - inputs)}),
        "input": insertion("vectors", "input", {"position.site": roles_of(model, inputs)}),
    }
    return Case(kind_of(which.entry), insertions, {"value": lambda owned: Ref(f"{owned.path}/ia3_l", shift=-1.0)})


def boft(which: Oracle, model: nn.Module) -> Case:
    c, roles = which.config, sites(which, model, "boft_R")
    orders = {key for key in which.keys("delta") if key.endswith("boft_P")}
    if c["boft_n_butterfly_factor"] == 1:  # with one factor nothing is permuted: the stored order says so itself
        assert all(
            torch.equal(which.tensors[f"delta/{key}"][0], torch.eye(which.tensors[f"delta/{key}"].shape[1]))
            for key in orders
        )
    size, factors = which.shape("boft_R")[-1], c["boft_n_butterfly_factor"]
    options = {"position.site": roles, "position.optional": False}
    insertions = {
        "rotation": insertion("boft", "rotation", {**options, "function.size": size, "function.factors": factors}),
        "scale": insertion("boft", "scale", options),
    }
    names: NameMap = {"blocks": "{path}/boft_R", "value": lambda owned: Ref(f"{owned.path}/boft_s", shift=-1.0)}
    return Case(kind_of(which.entry), insertions, names, unused=lambda key: key in orders)


def biases(which: Oracle, model: nn.Module) -> Case:
    return Case(kind_of(which.entry), {}, {"bias": "{path}/bias"}, unfreeze=("bias",))


def norms(which: Oracle, model: nn.Module) -> Case:
    return Case(kind_of(which.entry), {}, {"bias": "{path}/bias", "weight": "{path}/weight"}, unfreeze=("norm",))


def prefix(which: Oracle, model: nn.Module) -> Case:
    """Past keys and values: real tokens move behind the prefix. An encoder-decoder has them in its decoder alone."""
    c = which.config
    seq2seq = any(mod["kind"] == "peft_seq2seq_prefix" for mod in which.entry["mods"])
    options: dict[str, Any] = {
        "function.size": c["num_virtual_tokens"],
        "function.reparam": None,
        "composition.shift_positions": True,
        "position.stack": "decoder" if seq2seq else "all",
    }
    if c["prefix_projection"]:
        reparam = {"hidden": c["encoder_hidden_size"], "activation": "tanh", "width": which.shape("wte")[1]}
        options["function.reparam"] = reparam
    names = network("prefix.self")
    if seq2seq:
        names = {slot: _of_twice_the_layer(i, c["num_layers"]) for i, slot in enumerate(("keys", "values"))}
    return Case(kind_of(which.entry), {"self": insertion("three_prefixes", "self", options)}, names)


def _of_twice_the_layer(which: int, layers: int) -> Callable[[Owned], Ref]:
    """The reference hands layer i the prefix of layer 2i mod L, so of an even number half are never used, and the others
    serve two layers."""

    def find(owned: Owned) -> Ref:
        at = (2 * owned.number % layers) * 2 + which
        return Ref("prefix.decoder_self/embedding", lambda t: rows(at * owned.kv, (at + 1) * owned.kv)(t.T).T)

    return find


def prompt(which: Oracle, model: nn.Module) -> Case:
    options = {
        "function.size": which.config["num_virtual_tokens"],
        "composition": {"name": "concat", "after": "start", "keep_outputs": True},
    }
    inserted = {"prompt": insertion("prompt_tuning", "prompt", options)}
    return Case(kind_of(which.entry), inserted, {"tokens": "prompt_encoder/prompt"})


OTHERS: dict[str, Callable[[Oracle, nn.Module], Case]] = {
    "LORA": lora,
    "IA3": ia3,
    "BOFT": boft,
    "LN_TUNING": norms,
    "BITFIT": biases,
    "PREFIX_TUNING": prefix,
    "PROMPT_TUNING": prompt,
}


def _type(entry: dict[str, Any]) -> str:
    return str((entry.get("method_config") or {}).get("peft_type", entry.get("method", ""))).upper()


def peft_knows(entry: dict[str, Any]) -> bool:
    """Whether one of the tables has the entry's type."""
    return _type(entry) in LINEAR or _type(entry) in OTHERS


def peft(which: Oracle, model: nn.Module) -> Case | None:
    kind = _type(which.entry)
    if kind in LINEAR:
        return linear(which, model, kind)
    return OTHERS[kind](which, model) if kind in OTHERS else None
