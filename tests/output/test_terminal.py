"""Every character reaches every terminal, in some form, and no control sequence does; files are UTF-8 everywhere."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.checkout import ROOT
from tests.support.running import LOW_RANK, TINY_TASK, write_world
from unipet.cli.main import main
from unipet.output import terminal

PACKAGE = ROOT / "unipet"
#: A task's name with letters, symbols, a script of its own, an escape sequence, a bell, half a character, a turned direction.
ODD = "café ± 中 \x1b[31mred\x07 \u202eevil"


class Console:
    """A stream of an encoding that takes nothing else, as a terminal's is."""

    def __init__(self, encoding: str) -> None:
        self.raw = io.BytesIO()
        self.stream = io.TextIOWrapper(self.raw, encoding=encoding, errors="strict", write_through=True)

    @property
    def text(self) -> str:
        return self.raw.getvalue().decode(self.stream.encoding)


def call(monkeypatch: pytest.MonkeyPatch, encoding: str, *argv: str) -> tuple[int, str, str]:
    out, err = Console(encoding), Console(encoding)
    monkeypatch.setattr(sys, "stdout", out.stream)
    monkeypatch.setattr(sys, "stderr", err.stream)
    code = main(list(argv))
    assert (sys.stdout, sys.stderr) == (out.stream, err.stream)
    monkeypatch.undo()
    return code, out.text, err.text


def controls(text: str) -> set[str]:
    return {one for one in text if one not in "\n\t" and (ord(one) < 32 or 0x7F <= ord(one) < 0xA0 or one == "\u202e")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_world(tmp_path_factory.mktemp("world"), {"method/mine": {**LOW_RANK, "name": "mine"}})
    whole = json.dumps(ODD, ensure_ascii=False)
    text = f"# Odd ± Δ中.\nname: {whole}\n" + yaml.safe_dump({**TINY_TASK, "labels": ["né\x1bg", "pös"]})
    text = text.replace("name: tiny\n", "")
    (root / "mine" / "task").mkdir()
    (root / "mine" / "task" / "odd.yaml").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("given", "encoding", "shown"),
    [
        ("0.5 ± 0.1 · 2 × 3 → σ", "ascii", "0.5 +/- 0.1 * 2 x 3 -> sigma"),
        ("0.5 ± 0.1 → Δ", "cp1252", "0.5 ± 0.1 -> Delta"),
        ("é中😀", "ascii", "\\u00e9\\u4e2d\\ud83d\\ude00"),
        ("é中", "utf-8", "é中"),
        ("half \udcff", "utf-8", "half \\udcff"),
        ("\x1b[31m\x07\r\x9b\u202e\u2028x\ty\n", "utf-8", "\\u001b[31m\\u0007\\u000d\\u009b\\u202e\\u2028x\ty\n"),
    ],
)
def test_what_a_screen_shows(given: str, encoding: str, shown: str) -> None:
    console = Console(encoding)
    screen = terminal.Screen(console.stream)
    screen.write(given)
    screen.writelines(["a", "\x1b"])
    assert console.text == shown.replace("\n", os.linesep) + "a\\u001b"


#: Punctuation and digits of scripts in the rules of text metrics and tokenizers, which are never printed.
SCRIPTS = {one for low, high in ((0x0370, 0x1FFF), (0x2E80, 0xFFFF)) for one in map(chr, range(low, high + 1))}


def test_every_symbol_that_we_print_has_a_spelling_in_ascii() -> None:
    """Letters of names aside: they are escaped."""
    texts = [path.read_text(encoding="utf-8") for path in (PACKAGE.parent / "conf").rglob("*.yaml")]
    for path in PACKAGE.rglob("*.py"):
        texts += [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    used = {
        one for text in texts for one in text if ord(one) > 127 and not unicodedata.category(one).startswith(("L", "M"))
    }
    symbols = {one for one in used if one.isprintable() and unicodedata.category(one)[0] in "SPN"}
    assert symbols - set(terminal.SPELLED) - SCRIPTS == set()
    assert all(text.isascii() for text in terminal.SPELLED.values())


def test_a_stream_that_fails_or_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    screen = terminal.Screen(Full())
    screen.write("a")
    screen.write("b")
    screen.flush()
    assert screen.lost is not None and screen.lost.errno == 28
    nothing = terminal.Screen(None)
    assert nothing.write("abc") == 3 and not nothing.isatty()
    closed = io.StringIO()
    closed.close()
    terminal.Screen(closed).write("a")
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["--version"]) == 1, "a disk that is full is not done"


