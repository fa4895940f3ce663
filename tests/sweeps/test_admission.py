"""Runs share a GPU as long as their predicted memory fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipet.runs.sweep_files import CLAIMS, JOBS, WORKERS
from unipet.sweeps.admission import CONTEXT_GIB, Device, wait_for_room
from unipet.sweeps.claims import Claim, Owner, claim, read_claim, release


class Waited(Exception):
    """The run had to wait."""


def wait() -> None:
    raise Waited


@pytest.fixture()
def sweep(tmp_path: Path) -> Path:
    for name in (CLAIMS, JOBS, WORKERS):
        (tmp_path / name).mkdir()
    return tmp_path


def taken(sweep: Path, job: int, owner: Owner | None = None) -> Claim:
    held = claim(sweep, job, owner or Owner.this(f"w{job}"), 1)
    assert held is not None
    return held


GPU = Device("0", 24.0)


def test_a_run_begins_where_it_fits_beside_the_others(sweep: Path) -> None:
    first, second, third = (taken(sweep, job) for job in range(3))
    wait_for_room(first, 10.0, GPU, wait)
    assert read_claim(sweep, 0, 1).note.gib == 10.0 + CONTEXT_GIB and read_claim(sweep, 0, 1).note.device == "0"
    wait_for_room(second, 12.0, GPU, wait)
    with pytest.raises(Waited):
        wait_for_room(third, 1.0, GPU, wait)
    wait_for_room(third, 1.0, Device("1", 24.0), wait)
    release(first)
    wait_for_room(taken(sweep, 3), 10.0, GPU, wait)


def test_it_waits_until_another_run_has_ended(sweep: Path) -> None:
    first, second = taken(sweep, 0), taken(sweep, 1)
    wait_for_room(first, 20.0, GPU, wait)
    waits = []

    def pause() -> None:
        waits.append(1)
        if len(waits) == 3:
            release(first)

    wait_for_room(second, 20.0, GPU, pause)
    assert len(waits) == 3


def test_alone_it_may_try_whatever_it_needs(sweep: Path) -> None:
    wait_for_room(taken(sweep, 0), 100.0, GPU, wait)
    with pytest.raises(Waited):
        wait_for_room(taken(sweep, 1), 0.1, GPU, wait)


def test_a_need_that_nobody_knows_is_the_whole_device(sweep: Path) -> None:
    first, second = taken(sweep, 0), taken(sweep, 1)
    wait_for_room(first, 1.0, GPU, wait)
    with pytest.raises(Waited):
        wait_for_room(second, None, GPU, wait)
    release(first)
    wait_for_room(second, None, GPU, wait)
    with pytest.raises(Waited):
        wait_for_room(taken(sweep, 2), 1.0, GPU, wait)


def test_a_dead_worker_and_one_of_another_machine_take_no_room(sweep: Path) -> None:
    here = Owner.this("")
    for job, owner in enumerate(
        (Owner("dead", here.host, 2**22 + 1, here.processes), Owner("far", "elsewhere", 1, "far"))
    ):
        held = taken(sweep, job, owner)
        held.note.device, held.note.gib = "0", 20.0
        held.write()
    wait_for_room(taken(sweep, 5), 20.0, GPU, wait)
