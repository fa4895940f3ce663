"""docs/glossary.md names files that exist, and has every dimension, selector and role; one word stands for one thing."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from tests.support.checkout import ROOT
from unipet.calculus.method import InsertionSpec
from unipet.calculus.sites.position import Position
from unipet.calculus.sites.table import ROLES

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| term")
]
TERMS = [row for row in ROWS if len(row) == 4]
#: Fields of an insertion that are no dimension.
NOT_A_DIMENSION = {"name", "ratio"}
#: Every key of a record that other documents explain, each with the one that does.
RECORD_KEYS = {"run_id": "runs.md", "status": "runs.md", "flags": "comparing.md", "identity": "runs.md"}


def words() -> list[str]:
    return [word.strip().strip("`") for row in TERMS for word in row[0].split(",")]


@pytest.mark.parametrize("row", TERMS, ids=lambda row: row[0])
def test_a_term_is_a_sentence_and_lives_in_a_file(row: list[str]) -> None:
    _, symbol, sentence, place = row
    assert symbol and sentence[0].isupper() and sentence.endswith(".")
    path = re.fullmatch(r"`([\w./]+)`", place)
    assert path and (ROOT / path[1]).exists(), place


def test_no_term_has_two_rows() -> None:
    assert len(TERMS) > 50
    assert [word for word, count in Counter(words()).items() if count > 1] == []


def test_every_dimension_and_every_key_of_a_position_is_a_term() -> None:
    dimensions = {field.name for field in dataclasses.fields(InsertionSpec)} - NOT_A_DIMENSION
    selectors = {field.name for field in dataclasses.fields(Position)} - {"optional"}
    assert dimensions == {"function", "position", "composition", "scaling", "mixture"}
    assert (dimensions | selectors) <= set(words())


def test_the_roles_are_those_of_the_code() -> None:
    listed = [role for row in ROWS if len(row) == 2 for role in re.findall(r"`([\w.]+)`", row[0])]
    assert sorted(listed) == sorted(ROLES)


@pytest.mark.parametrize(("key", "document"), RECORD_KEYS.items())
def test_keys_of_a_record_are_terms_and_explained(key: str, document: str) -> None:
    assert key in words()
    assert f"`{key}`" in (ROOT / "docs" / document).read_text(encoding="utf-8")


def test_links_lead_to_documents() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).is_file(), link
