"""Oracles of single layers: the same insertions on a base model of one module, with a site table of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

import unipet
from tests.support.oracle_reading import Oracle, insertion
from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.build import build
from unipet.calculus.forward_context import ForwardContext
from unipet.calculus.method import parse_method
from unipet.calculus.objectives import Answers, Consistency
from unipet.calculus.sites import Architecture, HookPoint, Stack

ACTIVATIONS = {"gelu_new": "gelu_tanh"}
FUSED = {f"attn.{letter}": (HookPoint("it", part=(i, 3)),) for i, letter in enumerate("qkv")}


class Through(nn.Module):
    """A place to insert at: what comes in goes out."""

    def forward(self, z: Tensor) -> Tensor:
        return z


class Beside(nn.Module):
    """x and a residual, as AdaMix's layer takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.it = Through(), Through()


class OneLayer(nn.Module):
    """A base model of one module."""

    def __init__(self, module: nn.Module, width: int):
        super().__init__()
        self.config = SimpleNamespace(model_type="one", hidden_size=width, num_attention_heads=1)
        layer = module if isinstance(module, Beside) else nn.ModuleDict({"it": module})
        self.layers = nn.ModuleList([layer])
        self.ballast = nn.Parameter(torch.zeros(1))  # tells the dtype where the module has no weight

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        layer: Any = self.layers[0]
        if residual is None:
            return layer["it"](x)
        layer.x(x)
        return layer.it(residual)


def adapted(model: OneLayer, given: dict[str, Any], roles: dict[str, Any]) -> Adaptation:
    table = Architecture(name="one", model_types=("one",), stacks={"encoder": Stack(layers="layers", roles=roles)})
    method = parse_method({"name": "oracle", "insertions": given, "unfreeze": []})
    inserted = build(model, method, table)
    inserted.attach(model)
    return inserted


class Errors:
    """The largest error so far, within the oracle's tolerance."""

    def __init__(self, which: Oracle):
        self.which, self.out, self.grad = which, 0.0, 0.0
        self.seen: set[str] = set()

    def output(self, name: str, found: Tensor) -> None:
        error = (found - self._expected(f"out/{name}")).abs().max().item()
        assert error <= self.which.tolerance["out_abs"], f"out/{name} differs by {error:.2e}"
        self.out = max(self.out, error)

    def gradient(self, name: str, found: Tensor) -> None:
        error = (found - self._expected(f"grad/{name}")).abs().max().item()
        assert error <= self.which.tolerance["grad_abs"], f"grad/{name} differs by {error:.2e}"
        self.grad = max(self.grad, error)

    def _expected(self, key: str) -> Tensor:
        self.seen.add(key)
        return self.which.tensors[key]

    def all_seen(self) -> dict[str, float]:
        """The errors; every stored output and gradient must have been compared."""
        stored = {key for key in self.which.tensors if key.startswith(("out/", "grad/")) and not key.endswith("loss")}
        assert stored == self.seen, f"never compared: {sorted(stored ^ self.seen)}"
        return {"out": self.out, "grad": self.grad}


def fill(which: Oracle, model: nn.Module, key: Callable[[str], tuple[str, Any]], prefix: str = "") -> None:
    """Every delta under `prefix` into our parameters; none may be left over."""
    used = set()
    with torch.no_grad():
        for name, parameter in unipet.parameters(model).items():
            if name.endswith(".scores"):
                continue
            delta, rows = key(name)
            parameter.copy_(which.tensors[f"delta/{prefix}{delta}"][rows].reshape(parameter.shape))
            used.add(delta)
    assert used == {delta.removeprefix(prefix) for delta in which.keys("delta") if delta.startswith(prefix)}


# -- AdaMix ------------------------------------------------------------------------------------------------------------


def expert_name(name: str, share: list[str]) -> tuple[str, Any]:
    """`soup/layers.0.it/down.weight` -> `down.0.weight` where the slot is shared."""
    kind, *rest = name.rpartition("/")[2].split(".")
    return ".".join([kind, "0", *rest] if kind in share else [kind, *rest]), slice(None)


