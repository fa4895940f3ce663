"""A job has one owner at a time, and another one once the owner is gone."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unipet.runs.sweep_files import CLAIMS, JOBS, WORKERS
from unipet.sweeps.claims import (
    Claim,
    Clock,
    Owner,
    attempts,
    beating,
    claim,
    living,
    lost,
    read_claim,
    release,
    step_back,
)  # fmt: skip


@pytest.fixture()
def sweep(tmp_path: Path) -> Path:
    for name in (CLAIMS, JOBS, WORKERS):
        (tmp_path / name).mkdir()
    return tmp_path


def ended_process() -> int:
    """The number of a process that is no more."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    return int(done.stdout)


def contend(sweep: Path, number: int, wins: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    owner = Owner.this(f"w{number}")
    wins.put([job for job in range(50) if claim(sweep, job, owner, 1) is not None])


def test_of_several_processes_one_gets_each_job(sweep: Path) -> None:
    context = multiprocessing.get_context("spawn")
    wins = context.Queue()
    processes = [context.Process(target=contend, args=(sweep, number, wins)) for number in range(3)]
    for process in processes:
        process.start()
    won = [wins.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(job for jobs in won for job in jobs) == list(range(50))
    assert attempts(sweep) == dict.fromkeys(range(50), 1)


def test_a_claim_says_who_has_it_and_what_its_owner_notes(sweep: Path) -> None:
    mine = claim(sweep, 3, Owner.this("me"), 1)
    assert mine is not None and claim(sweep, 3, Owner.this("you"), 1) is None
    mine.note.gib = 1.5
    mine.write()
    found = read_claim(sweep, 3, 1)
    assert found.owner == Owner.this("me") and found.owner.pid == os.getpid() and found.note == mine.note
    assert found.owner.here() and not found.owner.ended()


def test_a_dead_owner_s_job_is_taken_over_once(sweep: Path) -> None:
    clock = Clock(sweep, "me")
    dead = Owner("dead", Owner.this("").host, ended_process(), Owner.this("").processes)
    old = claim(sweep, 0, dead, 1)
    assert old is not None and lost(old, clock) and not living(sweep)
    taken = claim(sweep, 0, Owner.this("me"), 2)
    assert taken is not None and claim(sweep, 0, Owner.this("you"), 2) is None
    assert taken.held() and not old.held() and attempts(sweep) == {0: 2} and living(sweep)
    release(taken)
    assert attempts(sweep) == {} and not taken.held()


def test_elsewhere_only_signs_of_life_count(sweep: Path) -> None:
    clock = Clock(sweep, "me")
    far = claim(sweep, 0, Owner("far", "elsewhere", ended_process(), "another machine"), 1)
    assert far is not None and not lost(far, clock, stale_s=60)
    long_ago = time.time() - 100
    os.utime(far.path, (long_ago, long_ago))
    assert lost(far, clock, stale_s=60) and not lost(far, clock, stale_s=200)
    with beating(far, every_s=0.01):
        time.sleep(0.2)
    assert not lost(far, clock, stale_s=60)


def test_a_job_that_ended_meanwhile_is_not_claimed(sweep: Path) -> None:
    (sweep / JOBS / "0.json").write_text("{}")
    assert claim(sweep, 0, Owner.this("me"), 1) is None and attempts(sweep) == {}


def test_a_claim_whose_maker_died_before_it_wrote_who_it_was_is_stale_in_time(sweep: Path) -> None:
    path = sweep / CLAIMS / "0.1"
    path.write_text('{"owner": {"wor')
    found, clock = read_claim(sweep, 0, 1), Clock(sweep, "me")
    assert found.owner is None and not lost(found, clock)
    os.utime(path, (0, 0))
    assert lost(found, clock)


def test_a_process_whose_job_was_taken_over_leaves_instead_of_giving_signs_of_life(sweep: Path) -> None:
    """It was stopped for long, and goes on: two must not write the same run."""
    mine, left = claim(sweep, 0, Owner.this("me"), 1), threading.Event()
    assert mine is not None
    with beating(mine, lambda held: left.set(), every_s=0.01):
        assert not left.wait(0.2), "nobody has taken it"
        assert claim(sweep, 0, Owner.this("you"), 2) is not None
        assert left.wait(10)
    os.utime(mine.path, (0, 0))
    with beating(mine, lambda held: None, every_s=0.01):
        time.sleep(0.1)
    assert mine.last_beat() == 0, "and no longer says that it lives"


@pytest.mark.parametrize("give_back", [release, step_back])
def test_a_job_that_was_given_back_was_not_taken_over(sweep: Path, give_back: Callable[[Claim], None]) -> None:
    """The others of a pack go on when one has ended: the process must not leave."""
    mine, left = claim(sweep, 0, Owner.this("me"), 1), threading.Event()
    assert mine is not None
    with beating(mine, lambda held: left.set(), every_s=0.01):
        give_back(mine)
        assert not left.wait(0.2)


def test_whoever_finds_the_run_at_work_leaves_the_claim_of_its_owner(sweep: Path) -> None:
    mine, other = claim(sweep, 0, Owner.this("me"), 1), claim(sweep, 0, Owner.this("you"), 2)
    assert mine is not None and other is not None
    step_back(other)
    assert attempts(sweep) == {0: 1} and mine.held()
