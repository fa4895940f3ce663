"""docs/methods.md is what the methods, the code and the measured parity say now."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import peft
import pytest

import unipet
from tests.support.checkout import ROOT
from unipet.calculus.method_files import method_names
from unipet.config import conf_dir

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_methods", DOCS / "make_methods.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_methods_md_is_not_stale(maker: Any) -> None:
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == maker.text(), "run `make docs`"


def test_every_oracle_s_family_stands_at_a_method(maker: Any) -> None:
    families = {one["family"] for one in json.loads((DOCS / "parity.json").read_text(encoding="utf-8")).values()}
    assert families == {kind for kinds in maker.ORACLES.values() for kind in kinds}
    assert set(maker.ORACLES) <= set(method_names())


def test_every_type_of_peft_is_a_file_or_has_a_reason(maker: Any) -> None:
    known = maker.coverage()
    types = {one.value for one in peft.PeftType}
    assert set(known["peft"]) | set(known["peft_without"]) == types
    assert not set(known["peft"]) & set(known["peft_without"])
    assert len(known["peft"]) >= 34
    for group in ("peft", "variants", "adapters"):
        for kind, files in known[group].items():
            assert files, kind
            for file in files:
                assert (conf_dir() / (file if "/" in file else f"method/{file}")).with_suffix(".yaml").is_file(), file


@pytest.mark.parametrize("method", sorted(set(method_names()) - {"full", "head_only"}))
def test_every_method_has_a_source(maker: Any, method: str) -> None:
    assert maker._source(method) != "-"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("lora", "L·4rd"),
        ("adapter", "L·(2rd + r + d)<br>L·(2rd + r + d)"),
        ("ia3", "L·2d<br>L·f"),
        ("oft", "L·(rd - d)"),  # two sites of d/r blocks with r(r-1)/2 numbers each
        ("prompt_tuning", "rd"),
        ("bitfit", "all biases"),
        ("vera", "L·(2r + 2d)"),
        ("cartridge", "L·(2rd - 2d)"),
    ],
)
def test_formulas(maker: Any, method: str, expected: str) -> None:
    assert maker.formula(unipet.load_method(method)) == expected


def test_a_formula_counts_what_is_built(maker: Any) -> None:
    """Put numbers into the formula of low rank: they are what describe counts."""
    from transformers import BertConfig

    config = BertConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, vocab_size=32
    )
    assert unipet.describe("hira", config).trainable == 3 * (6 * 32 * 64 + 2 * 32 * 128)
    assert maker.formula(unipet.load_method("hira")) == "L·(6rd + 2rf)"
