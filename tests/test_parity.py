"""Exact agreement with strangers: tensors that the reference implementations computed, outputs and every gradient.

Read from ../shared/oracles (UNIPET_ORACLES), never committed. This covers the values that exist so far, on BERT and
RoBERTa; each oracle states its own tolerance.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import unipet
from unipet.adaptation import adaptation
from unipet.objectives import Consistency, consistency_loss

ORACLES = Path(os.environ.get("UNIPET_ORACLES", Path(__file__).resolve().parents[2] / "shared" / "oracles"))
pytestmark = pytest.mark.skipif(
    not (ORACLES / "INDEX.json").is_file(), reason="no ../shared/oracles beside this checkout"
)

Source = Callable[[str, Tensor], Tensor]


def layer_of(name: str) -> int:
    match = re.search(r"layer\.(\d+)", name)
    assert match
    return int(match[1])


def low_rank(name: str) -> tuple[str, slice]:
    _, path, slot = name.split("/")
    return f"{path}/{ {'down': 'lora_A', 'up': 'lora_B'}[slot] }", slice(None)


def bottleneck(name: str) -> tuple[str, slice]:
    _, path, slot = name.split("/")
    where = "attn" if "attention" in path else "ffn"
    return f"encoder.layer.{layer_of(name)}.{where}/{slot}", slice(None)


def flat_prefix(name: str) -> tuple[str, slice]:
    slot = {"keys": "prefix_k", "values": "prefix_v"}[name.rsplit("/")[-1]]
    return f"encoder.layer.{layer_of(name)}.attn/{slot}", slice(None)


def network(group: str) -> Callable[[str], tuple[str, slice]]:
    """The reference's last layer holds all sites; ours one slice per site."""

    def find(name: str) -> tuple[str, slice]:
        insertion, path, slot = name.split("/")
        if insertion == "ffn":
            return bottleneck(name)
        if path == "shared":
            shared = {"tokens": "wte", "hidden.weight": "fc1.weight", "hidden.bias": "fc1.bias"}
            return f"{group}/{shared[slot]}", slice(None)
        which, tensor = slot.split(".")
        row = 2 * layer_of(name) + (which == "values")
        return f"{group}/fc2.{tensor}", slice(row * 32, (row + 1) * 32)

    return find


def ia3(name: str) -> tuple[str, slice]:
    return name.split("/")[1].replace(
        "attention.self", "attention.output.dense" if "heads/" in name else "attention.self"
    ) + ("/ia3_l"), slice(None)


def bias(name: str) -> tuple[str, slice]:
    _, path, leaf = name.split("/")
    return f"{path}/{leaf}", slice(None)


def one(
    function: Any, site: Any, form: str = "parallel", composition: str = "add", scaling: Any = 1.0
) -> dict[str, Any]:
    return {
        "function": function,
        "position": {"site": site, "form": form},
        "composition": composition,
        "scaling": scaling,
    }


def lora_method(c: dict[str, Any]) -> dict[str, Any]:
    scaling = {"name": "alpha_over_rank", "alpha": c["alpha"]}
    return {"attention": one({"name": "low_rank", "size": c["r"]}, ["attn.q", "attn.v"], scaling=scaling)}


def he_lora_method(c: dict[str, Any]) -> dict[str, Any]:
    scaling = {"name": "alpha_over_rank", "alpha": c["lora_alpha"]}
    return {"attention": one({"name": "low_rank", "size": c["attn_bn"]}, ["attn.q", "attn.v"], scaling=scaling)}


def houlsby_method(c: dict[str, Any]) -> dict[str, Any]:
    activation = {"swish": "silu"}.get(c["non_linearity"], c["non_linearity"])
    function = {"name": "bottleneck", "size": int(32 / c["reduction_factor"]), "activation": activation}
    return {"attention": one(function, "attn", "sequential"), "ffn": one(function, "ffn", "sequential")}


def parallel_method(c: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "bottleneck", "size": int(32 / c["reduction_factor"])}
    return {"ffn": one(function, "ffn", scaling=c["scaling"])}


