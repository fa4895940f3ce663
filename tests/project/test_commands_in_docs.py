"""Every command that README.md and docs/ show is one that unipet accepts: it composes, and its options exist.

Nothing is trained here: the tutorial's commands run in test_tutorial.py.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.support.checkout import ROOT
from tests.support.running import write_model
from unipet.cli.commands.train import arguments
from unipet.cli.main import COMMANDS, main
from unipet.compose.composer import composer
from unipet.compose.expand import sweep_jobs
from unipet.compose.overrides import plan
from unipet.errors import UnipetError
from unipet.sweeps.search.checks import check_search, searches

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Launchers and sweepers of Hydra's are packages of their own, which need not be there; the documents tell to install them.
OTHERS = ("hydra/launcher=", "hydra/sweeper=")
#: The sites of the base model in DIR, as far as LoRA needs them.
TABLE = """
name: mine
model_types: [bert]
stacks:
  encoder:
    layers: encoder.layer
    roles: {attn.q: attention.self.query, attn.v: attention.self.value}
"""


def commands(path: Path) -> list[str]:
    """The lines of a document's blocks of code that begin with `unipet`, continued lines joined and comments left out."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(unipet [a-z].*)$", text, re.MULTILINE)
    return [shlex.join(shlex.split(line, comments=True)) for line in lines]


SHOWN = [(path.name, command) for path in DOCUMENTS for command in commands(path)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with what the documents speak of: DIR (a base model), and my_conf with methods and a task."""
    folder = tmp_path_factory.mktemp("reader")
    write_model(folder / "DIR")
    (mine := folder / "my_conf" / "method").mkdir(parents=True)
    (block,) = re.findall(r"```yaml\n# my_conf/method/mine.yaml\n(.*?)```", DOCUMENTS[0].read_text("utf-8"), re.DOTALL)
    (mine / "mine.yaml").write_text(block, encoding="utf-8")
    (mine / "low_rank_ffn.yaml").write_text(block.replace("name: mine", "name: low_rank_ffn"), encoding="utf-8")
    (folder / "my_conf" / "task").mkdir()
    menus = {**yaml.safe_load((ROOT / "conf" / "task" / "sst2.yaml").read_text("utf-8")), "name": "menus"}
    (folder / "my_conf" / "task" / "menus.yaml").write_text(yaml.safe_dump(menus), encoding="utf-8")
    (folder / "mine.yaml").write_text(TABLE, encoding="utf-8")
    return folder


def test_there_are_commands() -> None:
    assert len(SHOWN) > 80
    assert {command.split()[1] for _, command in SHOWN} <= set(COMMANDS)


@pytest.mark.parametrize(("document", "command"), SHOWN)
def test_it_is_accepted(
    document: str,
    command: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    name, *rest = shlex.split(command)[1:]
    if (
        name in ("train", "plan", "describe")
        and "resume=" not in command
        and not any(other in command for other in OTHERS)
    ):
        composes([word for word in rest if word not in ("...", "--json")])
        return
    assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in told, f"{document}: `unipet {name} --help` does not know {word}"


def composes(argv: list[str]) -> None:
    if "--total" in argv:
        argv = argv[: argv.index("--total")]
    flags, overrides = arguments(argv)
    with composer(flags.config_dir) as composing:
        todo = plan(overrides, flags.multirun, composing)
        check_search(todo)
        if not todo.multirun or searches(todo.config):
            return
        mistakes = [job.mistake for job in sweep_jobs(todo, composing) if job.mistake]
        assert not mistakes, mistakes[0]


def test_a_command_that_is_not_accepted_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UnipetError, match=r"launcher\.worker"):
        composes(["-m", "method=lora,adapter", "launcher=slots", "launcher.worker=2"])
