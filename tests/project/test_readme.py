"""README.md and docs/: every link leads somewhere, every document is in the table of contents, and what is shown is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import unipet
from tests.support.checkout import ROOT
from unipet.calculus.method import parse_method
from unipet.calculus.method_files import method_names

DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCUMENTS], ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_the_readme_lists_every_document() -> None:
    assert DOCUMENTS
    for path in DOCUMENTS:
        assert f"(docs/{path.name})" in README, path.name


def test_the_methods_of_the_readme_are_methods() -> None:
    shown, mine = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    told, shipped = parse_method(shown), unipet.load_method("mam")
    assert [spec.name for spec in told.insertions] == [spec.name for spec in shipped.insertions]
    for ours, theirs in zip(told.insertions, shipped.insertions, strict=True):
        assert (ours.function, ours.composition, ours.scaling) == (theirs.function, theirs.composition, theirs.scaling)
        assert ours.position.form == theirs.position.form
        assert ours.position.site == [role for role in theirs.position.site if not role.startswith("cross.")]
    assert parse_method(mine).name == "mine"


def test_the_number_of_methods() -> None:
    assert len(method_names()) == 64
    assert "the sixty-four shipped methods" in README


@pytest.mark.parametrize("target", ["sweep", "test"])
def test_the_commands_of_the_readme_are_targets(target: str) -> None:
    assert f"make {target} " in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
