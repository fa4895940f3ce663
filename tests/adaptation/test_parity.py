"""Exact agreement with strangers: tensors that the reference implementations computed, outputs and every gradient.

Walks the directory named by UNIPET_ORACLES (default ../shared/oracles), which is never committed. Each oracle states its
own tolerance. One that no family of `oracle_families.py` covers is listed by name with the reason; more than a tenth of
them fail. With UNIPET_PARITY_OUT the largest errors are written to that file, which docs/methods.md quotes.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import unipet
from tests.support.oracle_comparing import agree, agree_routed, load
from tests.support.oracle_families import GROUPS, NOT_COVERED, kind_of, knows
from tests.support.oracle_layers import LAYERS
from tests.support.oracle_peft import peft, peft_knows
from tests.support.oracle_reading import PRESENT, Case, Oracle, base_model, index, oracle


def why_not_covered(entry: dict[str, Any]) -> str | None:
    """The declared reason, or that no family here knows the entry; None for an oracle to agree with."""
    reasons = {kind: reason for reason, kinds in NOT_COVERED.items() for kind in kinds}
    if entry.get("method") in LAYERS or kind_of(entry) in reasons:
        return reasons.get(kind_of(entry))
    known = peft_knows(entry) if entry["group"] == "peft" else entry["group"] in GROUPS and knows(entry)
    return None if known else f"no family covers {kind_of(entry)!r}"


beside = pytest.mark.skipif(not PRESENT, reason="no ../shared/oracles beside this checkout (UNIPET_ORACLES)")
NAMES = sorted(index()["oracles"])
KINDS = {name: kind_of(index()["oracles"][name]) for name in NAMES}
#: Why nothing here covers an oracle, by its name.
LEFT = {name: reason for name in NAMES if (reason := why_not_covered(index()["oracles"][name]))}
COVERED = [name for name in NAMES if name not in LEFT]


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, Any]]:
    """What the walk measures; written when it ends, where UNIPET_PARITY_OUT says."""
    found: dict[str, Any] = {}
    yield found
    if path := os.environ.get("UNIPET_PARITY_OUT"):
        rounded = {
            name: {**one, **{kind: float(f"{one[kind]:.1e}") for kind in ("out", "grad")}}
            for name, one in found.items()
        }
        Path(path).write_text(json.dumps(dict(sorted(rounded.items())), indent=1) + "\n", encoding="utf-8")


def case_of(which: Oracle, model: nn.Module) -> Case | None:
    builder = {**GROUPS, "peft": peft}.get(which.entry["group"])
    return builder(which, model) if builder else None


@beside
@pytest.mark.parametrize("name", COVERED)
def test_outputs_and_gradients(name: str, measured: dict[str, Any]) -> None:
    which = oracle(name)
    if which.entry["method"] in LAYERS:
        errors = {"family": KINDS[name], **LAYERS[which.entry["method"]](which)}
    else:
        errors = (agree_routed if "routes" in which.entry else agree)(which, case_of)
    measured[name] = errors


@beside
def test_most_oracles_are_covered_and_the_others_have_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\noracles covered: {len(COVERED)} / {len(NAMES)}")
        for name, reason in LEFT.items():
            print(f"  not covered: {name}: {reason}")
    assert len(COVERED) >= 0.9 * len(NAMES)


@beside
@pytest.mark.parametrize("kind", ["key", "missing", "extra"])
def test_a_corrupted_map_does_not_pass(kind: str) -> None:
    """The walk fails for a parameter that reads the wrong delta, and for a delta that nothing reads."""
    name = next((name for name in COVERED if KINDS[name] == "adapters lora"), None)
    if name is None:
        pytest.skip("no oracle of a plain low-rank map here")
    which = oracle(name)
    model = base_model(which)
    case = case_of(which, model)
    assert case is not None
    names = dict(case.names)
    slot = next(slot for slot in names if slot.endswith("down"))
    if kind == "key":
        names[slot] = names[slot.replace("down", "up")]
    elif kind == "missing":
        names[slot] = "{path}/nowhere"
    else:
        which.tensors["delta/nobody/lora_A"] = which.tensors[f"delta/{sorted(which.keys('delta'))[0]}"]
    unipet.adapt(model, {"name": "oracle", "insertions": case.insertions, "unfreeze": []})
    with pytest.raises((AssertionError, RuntimeError), match=r"delta|shape"):
        load(which, dataclasses.replace(case, names=names), model)


def test_an_oracle_of_no_family_is_named() -> None:
    unknown = [
        {"group": "peft", "method": "lily", "method_config": {"peft_type": "LILY"}},
        {"group": "stranger", "method": "lora"},
        {"group": "adapters", "method": "new", "method_config": {"architecture": "new"}},
        {"group": "adapters", "method": "inv", "method_config": {"architecture": None, "inv_adapter": "nice"}},
    ]
    for entry in unknown:
        assert str(why_not_covered(entry)).startswith(f"no family covers '{entry['group']} {entry['method']}'")
    fault = {"group": "adapters", "method": "vera", "method_config": {"architecture": "lora", "vera_d": 0.1}}
    assert "full matrices" in str(why_not_covered(fault))
