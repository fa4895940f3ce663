"""`unipet verify` of an adapter that was copied away from its run: it is checked without its data, or says what it needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import LOW_RANK, MIXTURE, run_dir, tiny_config, write_model, write_task
from tests.support.tiny import tiny_bert
from unipet.cli.main import main
from unipet.runs.run import run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_model(root / "model")
    write_task(root / "data")
    return root


@pytest.fixture(scope="module")
def trained(world: Path) -> Path:
    config = tiny_config(world, runs="trained")
    assert run(config)["status"] == "ok"
    return run_dir(config)


@pytest.fixture()
def elsewhere(trained: Path, tmp_path: Path) -> Path:
    """The adapter alone, in another folder; its run is out of reach."""
    return Path(shutil.copytree(trained / "adapter", tmp_path / "copied"))


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()  # of what came before
    code = main(words)
    shown = capsys.readouterr()
    return code, (shown.err + shown.out).strip()


@pytest.mark.parametrize("method", [LOW_RANK, MIXTURE], ids=lambda method: str(method["name"]))
def test_it_is_certified_again_on_its_base_model(
    method: dict[str, Any], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(world, method, runs="kinds")
    assert run(config)["status"] == "ok"
    copied = Path(shutil.copytree(run_dir(config) / "adapter", tmp_path / "copied"))
    code, shown = said(["verify", str(copied), "--model", str(world / "model")], capsys)
    assert code == 0 and shown.endswith("\ncertified")
    certificate = json.loads((copied / "adapter.json").read_text())["certificate"]
    assert certificate["by"] == "verify" and certificate["checks"]["round_trip"]["status"] == "passed"
    assert certificate["checks"]["moved"]["status"] == "passed", "what only the run could know stays"


def test_it_asks_for_its_base_model(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = said(["verify", str(elsewhere)], capsys)
    assert code == 2 and str(elsewhere) in shown and "--model DIR" in shown
    code, shown = said(["verify", str(elsewhere), "--deep", "--model", "x"], capsys)
    assert code == 2 and "--deep" in shown and "Give the run" in shown


def test_another_base_model_is_refused(elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bert(False, seed=1).save_pretrained(tmp_path / "other")
    before = (elsewhere / "adapter.json").read_bytes()
    code, shown = said(["verify", str(elsewhere), "--model", str(tmp_path / "other")], capsys)
    assert code == 2 and "another base model" in shown and "Traceback" not in shown
    code, shown = said(["verify", str(elsewhere), "--model", str(tmp_path)], capsys)
    assert code == 2 and "config.json" in shown
    assert (elsewhere / "adapter.json").read_bytes() == before


def test_a_file_that_was_left_behind_is_named(elsewhere: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "adapter.safetensors").unlink()
    code, shown = said(["verify", str(elsewhere), "--model", str(world / "model")], capsys)
    assert code == 2 and "adapter.safetensors" in shown


def test_values_that_were_changed_on_the_way_are_named(
    elsewhere: Path, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = elsewhere / "adapter.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    code, shown = said(["verify", str(elsewhere), "--model", str(world / "model")], capsys)
    assert code == 2 and "adapter.safetensors" in shown


def test_an_adapter_of_more_labels_is_checked_as_well(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base model's directory says nothing of them."""
    config = tiny_config(world, runs="three")
    config.task.labels = ["no", "yes", "perhaps"]
    assert run(config)["status"] == "ok"
    copied = Path(shutil.copytree(run_dir(config) / "adapter", tmp_path / "copied"))
    code, shown = said(["verify", str(copied), "--model", str(world / "model")], capsys)
    assert code == 0 and shown.endswith("\ncertified"), shown


def test_the_adapter_of_a_run_is_verified_with_the_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = said(["verify", str(trained / "adapter"), "--model", "x"], capsys)
    assert code == 2 and "Leave it out" in shown
