"""What a file system, a crash and a second hand on the keyboard can do to a sweep."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import soak
from tests.support.running import LOW_RANK, TINY_TASK, write_world
from unipet.runs.sweep_files import index_events, read_jobs
from unipet.sweeps.claims import Owner, claim, release

LINE = [
    *(
        sys.executable,
        "-m",
        "unipet",
        "train",
        "-m",
        "--config-dir=mine",
        "model=model",
        "task=tiny",
        "task.data_dir=data",
    ),
    *("method=mine", "seed=0,1,2", "budget.max_steps=4", "optim.batch_size=4", "task.selection=none"),
]


@pytest.fixture()
def here(tmp_path: Path) -> Path:
    return write_world(tmp_path, {"task/tiny": TINY_TASK, "method/mine": {**LOW_RANK, "name": "mine"}})


def swept(here: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LINE, *more], cwd=here, capture_output=True, text=True, timeout=300)


def sweep_in(root: Path) -> Path:
    (found,) = (path for path in (root / "sweeps").iterdir() if not path.name.startswith("."))
    return found


@pytest.mark.parametrize("launcher", ["local", "slots"])
def test_a_sweep_that_is_killed_again_and_again_ends_as_if_nobody_had(tmp_path: Path, launcher: str) -> None:
    found = soak.soak(tmp_path, kills=6, launcher=launcher, chance=random.Random(launcher))
    assert found["problems"] == [] and found["equal"], found
    assert found["kills"] == 6, found


def test_two_identical_sweeps_at_the_same_moment_share_the_work(here: Path) -> None:
    both = [
        subprocess.Popen(LINE, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ends = [(process, *process.communicate(timeout=300)) for process in both]
    assert [process.returncode for process, _, _ in ends] == [0, 0], ends
    sweep = sweep_in(here / "runs")
    assert [state.status for state in read_jobs(sweep)] == ["ok"] * 3
    records = [json.loads(path.read_text()) for path in (here / "runs").glob("*/result.json")]
    assert len(records) == 3 and not any(record.get("resumed") for record in records)
    begun = [event.job for event in index_events(sweep) if event.status == "running"]
    assert sorted(set(begun)) == [0, 1, 2] and not list((sweep / "claims").iterdir())


@pytest.mark.parametrize("launcher", ["local", "slots"])
def test_a_command_waits_for_the_job_that_another_one_is_doing(here: Path, launcher: str) -> None:
    """And does it where that one gives it up."""
    line = [f"launcher={launcher}", *(["launcher.workers=2"] if launcher == "slots" else [])]
    assert swept(here, *line).returncode == 0
    sweep = sweep_in(here / "runs")
    shutil.rmtree(next((here / "runs").glob("mine-tiny-s1-*")))
    (sweep / "jobs" / "1.json").unlink()
    held = claim(sweep, 1, Owner.this("another"), 1)
    assert held is not None
    command = subprocess.Popen([*LINE, *line], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(timeout=25)
        release(held)
        out, err = command.communicate(timeout=200)
    finally:
        command.kill()
    assert command.returncode == 0, (out, err)
    assert [state.status for state in read_jobs(sweep)] == ["ok"] * 3


def test_a_record_that_a_disk_damaged_is_no_result(here: Path) -> None:
    assert swept(here).returncode == 0
    record = sorted((here / "runs").glob("*/result.json"))[0]
    whole = record.read_text()
    record.write_text(whole[: len(whole) // 2])
    again = swept(here)
    assert again.returncode == 0, again.stderr
    new, old = json.loads(record.read_text()), json.loads(whole)
    assert new["status"] == "ok" and new["score"] == old["score"]


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("this system lets nobody here mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_fails_jobs_and_leaves_no_half_of_a_file(here: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 150_000)
    done = swept(here, f"runs_dir={small_disk}")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert "No space left on device" in done.stdout + done.stderr
    for path in small_disk.rglob("*.json"):
        json.loads(path.read_text())
    assert not list(small_disk.rglob("*.tmp"))
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = swept(here, f"runs_dir={small_disk}")
    assert again.returncode == 0, again.stderr


def test_output_that_cannot_be_written_is_one_error(here: Path) -> None:
    (here / "file").write_text("")
    done = swept(here, "runs_dir=file")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "runs_dir" in done.stderr
    if os.getuid() != 0:
        (here / "closed").mkdir(mode=0o500)
        assert swept(here, "runs_dir=closed").returncode == 2
