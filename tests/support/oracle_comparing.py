"""Comparing an adapted model with an oracle: every delta loaded, every stored output and gradient compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import unipet
from tests.support.oracle_reading import Case, Oracle, Ref, base_model, owned_tensors
from unipet.adaptation.adapted import adaptation

Owned = dict[str, tuple[Ref, Tensor]]


def load(which: Oracle, case: Case, model: nn.Module) -> Owned:
    """Every delta into our parameters. A delta that no parameter takes, or a parameter without one, fails."""
    owned = {name: (case.ref(place), tensor) for name, (place, tensor) in owned_tensors(model).items()}
    deltas = which.keys("delta")
    missing = {name: ref.key for name, (ref, _) in owned.items() if ref.key not in deltas}
    assert not missing, f"parameters without a delta: {missing}"
    unused = {key for key in deltas - {ref.key for ref, _ in owned.values()} if not case.unused(key)}
    assert not unused, f"deltas that nothing uses: {sorted(unused)}"
    with torch.no_grad():
        for ref, tensor in owned.values():
            tensor.copy_(ref.value(which.tensors, tensor.shape))
    return owned


def outputs(out: Any) -> dict[str, Tensor]:
    """A model's outputs under the oracle's names."""
    found: dict[str, Tensor] = {}
    for name, value in out.items():
        if isinstance(value, tuple) and name.endswith("hidden_states"):
            stem = "hidden_states" if name == "decoder_hidden_states" else name
            found |= {f"{stem}.{i}": one for i, one in enumerate(value)}
        elif isinstance(value, Tensor):
            found[name] = value
    return found


def valid(which: Oracle, name: str, length: int) -> Tensor:
    """Where an output may be compared: at real tokens."""
    masks = ["attention_mask"] if name.startswith("encoder_") else ["out_valid_mask", "valid_mask"]
    for mask in masks:
        found = which.tensors.get(f"input/{mask}")
        if found is not None and found.shape[1] == length:
            return found.bool()
    raise AssertionError(f"{which.name} has no mask for {name} with {length} positions")


def compare(which: Oracle, found: dict[str, Tensor], prefix: str = "out") -> float:
    """The largest error over all stored outputs. All must be found."""
    worst = 0.0
    for name in sorted(key for key in which.keys(prefix) if "/" not in key and key != "loss"):
        expected = which.tensors[f"{prefix}/{name}"]
        assert name in found, f"{which.name} stores {prefix}/{name}, the model gives {sorted(found)}"
        mask = valid(which, name, expected.shape[1])
        error = (found[name] - expected)[mask].abs().max().item()
        assert error <= which.tolerance["out_abs"], f"{prefix}/{name} differs by {error:.2e}"
        worst = max(worst, error)
    return worst


def gradients(which: Oracle, owned: Owned, prefix: str = "grad") -> float:
    """The largest error over all stored gradients: ours, sent back through the name map to the oracle's own tensors.

    So every entry of a stored gradient is compared: what no parameter of ours takes must be zero there, and what
    several take is their sum.
    """
    trained = {name: (ref, tensor) for name, (ref, tensor) in owned.items() if isinstance(tensor, nn.Parameter)}
    by_key: dict[str, list[tuple[Ref, Tensor]]] = {}
    for ref, parameter in trained.values():
        by_key.setdefault(ref.key, []).append((ref, parameter))
    stored, worst = which.keys(prefix), 0.0
    assert stored <= set(by_key), f"gradients of nothing of ours: {sorted(stored - set(by_key))}"
    for key, takers in by_key.items():
        leaf = which.tensors[f"delta/{key}"].clone().requires_grad_()
        for ref, parameter in takers:
            if parameter.grad is not None:
                ref.take(leaf).reshape(parameter.shape).backward(parameter.grad)
        found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        if key not in stored:
            assert prefix != "grad" and not found.any(), f"{key} has a gradient, and the oracle none"
            continue
        error = (found - which.tensors[f"{prefix}/{key}"]).abs().max().item()
        assert error <= which.tolerance["grad_abs"], f"the gradient of {key} differs by {error:.2e}"
        worst = max(worst, error)
    return worst


def adapted(which: Oracle, build: Any) -> tuple[Case, nn.Module, Owned]:
    """The base model, checked against the oracle's own, adapted and filled."""
    model = base_model(which)
    with torch.no_grad():
        compare(which, outputs(model(**which.inputs(), output_hidden_states=True)), "out_base")
    case = build(which, model)
    assert case is not None, f"{which.name}: no family covers it, and NOT_COVERED does not say why"
    unipet.adapt(model, {"name": "oracle", "insertions": case.insertions, "unfreeze": list(case.unfreeze)})
    return case, model, load(which, case, model)


def agree(which: Oracle, build: Any) -> dict[str, Any]:
    """Outputs, loss and gradients of one oracle; the largest errors."""
    case, model, owned = adapted(which, build)
    out = outputs(model(**which.inputs(), output_hidden_states=True))
    error = compare(which, out)
    loss = (out[which.entry.get("out_key", "last_hidden_state")] * which.tensors["probe"]).sum()
    slack = which.tolerance["out_abs"] * which.tensors["probe"].abs().sum()
    assert (loss - which.tensors["out/loss"]).abs() <= slack
    loss.backward()
    return {"family": case.family, "out": error, "grad": gradients(which, owned)}


def agree_routed(which: Oracle, build: Any) -> dict[str, Any]:
    """A mixture: every recorded route, and the averaged experts of evaluation."""
    case, model, owned = adapted(which, build)
    inserted, errors = adaptation(model), {"out": 0.0, "grad": 0.0}
    routes: dict[str, Any] = {f"route{i}": route for i, route in enumerate(which.entry["routes"])}
    scenarios = {key.partition("/")[0] for key in which.keys("out")}
    assert scenarios == {*routes, "merged"}
    for scenario in sorted(scenarios):
        route = routes.get(scenario)
        inserted.train(route is not None)
        inserted.routing.driven = True
        if route is not None:
            chosen: dict[int, dict[str, int]] = {}
            for item in inserted.items:
                drawn = dict(zip(("down", "up"), route[item.site.layer], strict=True))
                chosen[item.number] = {slot: drawn[slot] for slot in item.bank.mixed_slots()}
            inserted.context.routes = [chosen]
        model.zero_grad()
        out = outputs(model(**which.inputs()))
        expected = {
            f"out/{name}": which.tensors[f"out/{scenario}/{name}"]
            for name in out
            if f"{scenario}/{name}" in which.keys("out")
        }
        one = Oracle(which.name, which.entry, {**which.tensors, **expected})
        errors["out"] = max(errors["out"], compare(one, out))
        (out["last_hidden_state"] * which.tensors["probe"]).sum().backward()
        errors["grad"] = max(errors["grad"], gradients(which, owned, f"grad/{scenario}"))
    return {"family": case.family, **errors}
