"""The index over runs: what it spares, and that nothing stale, damaged or foreign in it is ever believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.reports import write_run
from unipet.calculus import yaml_reader
from unipet.errors import UnipetError
from unipet.runs import record_index
from unipet.runs.record_index import FEW, KnownRun, read_runs


@pytest.fixture()
def runs(tmp_path: Path) -> Path:
    """As many runs as are worth an index."""
    for seed in range(FEW):
        write_run(tmp_path / "runs", "good", seed, predictions=False)
    return tmp_path / "runs"


def read(root: Path) -> list[KnownRun]:
    return read_runs(sorted(path.parent for path in root.glob("*/result.json")))


def index(root: Path) -> Path:
    (path,) = (root / ".cache").glob("index-*.json")
    return path


@pytest.fixture()
def no_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(record_index, "read_record", never)
    monkeypatch.setattr(yaml_reader, "read_written", never)


def test_the_second_time_no_file_is_read_and_all_is_the_same(runs: Path, request: pytest.FixtureRequest) -> None:
    before = read(runs)
    request.getfixturevalue("no_file_is_read")
    after = read(runs)
    assert [run.record for run in after] == [run.record for run in before]
    assert [run.config for run in after] == [run.config for run in before]
    assert [list(run.config) for run in after] == [list(run.config) for run in before]
    assert [run.record.to_dict() for run in after] == [run.record.to_dict() for run in before]
    assert [run.directory for run in after] == [run.directory for run in before]


def test_a_changed_record_or_configuration_is_read_again_alone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = read(runs)
    record = json.loads((first.directory / "result.json").read_text())
    (first.directory / "result.json").write_text(json.dumps(record | {"score": 0.125}))
    text = (second.directory / "config.yaml").read_text()
    (second.directory / "config.yaml").write_text(text.replace("lr: 0.1", "lr: 0.2"))
    seen: list[Path] = []
    monkeypatch.setattr(record_index, "read_record", lambda path: seen.append(path.parent) or _read_record(path))
    runs_now = read(runs)
    assert runs_now[0].record.score == 0.125 and runs_now[1].config["optim"]["lr"] == 0.2
    assert seen == [first.directory, second.directory]


_read_record = record_index.read_record


def test_a_file_of_the_same_size_and_time_is_not_mistaken_for_the_old_one(runs: Path) -> None:
    first = read(runs)[0]
    path = first.directory / "result.json"
    times = path.stat()
    text = path.read_text()
    other = text.replace('"seed": 0', '"seed": 7')
    assert other != text and len(other) == len(text)
    path.write_text(other)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read(runs)[0].record.seed == 7


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"format": 1, "values": [], "runs": {"good-t-0-none": []}}',
        b'{"format": 1, "values": [], "runs": 3}',
        b'{"format": 99, "values": [], "runs": {}}',
    ],
)
def test_a_damaged_index_is_made_anew(runs: Path, damage: bytes) -> None:
    before = read(runs)
    whole = index(runs).read_bytes()
    index(runs).write_bytes(damage)
    assert [run.record for run in read(runs)] == [run.record for run in before]
    assert json.loads(index(runs).read_bytes()) == json.loads(whole)


def test_lines_that_lie_about_what_a_record_holds_are_read_again(runs: Path) -> None:
    before = read(runs)
    content = json.loads(index(runs).read_bytes())
    content["values"] = []  # every number leads nowhere
    index(runs).write_text(json.dumps(content))
    assert [run.record for run in read(runs)] == [run.record for run in before]


def test_few_runs_leave_no_index_and_a_read_only_directory_costs_nothing_but_time(tmp_path: Path, runs: Path) -> None:
    write_run(tmp_path / "few", "good", predictions=False)
    read(tmp_path / "few")
    assert not (tmp_path / "few" / ".cache").exists()
    (runs / ".cache").write_text("a file where the directory would be")
    assert len(read(runs)) == FEW


def test_the_cache_can_be_elsewhere_or_off(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPET_CACHE", "off")
    read(runs)
    assert not (runs / ".cache").exists()
    monkeypatch.setenv("UNIPET_CACHE", str(tmp_path / "cache"))
    read(runs)
    assert len(list((tmp_path / "cache").glob("index-*.json"))) == 1 and not (runs / ".cache").exists()


def test_runs_that_are_gone_leave_the_index(runs: Path) -> None:
    first = read(runs)[0].directory
    (first / "result.json").unlink()
    write_run(runs, "good", FEW, predictions=False)
    write_run(runs, "good", FEW + 1, predictions=False)
    assert len(read(runs)) == FEW + 1
    assert first.name not in json.loads(index(runs).read_bytes())["runs"]


def test_a_look_at_some_runs_does_not_forget_the_others(runs: Path, request: pytest.FixtureRequest) -> None:
    every = [run.directory for run in read(runs)]
    record = json.loads((every[0] / "result.json").read_text())
    (every[0] / "result.json").write_text(json.dumps(record | {"score": 0.5}))
    read_runs(every[:1])
    request.getfixturevalue("no_file_is_read")
    assert len(read(runs)) == FEW


def test_a_record_that_cannot_be_read_is_an_error_or_handed_over(runs: Path) -> None:
    first = read(runs)[0].directory
    (first / "result.json").write_text("{")
    with pytest.raises(UnipetError, match="not a readable record"):
        read(runs)
    told: list[Path] = []
    directories = sorted(path.parent for path in runs.glob("*/result.json"))
    assert len(read_runs(directories, lambda directory, error: told.append(directory))) == FEW - 1
    assert told == [first]


@pytest.mark.slow
def test_processes_that_write_it_at_once_leave_a_whole_one(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from unipet.runs.record_index import read_runs\n"
        "for _ in range(20):\n"
        "    for path in Path(sys.argv[1]).glob('.cache/index-*'): path.unlink(missing_ok=True)\n"
        "    runs = read_runs(sorted(path.parent for path in Path(sys.argv[1]).glob('*/result.json')))\n"
        "    assert [run.record.seed for run in runs] == [int(run.directory.name.split('-')[2]) for run in runs]"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(runs)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    read(runs)
    assert len(json.loads(index(runs).read_bytes())["runs"]) == FEW
