"""What an adaptation carries goes along wherever one is made of another: partial merges and copies."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.adaptation.test_all_or_nothing import output
from tests.support.architectures import ARCHS
from tests.support.matrix import METHODS, REASONS
from unipet.adaptation.adapted import Adaptation, adaptation
from unipet.adaptation.merging import reasons
from unipet.calculus.named_tensors import NamedTensors
from unipet.calculus.sites import ARCHITECTURES, architecture_of

HEADS = {"function": {"name": "prefix", "size": 2}, "position": "attn.heads", "composition": "gated"}
PAIRS = {"function": {"name": "low_rank", "size": 2}, "position": {"site": ["attn.q", "ffn.down"]}}
#: What is no state of the method's: the modules, what attaching notes, and the record of calls.
OWN = {"method", "items", "shared", "entries", "current", "attached", "_unproved", "routing", *vars(NamedTensors())}
OWN |= {"_first_stack", "_masked"}  # of its entries and insertions
OWN |= {"base_fingerprint"}  # of the base model as it is: a partial merge changes it
OWN |= {"own", "kept"}  # there while it is one of several: partial merges want it to be the only one


def adapted(insertions: dict[str, Any], arch: str = "bert", **more: Any) -> nn.Module:
    model: nn.Module = ARCHS[arch].build()
    unipet.adapt(model, {"name": "x", "insertions": insertions, **more})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def round_trip(model: nn.Module, directory: Path) -> nn.Module:
    """Saved, and loaded into the base model that it says it belongs to."""
    base = copy.deepcopy(model)
    unipet.eject(base)
    unipet.save(model, directory)
    unipet.load(base, directory)
    return base


def test_a_mark_that_it_cannot_be_saved_survives_a_partial_merge(tmp_path: Path) -> None:
    model = adapted({"heads": HEADS, "pairs": PAIRS})
    adaptation(model).unsavable = "its values came from elsewhere"
    unipet.merge(model, partial=True)
    with pytest.raises(unipet.UnipetError, match="Cannot save this method: its values came from elsewhere"):
        unipet.save(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["merge", "copy"])
def test_everything_that_is_carried_goes_along(how: str) -> None:
    """All its attributes but those that are an attachment's own; one that is added one day has to be put here or there."""
    model = adapted({"heads": HEADS, "pairs": PAIRS}, unfreeze=["head", "norm"])
    marks = {
        "table": architecture_of(model, ARCHITECTURES),
        "unsavable": "a reason",
        "name": "a name",
        "unfrozen": adaptation(model).unfrozen,
        "head": adaptation(model).head,
        "_views": 2,
    }
    assert vars(adaptation(model)).keys() == marks.keys() | OWN and not marks.keys() & OWN
    assert marks["unfrozen"] and marks["head"]
    for name, mark in marks.items():
        setattr(adaptation(model), name, mark)
    routing = adaptation(model).routing
    routing.driven, routing.first_row, routing.rank = True, 3, 1
    routing.resume(4, (5, 6))
    if how == "merge":
        unipet.merge(model, partial=True)
    else:
        model = copy.deepcopy(model)
    assert {name: getattr(adaptation(model), name) for name in marks} == marks
    carried = adaptation(model).routing
    assert (carried.driven, carried.first_row, carried.rank, carried.state()) == (True, 3, 1, (4, (5, 6)))


def test_flags_before_adapting_come_back_after_a_partial_merge() -> None:
    model: nn.Module = ARCHS["bert"].build()
    flags = {name: number % 2 == 0 for number, (name, _) in enumerate(model.named_parameters())}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    unipet.adapt(model, {"name": "x", "insertions": {"heads": HEADS, "pairs": PAIRS}})
    unipet.merge(model, partial=True)
    unipet.eject(model)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


@pytest.mark.parametrize("reducer", ["mean_of_weights", "mean_of_outputs", "weighted", "fixed"])
@pytest.mark.parametrize("function", ["low_rank", "bottleneck"])
def test_what_a_partial_merge_keeps_can_be_saved_and_loaded(function: str, reducer: str, tmp_path: Path) -> None:
    """Also a mixture that bakes into no single function and so stays one, and an insertion of which some sites could fold."""
    kept = {
        "function": {"name": function, "size": 2},
        "position": {"site": ["attn.q", "ffn"], "form": "parallel"},
        "mixture": {"experts": 3, "router": "soft" if reducer == "weighted" else "uniform", "reducer": reducer},
    }
    model = adapted({"kept": kept, "pairs": {**PAIRS, "position": {"site": ["attn.v"]}}})
    before = output(model)
    summary = unipet.merge(model, partial=True)
    assert summary["kept"] != "folded" and summary["pairs"] == "folded"
    assert torch.allclose(output(model), before, atol=1e-5)
    assert torch.equal(output(round_trip(model, tmp_path)), output(model))