def soup(which: Oracle) -> dict[str, float]:
    """The released ExpertSoup: routes, averages, learned scores, routes of tokens and examples at evaluation."""
    entry, tensors, errors = which.entry, which.tensors, Errors(which)
    share = [slot for slot in ("down", "up") if entry[f"sharing_{slot}"]]
    free = [slot for slot in ("down", "up") if slot not in share]
    size, width = which.shape("down.0.weight")

    def run(scenario: str, training: bool, given: dict[str, Any], route: Any = None, scores: bool = False) -> None:
        options = {
            "function.size": size,
            "function.activation": ACTIVATIONS.get(entry["act"], entry["act"]),
            "mixture": {"experts": entry["M"], "share": share, **given},
        }
        model = OneLayer(Beside(), width)
        roles = {"ffn": (HookPoint("it", x="x"),)}
        inserted = adapted(model, {"soup": insertion("adamix_layers", "soup", options)}, roles)
        fill(which, model, lambda name: expert_name(name, share))
        inserted.train(training)
        inserted.routing.driven = True
        number, own = inserted.items[0].number, unipet.parameters(model)
        chosen = {slot: one for slot, one in zip(("down", "up"), route or (), strict=False) if slot in free}
        inserted.context.routes = [{number: chosen}]

        begin_pass = inserted.routing.begin_pass

        def begin_as_drawn(context: ForwardContext, *rest: Any) -> None:
            begin_pass(context, *rest)
            context.evaluation[number] = chosen  # the oracle's draw, in place of ours

        inserted.routing.begin_pass = begin_as_drawn  # type: ignore[method-assign]
        if scores:
            with torch.no_grad():
                for slot in free:
                    own[f"soup/layers.0.it/{slot}.scores"].copy_(tensors[f"input/scores_{slot}"])
        out = model(tensors["input/x"], tensors["input/residual"])
        errors.output(scenario, out)
        (out * tensors["probe"]).sum().backward()
        for name, parameter in own.items():
            slot, _, leaf = name.rpartition("/")[2].partition(".")
            key = f"scores_{slot}" if leaf == "scores" else expert_name(name, share)[0]
            if f"grad/{scenario}/{key}" in tensors:
                assert parameter.grad is not None, name
                errors.gradient(f"{scenario}/{key}", parameter.grad)
            else:
                assert parameter.grad is None or training is False, f"{name} must not train in {scenario}"
        for slot in share:  # its one score is a constant: softmax of one number
            if f"grad/{scenario}/scores_{slot}" in tensors:
                errors.gradient(f"{scenario}/scores_{slot}", torch.zeros(1))
        if scenario == "merged":
            merged = inserted.items[0].params()
            for slot in ("down", "up"):
                for leaf in ("weight", "bias"):
                    errors.output(f"merged_{slot}_{leaf}", merged[f"{slot}.{leaf}"])

    for route in entry["routes"]:
        run(f"route_{route[0]}_{route[1]}", True, {}, route)
    run("merged", False, {})
    run("merged_scores", False, {"router": "soft", "reducer": "weighted"}, scores=True)
    run("train_scores", True, {"router": "soft", "reducer": "weighted"}, scores=True)
    for grain, reducer, short in (("token", "random_token", "token"), ("sentence", "random_example", "sent")):
        if f"eval_{grain}_routing" not in which.keys("out"):
            continue  # the code for generation has no such routes
        rows = [tensors[f"input/{short}_route_{slot}"] for slot in ("down", "up")]
        run(f"eval_{grain}_routing", False, {"reducer": reducer}, rows)
    return errors.all_seen()


def low_rank_soup(which: Oracle) -> dict[str, float]:
    """The released AdaMix-LoRA on the query and value parts of a fused projection: one draw for both parts."""
    entry, tensors, errors = which.entry, which.tensors, Errors(which)
    width = tensors["base/weight"].shape[0]

    def rows_of(name: str, share: list[str]) -> tuple[str, Any]:
        _, path, tail = name.split("/")
        slot, _, expert = tail.partition(".")
        kind = {"down": "lora_A", "up": "lora_B"}[slot]
        size = entry["r"] if slot == "down" else width
        first = ("q", "v").index(path.rpartition(".")[2]) * size
        return f"{kind}.{expert or 0}", slice(first, first + size)

    for variant in sorted({key.partition("/")[0] for key in which.keys("delta")}):
        share = [slot for slot in ("down", "up") if variant == {"down": "shareA", "up": "shareB"}[slot]]
        free = [slot for slot in ("down", "up") if slot not in share]
        scenarios = {key.split("/")[1] for key in which.keys("out") if key.startswith(f"{variant}/")}
        for scenario in sorted(scenarios):
            base = Conv1D(tensors["base/weight"].shape[1], width)
            base.load_state_dict({leaf: tensors[f"base/{leaf}"] for leaf in ("weight", "bias")})
            model, routed = OneLayer(base, width), scenario.startswith("route_")
            chosen_by = {"router": "uniform"} if routed else {"router": "soft", "reducer": "weighted"}
            options = {
                "function.size": entry["r"],
                "scaling.alpha": entry["scale"] * entry["r"],
                "mixture": {"experts": entry["M"], "share": share, **chosen_by},
            }
            inserted = adapted(model, {"low_rank": insertion("adamix_layers", "low_rank", options)}, FUSED)
            fill(which, model, lambda name: rows_of(name, share), f"{variant}/")  # noqa: B023
            inserted.train(routed)
            inserted.routing.driven = True
            if routed:
                chosen = dict(zip(("down", "up"), map(int, scenario.split("_")[1:]), strict=True))
                route = {slot: chosen[slot] for slot in free}
                inserted.context.routes = [dict.fromkeys((item.number for item in inserted.items), route)]
            if scenario == "merged_scores":
                with torch.no_grad():
                    for item in inserted.items:
                        for slot in free:
                            item.bank.home.parameter(item.bank.scores[slot]).copy_(tensors["input/scores"])
            out = model(tensors["input/x"])
            errors.output(f"{variant}/{scenario}", out)
            (out * tensors["probe"]).sum().backward()
            found: dict[str, list[Tensor]] = {}
            for name, parameter in unipet.parameters(model).items():
                if not name.endswith(".scores") and parameter.grad is not None:
                    found.setdefault(rows_of(name, share)[0], []).append(parameter.grad)
            for key, pieces in found.items():
                errors.gradient(f"{variant}/{scenario}/{key}", torch.cat(pieces))
    return errors.all_seen()


