"""Mixtures whose experts are the functions of saved adapters: read, frozen, identified by what they hold, carried along."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.running import LOW_RANK, run_dir, run_id, tiny_config
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.runs.run import evaluate, run

INSERTION = {"function": {"name": "low_rank", "size": 2}, "position": "attn.q"}


def method(**mixture: Any) -> dict[str, Any]:
    return {"name": "x", "insertions": {"a": {**INSERTION, **({"mixture": mixture} if mixture else {})}}}


def saved(root: Path, seed: int, spec: dict[str, Any] | None = None) -> tuple[str, nn.Module]:
    """The directory of a saved adapter with random values, and its model."""
    model = tiny_bert()
    unipet.adapt(model, spec or method())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return str(unipet.save(model, root / f"adapter{seed}")), model


def hidden(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.bert(**tiny_batch()).last_hidden_state  # type: ignore[operator, union-attr]
    return out


@pytest.fixture
def adapters(tmp_path: Path) -> list[str]:
    return [saved(tmp_path, seed)[0] for seed in (1, 2)]


def test_each_expert_is_the_saved_function_and_only_the_gate_trains(tmp_path: Path) -> None:
    (first, one), (second, _) = saved(tmp_path, 1), saved(tmp_path, 2)
    for number, model_of in ((0, one), (1, None)):
        model = tiny_bert()
        unipet.adapt(model, method(experts=[first, second], router="fixed", reducer="fixed", expert=number))
        if model_of is not None:
            assert torch.equal(hidden(model), hidden(model_of))
    model = tiny_bert()
    report = unipet.adapt(model, method(experts=[first, second], router="learned"))
    owned = unipet.parameters(model)
    assert all(name.endswith("router.weight") for name in owned) and report.trainable == 2 * 2 * 32
    assert report.stored == report.trainable + 2 * 2 * (2 * 2 * 32)
    model.train()(**tiny_batch()).logits.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in owned.values())
    assert all(p.grad is None for name, p in adaptation(model).named_parameters() if "router" not in name)


def test_a_saved_adapter_carries_the_experts_and_no_path(adapters: list[str], tmp_path: Path) -> None:
    model = tiny_bert()
    unipet.adapt(model, method(experts=adapters, router="learned"))
    out = unipet.save(model, tmp_path / "out")
    assert not any(path in (out / name).read_text() for path in adapters for name in ("adapter.json", "method.yaml"))
    for path in adapters:
        shutil.rmtree(path)
    loaded = tiny_bert()
    unipet.load(loaded, out)
    assert torch.equal(hidden(loaded), hidden(model))
    assert all(not p.requires_grad for n, p in adaptation(loaded).named_parameters() if "router" not in n)
    with pytest.raises(unipet.UnipetError, match="carries its experts in a saved adapter"):
        unipet.adapt(tiny_bert(), out / "method.yaml")


def test_the_mean_of_frozen_experts_merges(adapters: list[str]) -> None:
    model = tiny_bert()
    unipet.adapt(model, method(experts=adapters, router="soft", reducer="weighted"))
    assert all(name.endswith(".scores") for name in unipet.parameters(model))
    said = hidden(model)
    unipet.merge(model)
    assert torch.allclose(hidden(model), said, atol=1e-5)


def test_a_run_is_identified_by_what_the_adapters_hold(tmp_path: Path) -> None:
    paths = []
    for seed in (0, 1):
        config = tiny_config(tmp_path, LOW_RANK, budget__max_steps=2, seed=seed)
        run(config)
        paths.append(str(run_dir(config) / "adapter"))
    (insertion,) = LOW_RANK["insertions"].values()
    (name,) = LOW_RANK["insertions"]

    def config_of(experts: list[str]) -> Any:
        mixed = {**insertion, "mixture": {"experts": experts, "router": "learned"}}
        return tiny_config(tmp_path, {**LOW_RANK, "name": "mixed", "insertions": {name: mixed}}, budget__max_steps=2)

    moved = [str(shutil.copytree(path, tmp_path / f"moved{at}")) for at, path in enumerate(paths)]
    assert run_id(config_of(paths)) == run_id(config_of(moved)) != run_id(config_of(paths[::-1]))
    record = run(config_of(moved))
    assert record["status"] == "ok", record["error"]
    for path in moved:
        shutil.rmtree(path)
    assert record["mixture"]["ways"].keys() >= {"merged", "routed", "oracle_expert"}
    assert evaluate(next((tmp_path / "runs").glob("mixed*")))["reproduced"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"experts": ["nowhere", "{0}"]}, "nowhere is not a saved adapter"),
        ({"experts": ["{0}"]}, "two or more saved adapters"),
        ({"experts": ["{0}", "{other}"]}, r"another function: function.size: 3 there, 2 here"),
        ({"experts": ["{0}", "{placed}"]}, "Give it the same position"),
        ({"experts": ["{0}", "{mixed}"]}, "is a mixture itself. Merge it first"),
        ({"experts": ["{0}", "{0}"], "share": ["up"]}, "share and init do not go with them"),
        ({"experts": 2, "frozen": ["a", "b"]}, "carries its experts in a saved adapter"),
    ],
)
def test_mistakes(adapters: list[str], tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    one = method()["insertions"]["a"]
    kinds = {
        "other": {**one, "function": {"name": "low_rank", "size": 3}},
        "placed": {**one, "position": "attn.v"},
        "mixed": {**one, "mixture": {"experts": 2}},
    }
    made = {
        name: saved(tmp_path, at, {"name": "x", "insertions": {"a": kind}})[0]
        for at, (name, kind) in enumerate(kinds.items(), 10)
    }
    experts = changes["experts"]
    if isinstance(experts, list):
        experts = [path.format(adapters[0], **made) for path in experts]
    model = tiny_bert()
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.adapt(model, method(router="learned", **{**changes, "experts": experts}))
    assert not hasattr(model, "_unipet")