def test_an_insertion_folds_at_all_its_sites_or_at_none() -> None:
    """`ffn` is a block, whose input is not its last projection's: so neither does `attn.q` of the same insertion."""
    both = {**PAIRS, "position": {"site": ["attn.q", "ffn"]}}
    model = adapted({"both": both, "after": {**PAIRS, "position": {"site": "attn.q", "form": "sequential"}}})
    before, weights = output(model), {name: p.clone() for name, p in model.named_parameters() if "_unipet" not in name}
    report = unipet.describe({"name": "x", "insertions": {"both": both}}, ARCHS["bert"].build()).insertions[0]
    assert not report.foldable
    assert all(reason for reason in reasons(model, adaptation(model))), "what follows it at attn.q stays as well"
    unipet.merge(model, partial=True)
    assert torch.equal(output(model), before)
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters() if name in weights)
    assert {name.split("/", 1)[0] for name in unipet.parameters(model)} == {"both", "after"}


@pytest.mark.parametrize("init", ["svd", "qr"])
def test_frozen_factors_of_a_weight_keep_it_from_changing(init: str, tmp_path: Path) -> None:
    """They are not stored: a weight that something else had folded into would make others."""
    start = {
        "function": {"name": "low_rank", "size": 2, "init": init, "from_start": True},
        "position": {"site": "attn.q"},
    }
    gated = {**start, "scaling": "input_gate"}
    model = adapted({"fold": {**PAIRS, "position": {"site": ["attn.q"]}}, "gated": gated})
    before = output(model)
    assert "computes with the weight that it would change" in unipet.merge(model, partial=True)["fold"]
    assert torch.allclose(output(model), before, atol=1e-6)
    assert torch.equal(output(round_trip(model, tmp_path)), output(model))
    model = adapted({"gated": gated}, unfreeze=["all"])
    unipet.merge(model, partial=True)
    with pytest.raises(unipet.UnipetError, match="frozen tensors of 'gated' came from the base model as it was before"):
        unipet.save(model, tmp_path / "out")


def test_frozen_positions_of_a_text_are_those_of_the_base_model_before(tmp_path: Path) -> None:
    tokens = {
        **HEADS,
        "function": {"name": "prefix", "size": 4, "init": "tokens", "ids": [7, 8, 9, 10], "freeze_first": 1},
    }
    model = adapted({"heads": tokens})
    unipet.merge(model, partial=True)
    assert torch.equal(output(round_trip(model, tmp_path / "same")), output(model)), "nothing else has changed"
    model = adapted({"heads": tokens, "pairs": PAIRS})
    unipet.merge(model, partial=True)
    with pytest.raises(unipet.UnipetError, match="frozen tensors of 'heads' came from the base model as it was before"):
        unipet.save(model, tmp_path / "out")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_copied_and_partly_merged(method: str, tmp_path: Path) -> None:
    """A copy computes the same, by itself; what a partial merge leaves is saved, loaded and copied to the same outputs."""
    if REASONS[method, "bert"] is not None:
        return
    spec = METHODS[method].to_dict()
    for one in spec["insertions"].values():
        function = one.get("function", {})  # experts of their own functions are small enough
        if isinstance(function.get("size"), int):
            function["size"] = min(function["size"], 4)
    model: nn.Module = ARCHS["bert"].build()
    try:
        unipet.adapt(
            model,
            {
                **spec,
                "insertions": {**spec["insertions"], "more": {**HEADS, "function": {"name": "prefix", "size": 2}}},
            },
        )
    except unipet.UnipetError:
        return  # sizes that do not divide the widths, or two kinds of virtual tokens
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    before = output(model)
    twin = copy.deepcopy(model)
    assert torch.equal(output(twin), before)
    unipet.eject(model)
    assert torch.equal(output(twin), before), "a copy has hooks of its own"
    unipet.merge(twin, partial=True)
    assert torch.allclose(output(twin), before, atol=1e-4 * max(1.0, float(before.abs().max())))
    if isinstance(getattr(twin, "_unipet", None), Adaptation) and not adaptation(twin).unsavable:
        assert torch.equal(output(round_trip(twin, tmp_path)), output(twin))
