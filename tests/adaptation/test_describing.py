"""What `adapt` and `describe` tell a person."""

from __future__ import annotations

import json

import pytest

import unipet
from tests.support.tiny import TINY, tiny_bert
from unipet.calculus.method_files import method_names
from unipet.output.text_table import text_table


@pytest.mark.parametrize("method", method_names())
def test_the_table_fits_a_terminal_and_names_every_insertion(method: str) -> None:
    report = unipet.describe(method, tiny_bert().config)
    table = report.table()
    assert max(map(len, table.splitlines())) <= 130
    assert all(row.name in table and all(site in table for site in row.sites) for row in report.insertions)
    assert all(row.foldable or f"{row.name} does not fold: {row.why_not}" in table for row in report.insertions)
    assert f"{report.trainable:,} trainable parameters" in table
    assert all(f"unfreeze {part}" in table for part in report.unfrozen) and report.unfrozen
    assert json.loads(json.dumps(report.to_dict()))["params"]["trainable"] == report.trainable


def test_percent_is_of_the_base_model_without_its_head() -> None:
    model = TINY["roberta"]()  # its head is large beside the tiny encoder
    base = sum(p.numel() for p in model.roberta.parameters())
    head = sum(p.numel() for p in model.classifier.parameters())
    report = unipet.describe("lora", model)
    assert (report.base, report.head) == (base, head)
    assert report.percent == pytest.approx(100 * report.trainable / base)
    assert sum(row.parameters for row in report.insertions) == report.trainable


def test_describing_leaves_the_model_alone() -> None:
    model = tiny_bert()
    names = [name for name, _ in model.named_modules()]
    unipet.describe("mam", model)
    assert [name for name, _ in model.named_modules()] == names
    unipet.adapt(model, "mam")
    assert unipet.describe("lora", model).method == "lora", "an adapted model can be described as well"
    assert unipet.describe("mam", model).to_dict() == unipet.describe("mam", tiny_bert()).to_dict()


def test_a_text_table_aligns_numbers_and_wraps_its_last_column() -> None:
    table = text_table(
        ["name", "count", "why"], [["a\nb", "7", "word " * 30], ["long name", "1,234", "short"]], width=60
    )
    lines = table.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[2].startswith("a              7  word") and lines[3].startswith("b ")
    assert lines[-1] == "long name  1,234  short"