def prefix_method(c: dict[str, Any]) -> dict[str, Any]:
    reparam = None if c["flat"] else {"hidden": c["bottleneck_size"], "activation": c["non_linearity"]}
    function = {"name": "prefix", "size": c["prefix_length"], "reparam": reparam}
    return {"attention": one(function, "attn.heads", composition="gated")}


def he_mam_method(c: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "prefix", "size": c["attn_bn"], "reparam": {"hidden": c["mid_dim"]}}
    ffn = one({"name": "bottleneck", "size": c["ffn_bn"]}, "ffn", scaling=float(c["ffn_adapter_scalar"]))
    return {"attention": one(function, "attn.heads", composition="gated"), "ffn": ffn}


def ia3_method(c: dict[str, Any]) -> dict[str, Any]:
    # The pattern output.dense catches the attention's output projection as well: its input is the heads' output.
    return {
        "keys": one("vector", ["attn.k", "attn.v"], composition="multiply"),
        "heads": one("vector", "attn.heads", composition="multiply"),
        "ffn": one("vector", "ffn.mid", composition="multiply"),
    }


CASES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], Callable[[str], tuple[str, slice]]]] = {
    "adapters_bert_lora": (lora_method, low_rank),
    "adapters_bert_lora_s1": (lora_method, low_rank),
    "adapters_roberta_lora": (lora_method, low_rank),
    "he_roberta_lora": (he_lora_method, low_rank),
    "adapters_bert_double_seq_bn": (houlsby_method, bottleneck),
    "adapters_bert_par_bn": (parallel_method, bottleneck),
    "adapters_bert_prefix_flat": (prefix_method, flat_prefix),
    "adapters_bert_prefix_mlp": (prefix_method, network("prefix.self_prefix")),
    "adapters_bert_prefix_mlp_s1": (prefix_method, network("prefix.self_prefix")),
    "adapters_roberta_prefix_mlp": (prefix_method, network("prefix.self_prefix")),
    "he_roberta_mam": (he_mam_method, network("prefix.self")),
    "peft_bert_ia3": (ia3_method, ia3),
}


def entry(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    index = json.loads((ORACLES / "INDEX.json").read_text())
    oracle = index["oracles"][name]
    return oracle, load_file(ORACLES / oracle["file"]), index["models"].get(oracle.get("model", ""), {})


def base_model(spec: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    options = {k: v for k, v in spec["config_full"].items() if k not in ("model_type", "transformers_version")}
    config = getattr(transformers, spec["config_class"])(**options, attn_implementation="eager")
    model = getattr(transformers, spec["model_class"])(config, **spec["init_kwargs"]).eval()
    state = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("base/")}
    model.load_state_dict(state)
    return model


def inputs(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: tensors[f"input/{name}"] for name in names if f"input/{name}" in tensors}


def compare(out: Tensor, expected: Tensor, tensors: dict[str, Tensor], tolerance: dict[str, float]) -> None:
    valid = tensors["input/valid_mask"].bool()
    assert (out - expected)[valid].abs().max() <= tolerance["out_abs"]


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name: str) -> None:
    oracle, tensors, spec = entry(name)
    build, find = CASES[name]
    model = base_model(spec, tensors)
    unipet.adapt(model, {"name": "test", "insertions": build(oracle["method_config"]), "unfreeze": []})
    own = unipet.parameters(model)
    used = set()
    for parameter_name, parameter in own.items():
        key, rows = find(parameter_name)
        value = tensors[f"delta/{key}"][rows].reshape(parameter.shape)
        used.add(f"delta/{key}")
        with torch.no_grad():
            parameter.copy_(value - 1 if name.startswith("peft_bert_ia3") else value)
    assert used == {key for key in tensors if key.startswith("delta/")}
    out = model(**inputs(tensors)).last_hidden_state
    compare(out, tensors["out/last_hidden_state"], tensors, oracle["tolerance"])
    (out * tensors["probe"]).sum().backward()
    for parameter_name, parameter in own.items():
        key, rows = find(parameter_name)
        expected = tensors[f"grad/{key}"][rows].reshape(parameter.shape)
        assert parameter.grad is not None
        assert (parameter.grad - expected).abs().max() <= oracle["tolerance"]["grad_abs"], parameter_name