def piped(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = f"{sys.executable} -m unipet {' '.join(arguments)} | head -c 20"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=PACKAGE.parent,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_a_reader_that_leaves_is_no_error() -> None:
    done = piped(["list", "methods"])
    assert (done.returncode, done.stderr) == (0, b"") and len(done.stdout) == 20


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
    ids=["ascii streams", "C locale"],
)
def test_the_program_in_a_small_locale(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# Für ± Δ.\nname: mine\nunfreeze: [head]\n", encoding="utf-8")
    for argv in (["list", "functions"], ["list", "methods", "--config-dir", str(tmp_path)], ["--help"], ["trän"]):
        done = subprocess.run(
            [sys.executable, "-m", "unipet", *argv],
            cwd=PACKAGE.parent,
            capture_output=True,
            timeout=120,
            env={**os.environ, **environment},
        )
        assert done.returncode == (2 if argv == ["trän"] else 0), done.stderr
        assert b"Traceback" not in done.stderr and (done.stdout + done.stderr).isascii()


@pytest.mark.filterwarnings("ignore:Glyph", "ignore::DeprecationWarning")  # a figure's font; wandb's own
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_command_in_every_encoding(
    encoding: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["--config-dir", str(world / "mine"), f"model={world / 'model'}", "task=odd"]
    base += [f"task.data_dir={world / 'data'}"]
    train = [*base, "method=mine", "budget.max_steps=2", "optim.batch_size=8", f"runs_dir={tmp_path / 'runs'}"]
    seen: list[str] = []

    def good(*argv: str, code: int = 0) -> str:
        found, out, err = call(monkeypatch, encoding, *argv)
        assert found == code, err
        assert not controls(out + err), argv
        assert "Traceback" not in err
        seen.append(out + err)
        return out

    good("train", *train)
    good("train", "-m", *train, "seed=1,2")
    runs = sorted(path.parent for path in (tmp_path / "runs").glob("*/result.json"))
    assert len(runs) == 3
    files = [f"--{kind}={tmp_path / kind}" for kind in ("html", "latex", "markdown", "csv", "rows", "pairs", "figures")]
    good("report", str(tmp_path / "runs"), *files)
    for kind in ("html", "latex", "markdown", "csv", "rows"):
        assert "café" in (tmp_path / kind).read_text(encoding="utf-8"), kind
    good("evaluate", str(runs[0]))
    good("merge", str(runs[0]), str(tmp_path / "merged"))
    good("export", str(runs[0]), str(tmp_path / "peft"), "--to", "peft")
    good("submit", str(runs[0]), code=2)
    good("dashboard", str(tmp_path / "runs"), "--dry-run")
    good("plan", *train)
    good("list", "sites", f"model={world / 'model'}")
    good("describe", *base)
    good("train", *base, "--cfg", "job")
    good("report", "no \udcff \x1b[1m", code=2)
    told = json.loads(good("describe", *base, "--json"))
    assert told["task"] == ODD and set(told["labels"]["train"]) == {"né\x1bg", "pös"}, "JSON is the same value again"
    text = "".join(seen)
    assert ("café" if encoding != "ascii" else "caf\\u00e9") in text and "\\u001b[31mred\\u0007" in text


def test_a_name_that_the_file_system_cannot_write_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unipet.cli.commands import listing

    def lost(argv: object) -> int:
        "é".encode("ascii")
        return 0

    monkeypatch.setattr(listing, "main", lost)
    assert main(["list"]) == 2
    assert "PYTHONUTF8=1" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unipet.cli.commands import listing

    def refused(argv: object) -> int:
        raise PermissionError(13, "Permission denied", "some/where")

    monkeypatch.setattr(listing, "main", refused)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "error: some/where: Permission denied.\n"


def opened(tree: ast.AST) -> list[ast.Call]:
    """Calls that open a text file or a program's output."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        strings = [one.value for one in node.args if isinstance(one, ast.Constant)]
        if name in ("read_text", "write_text") or (
            name == "open" and not any("b" in str(mode) for mode in strings[-1:])
        ):
            found.append(node)
        if name in ("run", "Popen", "check_output") and any(
            one.arg in ("text", "universal_newlines") for one in node.keywords
        ):
            found.append(node)
    return found


def test_every_text_file_says_its_encoding() -> None:
    """The locale must not decide what a file says."""
    looked: list[Any] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in opened(ast.parse(path.read_text(encoding="utf-8"))):
            looked.append(node)
            assert any(one.arg == "encoding" for one in node.keywords), f"{path}:{node.lineno}"
    assert len(looked) > 20
