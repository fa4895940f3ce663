"""docs/tutorial.md does what it says: its ten commands run in order, and each prints or writes what the text promises.

The base model is a tiny random one wherever weights are read, and training has two steps: the study, not its numbers.
"""

from __future__ import annotations

import glob
import re
import shlex
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.running import write_model
from unipet.cli.main import main

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
STEPS = re.split(r"^## \d+\. ", TEXT, flags=re.MULTILINE)[1:]
#: What makes a run of the tutorial small; replaced or added where a command reads weights.
SMALL = {
    "model": "tiny_model",
    "budget.max_steps": "2",
    "budget.trainable_percent": "5",
    "task.max_evaluation": "20",
    "task.max_length": "32",
    "task.generated_train": "40",
    "task.generated_evaluation": "40",
}


def commands(step: str) -> list[str]:
    return [line for block in re.findall(r"```bash\n(.*?)```", step, re.DOTALL) for line in block.splitlines()]


def promised(step: str) -> list[str]:
    """The texts in backquotes of each sentence that begins with "You see"."""
    sentences = re.findall(r"You see (.*?)(?:[:;]|\.\s|, and the)", step.replace("\n", " "))
    return [text for sentence in sentences for text in re.findall(r"`([^`]+)`", sentence)]


def arguments(command: str) -> list[str]:
    """The command's own arguments, made small; `*` as a shell reads it."""
    program, name, *rest = shlex.split(command)
    assert program == "unipet"
    if name in ("train", "plan"):
        rest = [word for word in rest if word.partition("=")[0] not in SMALL]
        rest += [f"{key}={value}" for key, value in SMALL.items()]
    return [name, *(match for word in rest for match in (glob.glob(word) or [word]))]


def write_files(step: str) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", step, re.DOTALL):
        path = Path(block.splitlines()[0].removeprefix("# "))
        path.parent.mkdir(parents=True)
        path.write_text(block, encoding="utf-8")


def test_it_has_ten_commands_and_each_promises_something() -> None:
    assert [len(commands(step)) for step in STEPS] == [1] * 10
    assert all(promised(step) for step in STEPS)


def test_its_commands_run_and_print_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("altair", reason="the page of step 9 is made with altair: pip install unipet[report]")
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny_model")
    for step in STEPS:
        write_files(step)
        (command,) = commands(step)
        code = main(arguments(command))
        out, err = capsys.readouterr()
        assert code == 0, f"{command}\n{out}\n{err}"
        for text in promised(step):
            seen = text in out + err or Path(text).exists()
            assert seen, f"{command} neither prints {text!r} nor leaves such a file:\n{out}\n{err}"
    assert "low\\_rank\\_ffn" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "merged" / "model.safetensors").is_file()
