"""Nothing of a library's own is printed in a normal run, nothing real is hidden, and nobody's logging is changed."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import unipet
from tests.support.checkout import ROOT
from tests.support.running import LOW_RANK, TINY_TASK, write_world
from tests.support.tasks import write_arch
from unipet.output import libraries, terminal

#: Every line that a command of this file may print.
KNOWN = re.compile(
    r"""
    | training:\ step\ \d+\ of\ \d+,.*
    | (loading\ Python\ packages|loading\ the\ base\ model|reading\ the\ data|saving\ the\ adapter|tokenising\ .*):\ \d.*
    | (status|reason|run|score|flagged|checkpoint|trainable|training|time|directory|next|metric|recorded|evaluated)\ {2,}\S.*
    | checkpoint\ \S.*
    | reproduced | merged\ .* | exported\ .* | (peft\ \S+\ loads\ it;\ )?outputs\ differ\ by\ .*
    """,
    flags=re.VERBOSE,
)


def lines(directory: Path, *argv: str, **environment: str) -> list[str]:
    """What a command prints, both streams; asserts that it succeeds and that every line is one of ours."""
    done = subprocess.run(
        [sys.executable, "-m", "unipet", *argv],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 0, done.stdout
    printed = done.stdout.splitlines()
    strange = [line for line in printed if not KNOWN.fullmatch(line)]
    assert strange == [], strange
    return printed


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    method = {**LOW_RANK, "name": "mine"}
    texts = {**TINY_TASK, "name": "texts", "kind": "seq2seq", "labels": [], "target": "target", "metrics": ["rougeL"]}
    texts["decoding"] = {"num_beams": 2, "max_new_tokens": 4}
    texts |= {"max_source": 16, "max_target": 12}
    root = write_world(
        tmp_path_factory.mktemp("world"), {"method/mine": method, "task/tiny": TINY_TASK, "task/texts": texts}
    )
    for split, answer in (("train", "target"), ("validation", "references")):
        path = root / "data" / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row[answer] = row["sentence"] if split == "train" else [row["sentence"]]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_arch(root / "bart", "bart", "BartForConditionalGeneration")
    return root


@pytest.mark.parametrize(
    ("model", "task", "tracking"), [("model", "tiny", "none"), ("bart", "texts", "trackio"), ("model", "tiny", "wandb")]
)
def test_a_run_and_what_follows_print_lines_of_ours_alone(
    model: str, task: str, tracking: str, world: Path, tmp_path: Path
) -> None:
    argv = ["--config-dir", str(world / "mine"), "method=mine", f"model={world / model}", f"task={task}"]
    argv += [f"task.data_dir={world / 'data'}", "budget.max_steps=3", "optim.batch_size=8", f"tracking={tracking}"]
    printed = lines(tmp_path, "train", *argv, CUDA_VISIBLE_DEVICES="")
    assert any(line.startswith("training: step 3 of 3, loss ") for line in printed)
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/result.json"))
    if tracking != "none":
        return
    assert lines(tmp_path, "evaluate", str(run))[-1] == "reproduced"
    lines(tmp_path, "merge", str(run), "merged")
    lines(tmp_path, "export", str(run), "peft", "--to", "peft")


def test_a_worker_process_prints_lines_of_ours_alone(world: Path, tmp_path: Path) -> None:
    """A launcher of Hydra's may run a sweep's jobs in processes of its own: they do not come through the command line."""
    code = (
        "import sys, pathlib\n"
        "from unipet.compose.composer import composer\n"
        "from unipet.compose.overrides import plan\n"
        "from unipet.sweeps.jobs import Task, run_job\n"
        "from dataclasses import asdict\n"
        "with composer(sys.argv[1]) as composing:\n"
        "    config = plan(sys.argv[2:], False, composing).config\n"
        "done = run_job(asdict(config), Task(pathlib.Path('sweep'), 0, []))\n"
        "assert done.status == 'ok', done\n"
    )
    argv = [str(world / "mine"), "method=mine", f"model={world / 'model'}", "task=tiny"]
    argv += [f"task.data_dir={world / 'data'}", "budget.max_steps=3", "optim.batch_size=8"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout
    assert [line for line in done.stdout.splitlines() if not KNOWN.fullmatch(line)] == []
    assert "training: step 3 of 3" in done.stdout


def speak(place: Path, code: str) -> None:
    """Run `code` as the code of a file at `place`."""
    exec(
        compile(code, str(place), "exec"),
        {"logging": logging, "warnings": warnings, "sys": sys, "__name__": place.stem},
    )


LOUD = """
print("printed")
def write_for_another(text):
    sys.stdout.write(text)
