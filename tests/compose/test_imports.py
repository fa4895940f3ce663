"""Functions of a user's own on the command line: imported where the user says so, never because a finished run does."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import unipet
from tests.support.running import TINY_TASK, tiny_config, write_world
from unipet import UnipetError
from unipet.calculus import functions
from unipet.calculus.functions import function_sources, register_function
from unipet.calculus.functions.base import Function
from unipet.cli.main import main
from unipet.compose.imports import import_modules

MODULE = """\
from dataclasses import dataclass
import torch
import unipet
from unipet.calculus.functions.base import Function, TensorSpec
from own_helper import FACTOR

@dataclass(frozen=True)
class Shift(Function):
    \"\"\"A vector, scaled.\"\"\"
    def slots(self, widths):
        return {"shift": {"": TensorSpec((widths.h,), "table")}}
    def delta(self, u, params, training):
        return FACTOR * params["shift"]
    @property
    def starts_at_zero(self):
        return False

unipet.register_function("own_shift", Shift)
"""
METHOD = {"name": "mine", "insertions": {"a": {"function": "own_shift", "position": "ffn"}}}


def forget() -> None:
    """As if this process had never imported the user's modules."""
    functions.FUNCTIONS.pop("own_shift", None)
    for name in ("own_functions", "own_helper", "broken_functions"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module, a method that uses it, a base model and a task."""
    write_world(tmp_path, {"task/tiny": TINY_TASK, "method/mine": METHOD})
    (tmp_path / "own_functions.py").write_text(MODULE)
    (tmp_path / "own_helper.py").write_text("FACTOR = 2.0\n\ndef unused():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget()
    yield tmp_path
    forget()


def arguments(*more: str) -> list[str]:
    given = [
        "--config-dir=mine",
        "task=tiny",
        "task.data_dir=data",
        "model=./model",
        "method=mine",
        "optim.batch_size=8",
    ]
    return [*given, "budget.max_steps=2", *more]


def test_train_sweep_plan_describe_and_list_know_an_imported_function(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = list(sys.path)
    assert main(["train", *arguments()]) == 2
    assert "unknown 'own_shift'" in (err := capsys.readouterr().err) and "imports=[MODULE]" in err
    for command in (["describe"], ["plan"], ["train"], ["train", "-m"], ["list", "functions"]):
        forget()
        words = ["imports=[own_functions]"] if command[0] == "list" else arguments("imports=[own_functions]")
        assert main([*command, *words]) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert ("own_shift" if command[0] == "list" else "ffn" if command[0] == "describe" else "mine") in out
    forget()
    assert main(["list", "functions", "--import", "own_functions"]) == 0
    assert "own_shift" in capsys.readouterr().out
    assert sys.path == path


def test_a_finished_run_imports_nothing_by_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments("imports=[own_functions]")]) == 0
    (run,) = (path.parent for path in here.glob("runs/*/result.json"))
    assert "own_functions" in (run / "config.yaml").read_text()
    for command in (["evaluate", str(run)], ["merge", str(run), "out"], ["export", str(run), "out", "--to", "peft"]):
        forget()
        capsys.readouterr()
        assert main(command) == 2
        err = capsys.readouterr().err
        assert "own_functions" not in sys.modules and "own_shift" in err and "--import MODULE" in err
    assert main(["evaluate", str(run), "--import", "own_functions"]) == 0
    score = json.loads((run / "result.json").read_text())["score"]
    assert f"evaluated  {score:.6f}" in capsys.readouterr().out


def test_a_run_from_python_imports_what_its_configuration_names(here: Path) -> None:
    from unipet.runs.run import prepare

    config = tiny_config(here, METHOD)
    with pytest.raises(UnipetError, match="unknown 'own_shift'"):
        prepare(config)
    assert prepare(replace(config, imports=["own_functions"])).fit.method.name == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_package_at_all\n", "broken_functions cannot be imported: it needs 'no_such_package_at_all'"),
        ("1 / 0\n", "broken_functions cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)\n", "broken_functions cannot be imported: SystemExit"),
        ("def broken(:\n", "broken_functions cannot be imported: SyntaxError"),
        (None, "no module 'broken_functions'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_error(here: Path, text: str | None, words: str) -> None:
    if text is not None:
        (here / "broken_functions.py").write_text(text)
    before = list(sys.path)
    with pytest.raises(UnipetError, match=f"imports: {words}"):
        import_modules(["broken_functions"])
    assert sys.path == before


@pytest.mark.parametrize("names", ["own_functions", ["own functions"], [""], [".own"], ["a/b"], ["own.py-"], [3]])
def test_names_that_are_no_modules(here: Path, names: Any) -> None:
    with pytest.raises(UnipetError, match=r"imports: .*(list of modules|not a module's name)"):
        import_modules(names)


def test_a_file_of_the_working_directory_never_takes_a_package_s_place(here: Path) -> None:
    (here / "yaml.py").write_text("raise SystemExit('imported')\n")
    before = sys.modules.pop("yaml")
    try:
        import_modules(["yaml"])
        assert "site-packages" in str(sys.modules["yaml"].__file__)
    finally:
        sys.modules["yaml"] = before


def test_the_source_of_a_function_and_of_what_it_takes_is_its_identity(here: Path) -> None:
    def sources() -> dict[str, str]:
        forget()
        import_modules(["own_functions"])
        return function_sources(unipet.load_method(METHOD))

    first = sources()
    assert list(first) == ["own_shift"] and len(first["own_shift"]) == 64 and sources() == first
    assert function_sources(unipet.load_method("lora")) == {}
    (here / "own_helper.py").write_text("FACTOR = 3.0\n")
    second = sources()
    (here / "own_functions.py").write_text(MODULE + "# changed\n")
    assert len({str(one) for one in (first, second, sources())}) == 3
    (here / "unrelated.py").write_text("")  # what it does not import changes nothing
    assert sources() == sources() != second


def test_a_function_without_a_file_is_known_by_its_code() -> None:
    made: list[str] = []
    for factor in (2, 3):
        space: dict[str, Any] = {"__name__": "no_file_at_all"}
        exec(
            MODULE.replace("from own_helper import FACTOR", f"FACTOR = {factor}").replace("FACTOR *", f"{factor} *"),
            space,
        )
        made.append(function_sources(unipet.load_method(METHOD))["own_shift"])
        forget()
    assert made[0] != made[1]


def test_an_abstract_function_is_one_clear_error() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Half(Function):
        """Lacks what it does."""

        def slots(self, widths: Any) -> Any:
            return {}

    with pytest.raises(UnipetError, match=r"register_function\('half'\): Half is abstract\. Define delta"):
        register_function("half", Half)
    assert "half" not in functions.FUNCTIONS


def test_an_option_without_a_default_is_asked_for() -> None:
    from dataclasses import dataclass

    from unipet.calculus.options import parse_options

    @dataclass(frozen=True)
    class Options:
        needed: int

    with pytest.raises(UnipetError, match=r"x\.needed: not given, and function 'own' has no default"):
        parse_options(Options, {}, "x", "function 'own'")


def test_every_public_name_shows() -> None:
    assert set(unipet.__all__) <= set(dir(unipet))