def consistency(which: Oracle) -> dict[str, float]:
    """The released symmetric KL, on its own and beside the cross-entropy of the first view."""
    tensors, errors = which.tensors, Errors(which)

    def run(name: str, source: str, take: Any, labels: Tensor | None = None) -> None:
        p, q = (tensors[f"input/{source}_{side}"].clone().requires_grad_() for side in "pq")
        loss = Consistency().term(Answers([p[take], q[take]]))
        if labels is not None:
            loss = loss + F.cross_entropy(p, labels)
        errors.output(name, loss)
        loss.backward()
        for side, value in (("p", p), ("q", q)):
            assert value.grad is not None
            errors.gradient(f"{name}/{side}", value.grad)

    run("glue", "glue", slice(None))
    run("glue_total", "glue", slice(None), tensors["input/glue_labels"].long())
    run("nlg", "nlg", tensors["input/nlg_mask"].bool())
    return errors.all_seen()


# -- loralib -----------------------------------------------------------------------------------------------------------


def _module(which: Oracle, name: str) -> nn.Module:
    """The base module of one layer: an embedding, a linear map, or one that keeps its weight as (in, out)."""
    state = {
        key.partition("/")[2]: which.tensors[f"base/{key}"] for key in which.keys("base") if key.startswith(f"{name}/")
    }
    first, second = state["weight"].shape
    if name == "embedding":
        module: nn.Module = nn.Embedding(first, second)
    else:
        module = Conv1D(second, first) if name.endswith("fan") else nn.Linear(second, first)
    module.load_state_dict(state)
    return module


def low_rank_layers(which: Oracle) -> dict[str, float]:
    """microsoft/LoRA's layers, unmerged and merged: linear, transposed, embedding, and parts of a fused projection."""
    tensors, errors = which.tensors, Errors(which)
    for name in sorted({key.partition("/")[0] for key in which.keys("delta")}):
        module = _module(which, name)
        letters = [x for x in "qkv" if x in name.split("_")[1]] if name.startswith("merged") else []
        model = OneLayer(module, 0)
        options = {
            "function.size": which.entry["r"],
            "position.site": [f"attn.{letter}" for letter in letters] or ["ffn.up"],
            "scaling.alpha": which.entry["alpha"],
            "mixture": None,
        }
        roles = FUSED if letters else {"ffn.up": (HookPoint("it"),)}
        adapted(model, {"low_rank": insertion("adamix_layers", "low_rank", options)}, roles)

        def place(own: str, letters: list[str] = letters) -> tuple[str, Any]:
            slot = {"down": "lora_A", "up": "lora_B"}[own.rpartition("/")[2]]
            if not letters:
                return slot, slice(None)
            at = letters.index(own.split("/")[1].rpartition(".")[2])
            size = len(tensors[f"delta/{name}/{slot}"]) // len(letters)  # noqa: B023
            return slot, slice(at * size, (at + 1) * size)

        fill(which, model, place, f"{name}/")
        x = tensors["input/ids" if name == "embedding" else "input/x"]
        out = model(x)
        errors.output(name, out)
        (out * tensors[f"probe/{name}"]).sum().backward()
        found: dict[str, list[Tensor]] = {}
        for own, parameter in unipet.parameters(model).items():
            assert parameter.grad is not None
            found.setdefault(place(own)[0], []).append(parameter.grad)
        for slot, pieces in found.items():
            errors.gradient(f"{name}/{slot}", torch.cat(pieces))
        unipet.merge(model)
        errors.output(f"{name}_merged_weight", module.weight)  # type: ignore[arg-type]
        errors.output(f"{name}_merged", model(x))
    return errors.all_seen()


LAYERS: dict[str, Callable[[Oracle], dict[str, float]]] = {
    "adamix_layer": soup,
    "adamix_lora": low_rank_soup,
    "adamix_consistency": consistency,
    "loralib": low_rank_layers,
    "loralib_layers": low_rank_layers,
}