write_for_another("written")
logging.getLogger("loud").warning("warned %s", "twice")
logging.getLogger("loud").warning("warned %s", "twice")
warnings.warn("deprecated", FutureWarning)
"""


def test_who_speaks_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
    library, own = tmp_path / "site-packages" / "loud.py", tmp_path / "mine.py"
    with terminal.screens(libraries.hidden), libraries.quiet(), warnings.catch_warnings():
        warnings.simplefilter("always")
        speak(library, LOUD)
        assert capsys.readouterr() == ("", "")
        kept = libraries.take_messages()
        assert kept.splitlines()[:2] == ["printed", "written"]
        assert "warning loud: warned twice (2 times)" in kept and "FutureWarning" in kept and "deprecated" in kept
        assert libraries.take_messages() == ""
        speak(library, "logging.getLogger('loud').error('broken\\n  disk')")
        assert capsys.readouterr().err == "warning: loud: broken disk\n", "an error is shown"
        with libraries.speaking(True):
            speak(library, LOUD.split("\n")[1])
        assert capsys.readouterr().out == "printed\n", "asked for"
        libraries.take_messages()
        speak(own, LOUD)
        assert capsys.readouterr().out.startswith("printed\nwritten") and libraries.take_messages() == "", (
            "a user's own is shown"
        )
        assert shown == ["deprecated"]
    speak(library, "print('after')")
    assert capsys.readouterr().out == "after\n"


def test_what_was_said_before_an_unforeseen_error_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from unipet.cli.commands import listing
    from unipet.cli.main import main

    def broken(argv: object) -> int:
        speak(tmp_path / "site-packages" / "loud.py", "print('the reason')")
        raise RuntimeError("no")

    monkeypatch.setattr(listing, "main", broken)
    with pytest.raises(RuntimeError):
        main(["list"])
    assert capsys.readouterr().err == "earlier message of a library: the reason\n"


def test_a_run_keeps_what_libraries_said(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint that lacks a head makes transformers warn; here it is asked to say so aloud."""
    from unipet.cli.main import main

    logger = logging.getLogger("transformers.trainer")
    before = logging.Logger.handle, warnings.showwarning, logger.level, list(logger.handlers)
    argv = ["--config-dir", str(world / "mine"), "method=mine", f"model={world / 'model'}", "task=tiny"]
    argv += [f"task.data_dir={world / 'data'}", "budget.max_steps=2", "optim.batch_size=8", f"runs_dir={tmp_path}"]
    from unipet.training.loop import Loop

    made = Loop.__init__

    def loud(self: object, *given: object, **named: object) -> None:
        speak(tmp_path / "site-packages" / "loud.py", "print('said by a library')")
        made(self, *given, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "__init__", loud)
        assert main(["train", *argv]) == 0
    out, err = capsys.readouterr()
    assert "said by a library" not in out + err
    (log,) = tmp_path.glob(f"*/{libraries.FILE}")
    assert "said by a library\n" in log.read_text(encoding="utf-8")
    assert (logging.Logger.handle, warnings.showwarning, logger.level, list(logger.handlers)) == before


def test_importing_the_library_changes_nobodys_logging() -> None:
    code = (
        "import logging, warnings, sys\n"
        "before = (logging.Logger.handle, logging.root.level, list(logging.root.handlers), warnings.showwarning,"
        " list(warnings.filters), sys.stdout, sys.stderr)\n"
        "import unipet, unipet.runs.run, unipet.cli.main, unipet.output.terminal, unipet.output.libraries\n"
        "after = (logging.Logger.handle, logging.root.level, list(logging.root.handlers), warnings.showwarning,"
        " list(warnings.filters), sys.stdout, sys.stderr)\n"
        "assert before == after\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    assert unipet.__version__
