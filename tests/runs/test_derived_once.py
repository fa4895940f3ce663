"""One run derives each thing once: counted on a run through the command line, with files of a user's own."""

from __future__ import annotations

import builtins
import inspect
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from tests.support.running import LOW_RANK, TINY_TASK, stand_in, write_world
from unipet.adaptation import build
from unipet.calculus import method
from unipet.calculus.sites import ARCHITECTURES, table_data
from unipet.calculus.yaml_reader import write_yaml
from unipet.cli.main import main
from unipet.config import RunConfig
from unipet.runs import identity
from unipet.runs.record import Record
from unipet.tasks import load

COUNTED: dict[str, Callable[..., Any]] = {
    "compose": ConfigLoaderImpl._load_configuration_impl,
    "parse_method": method.parse_method,
    "build": build.build,
    "load_task": load.load_task,
    "run_id": identity.run_id,
    "content_of": identity.content_of,
}


@contextmanager
def counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each of `COUNTED` is called inside, by whatever name, and how often Python opens each file below `root`
    to read it."""
    found: Counter[str] = Counter()
    names = {inspect.unwrap(function).__code__: name for name, function in COUNTED.items()}
    plain = io.open

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in names:
            found[names[frame.f_code]] += 1

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "r" in mode and not isinstance(file, int) and Path(os.fspath(file)).resolve().is_relative_to(root):
            found[Path(os.fspath(file)).resolve().relative_to(root).as_posix()] += 1
        return plain(file, mode, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", opened)
        patched.setattr(builtins, "open", opened)
        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            yield found
        finally:
            sys.setprofile(before)


#: Extra overrides -> how often insertions are built: for the base model without weights, and for the real one. A budget that
#: solves sizes needs one more, for the smallest sizes. Predicting memory copies what was built. The certificate parses and builds
#: once more what was saved, because this is what it tries.
BUILDS = [([], 3), (["budget.trainable_params=600", "budget.peak_memory_gib=8"], 4)]


@pytest.mark.parametrize(("budget", "builds"), BUILDS, ids=["plain", "solved"])
def test_a_run_derives_each_thing_once(
    budget: list[str],
    builds: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path.resolve()
    write_world(root, {"task/tiny": TINY_TASK, "method/mine": LOW_RANK})
    (root / "sites.yaml").write_text(write_yaml(table_data(ARCHITECTURES["bert"])))
    monkeypatch.chdir(root)
    asked = ["method=mine", "task=tiny", "task.data_dir=data", "model=./model", "model.sites=sites.yaml"]
    with counted(root, monkeypatch) as found:
        code = main(["train", "--config-dir=mine", *asked, *budget, "optim.batch_size=8", "budget.max_steps=2"])
    assert code == 0, capsys.readouterr().err
    assert {name: found[name] for name in COUNTED} == {
        "compose": 1,
        "parse_method": 2,
        "build": builds,
        "load_task": 1,
        "content_of": 1,
        "run_id": 1,
    }
    files = ("mine/method/mine.yaml", "mine/task/tiny.yaml", "sites.yaml", "data/train.jsonl", "data/validation.jsonl")
    assert {name: found[name] for name in files} == dict.fromkeys(files, 1)


def test_a_method_file_by_its_path_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path.resolve()
    (root / "mine.yaml").write_text(write_yaml(LOW_RANK))
    stand_in(monkeypatch, lambda config, directory: Record(status="ok"))
    monkeypatch.chdir(root)
    with counted(root, monkeypatch) as found:
        assert main(["train", "method=mine.yaml", "method.insertions.attention.function.size=2"]) == 0
    assert (found["mine.yaml"], found["compose"]) == (1, 1)


def test_a_run_that_is_composed_once_keeps_hydra_s_settings_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str | None, str]] = []

    def train(config: RunConfig, directory: Path) -> Record:
        seen.append((os.environ.get("UNIPET_PROBE"), os.getcwd()))
        return Record(status="ok")

    stand_in(monkeypatch, train)
    monkeypatch.chdir(tmp_path)
    settings = ["+hydra.job.env_set.UNIPET_PROBE=here", "hydra.job.chdir=true", "hydra.run.dir=out"]
    assert main(["train", *settings, "hydra.output_subdir=.hydra"]) == 0
    assert seen == [("here", str(tmp_path / "out"))]
    assert (os.environ.get("UNIPET_PROBE"), os.getcwd()) == (None, str(tmp_path))
    assert (tmp_path / "out" / ".hydra" / "config.yaml").is_file()
