"""Cells of CSV files: texts of strangers stay texts, numbers stay numbers."""

from __future__ import annotations

import csv
import io
import re

import pytest

from tests.support.checkout import ROOT
from unipet.output.csv_text import csv_text

HOSTILE = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    " \r\n=1",
    "＝1+1",
    '=HYPERLINK("http://x","y")',
    "-",
]
HARMLESS = ["-0.5", "+3", "-1e-3", "-inf", "a=b", "", "lora", "'=1", 3, -0.5, -2, True]


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_begins_as_a_formula_is_a_text(text: str) -> None:
    ((shown, other),) = read(csv_text([[text, "x"]]))
    assert shown == f"'{text}" and other == "x"


def test_everything_else_stays_as_it_is() -> None:
    assert read(csv_text([HARMLESS, [None, "x"]])) == [[str(value) for value in HARMLESS], ["", "x"]]


def test_nothing_else_writes_csv() -> None:
    writes = re.compile(r"csv\.(writer|DictWriter)|to_csv\(")
    places = {path for path in (ROOT / "unipet").rglob("*.py") if writes.search(path.read_text(encoding="utf-8"))}
    assert places == {ROOT / "unipet" / "output" / "csv_text.py"}
