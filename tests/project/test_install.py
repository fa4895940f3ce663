"""The wheel: its configuration ships, and `unipet` works from anywhere with a user's own directory of YAML."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.pages import write_study

MINE = """\
# A method of one's own, out of parts that exist.
name: mine
insertions:
  ffn:
    function: {name: bottleneck, size: 4}
    position: {site: ffn, form: parallel}
    composition: add
    scaling: 2.0
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build/ folder; nothing is downloaded."""
    import shutil

    source, out = tmp_path_factory.mktemp("source") / "unipet", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in ("unipet", "conf"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", ".", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out)], cwd=source)
    return next(out.glob("unipet-*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A working directory far from the checkout, and the environment in which only the installed wheel is found."""
    site = tmp_path_factory.mktemp("site")
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(site),
            str(wheel),
        ]
    )
    directory = tmp_path_factory.mktemp("elsewhere")
    (directory / "my_conf" / "method").mkdir(parents=True)
    (directory / "my_conf" / "method" / "mine.yaml").write_text(MINE, encoding="utf-8")
    return directory, {**os.environ, "PYTHONPATH": str(site), "PYTHONWARNINGS": "default"}


def run(command: list[str], **options: object) -> str:
    """The output of a command that must succeed; its error text when it does not."""
    answer = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert answer.returncode == 0, f"{' '.join(command)}\n{answer.stdout}\n{answer.stderr}"
    return str(answer.stdout)


def test_the_wheel_carries_every_module_and_config(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"unipet/{path.relative_to(ROOT / 'unipet').as_posix()}" for path in (ROOT / "unipet").rglob("*.py")}
    configs = {f"unipet/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    page = ROOT / "unipet" / "report" / "page"
    sources = {
        f"unipet/report/published/sources/{path.name}"
        for path in (ROOT / "unipet/report/published/sources").glob("*.yaml")
    }
    beside = {
        f"unipet/report/page/{path.relative_to(page).as_posix()}"
        for path in page.rglob("*")
        if path.suffix in (".html", ".css", ".js")
    }
    assert modules and configs and sources and {path.rpartition(".")[2] for path in beside} == {"html", "css", "js"}
    assert (modules | configs | beside | sources | {"unipet/py.typed", "unipet/conf/__init__.py"}) <= inside
    top = {name.split("/")[0] for name in inside}
    assert {name for name in top if not name.endswith(".dist-info")} == {"unipet"}


def test_the_installed_package_is_the_one_that_runs(elsewhere: tuple[Path, dict[str, str]]) -> None:
    directory, environment = elsewhere
    code = "import unipet, unipet.conf; print(unipet.__file__); print(unipet.conf.__file__)"
    for line in run([sys.executable, "-c", code], cwd=directory, env=environment).split():
        assert line.startswith(environment["PYTHONPATH"])


def test_list_from_another_directory(elsewhere: tuple[Path, dict[str, str]]) -> None:
    directory, environment = elsewhere
    listed = run([sys.executable, "-m", "unipet", "list", "methods"], cwd=directory, env=environment)
    for path in (ROOT / "conf" / "method").glob("*.yaml"):
        assert path.stem in listed


def test_the_page_of_a_study(elsewhere: tuple[Path, dict[str, str]]) -> None:
    directory, environment = elsewhere
    study = write_study(directory / "study")
    command = [sys.executable, "-m", "unipet", "report", str(study), "--html", "page.html"]
    run(command, cwd=directory, env=environment)
    text = (directory / "page.html").read_text(encoding="utf-8")
    assert 'id="comparison-table"' in text and "<title>5 methods on " in text


def test_a_method_of_the_user_composes_with_the_shipped_configuration(
    elsewhere: tuple[Path, dict[str, str]],
) -> None:
    directory, environment = elsewhere
    command = [sys.executable, "-m", "unipet", "describe", "--config-dir", "my_conf", "method=mine", "model=minilm"]
    described = run(command, cwd=directory, env=environment)
    # 6 layers x (down 384·4 + 4, up 4·384 + 384)
    assert "mine" in described
    assert "20,760" in described or "20760" in described