def test_biases() -> None:
    oracle, tensors, spec = entry("peft_bert_bitfit")
    model = base_model(spec, tensors)
    unipet.adapt(model, {"name": "test", "unfreeze": ["bias"]})
    with torch.no_grad():
        for name, parameter in unipet.parameters(model).items():
            parameter.copy_(tensors[f"delta/{bias(name)[0]}"])
    out = model(**inputs(tensors)).last_hidden_state
    compare(out, tensors["out/last_hidden_state"], tensors, oracle["tolerance"])
    (out * tensors["probe"]).sum().backward()
    for name, parameter in unipet.parameters(model).items():
        assert (parameter.grad - tensors[f"grad/{bias(name)[0]}"]).abs().max() <= oracle["tolerance"]["grad_abs"]


@pytest.mark.parametrize("name", ["adamix_bert", "adamix_bert_shareup", "adamix_roberta_shareup"])
def test_mixtures_routed_and_merged(name: str) -> None:
    """The released AdaMix code: every recorded route, and the averaged experts of evaluation."""
    oracle, tensors, spec = entry(name)
    config = oracle["method_config"]
    share = [slot for slot in ("down", "up") if config[f"sharing_{slot}"]]
    function = {"name": "bottleneck", "size": config["adapter_size"], "activation": "gelu"}
    insertion = {**one(function, "ffn", "sequential"), "mixture": {"experts": config["num_experts"], "share": share}}
    model = base_model(spec, tensors)
    unipet.adapt(model, {"name": "test", "insertions": {"ffn": insertion}, "unfreeze": []})
    own, inserted = unipet.parameters(model), adaptation(model)

    def key(name: str) -> str:
        where, slot = bottleneck(name)[0].split("/")
        kind, *rest = slot.split(".")
        return f"{where}/{kind}.{'.'.join(['0', *rest]) if kind in share else '.'.join(rest)}"

    with torch.no_grad():
        for parameter_name, parameter in own.items():
            parameter.copy_(tensors[f"delta/{key(parameter_name)}"])
    scenarios: list[tuple[str, Any]] = [("merged", None)]
    scenarios += [(f"route{i}", route) for i, route in enumerate(oracle["routes"])]
    for scenario, route in scenarios:
        inserted.train(route is not None)
        for item in inserted.items:
            if route is not None:
                down, up = route[item.site.layer]
                chosen = {slot: expert for slot, expert in (("down", down), ("up", up)) if slot not in share}
                inserted.call_record.routes = [{**(inserted.call_record.routes or [{}])[0], item.number: chosen}]
        inserted._driven = True
        model.zero_grad()
        out = model(**inputs(tensors)).last_hidden_state
        compare(out, tensors[f"out/{scenario}/last_hidden_state"], tensors, oracle["tolerance"])
        (out * tensors["probe"]).sum().backward()
        for parameter_name, parameter in own.items():
            expected = tensors.get(f"grad/{scenario}/{key(parameter_name)}")
            if parameter.grad is not None and expected is not None:
                assert (parameter.grad - expected).abs().max() <= oracle["tolerance"]["grad_abs"], parameter_name


def test_consistency_loss_and_gradient() -> None:
    _, tensors, _ = entry("adamix_consistency")
    p, q = (tensors[f"input/glue_{side}"].clone().requires_grad_() for side in "pq")
    loss = consistency_loss(Consistency(), p, q, regression=False)
    assert torch.allclose(loss, tensors["out/glue"], atol=5e-6)
    loss.backward()
    for side, value in (("p", p), ("q", q)):
        name = next(key for key in tensors if key.startswith("grad/glue") and key.endswith(side) and "total" not in key)
        assert value.grad is not None and torch.allclose(value.grad, tensors[name], atol=5e-6)
