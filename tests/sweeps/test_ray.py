"""`launcher=ray`: actors as workers, on a cluster that loses a node in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.misbehaving import FIXED, begun, how, processes_of, states, swept, unipet, wait_for, write_study
from unipet.cli.main import main
from unipet.runs.sweep_files import index_events, read_jobs
from unipet.sweeps.claims import attempts, read_claim

pytest.importorskip("ray", reason="launcher=ray needs Ray: pip install unipet[ray]")

LONG = 300.0


@pytest.fixture()
def here(tmp_path: Path) -> Path:
    return write_study(tmp_path)


#: A cluster of two nodes on this machine, in a process of its own: `kill` on its input kills the second one.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
second = cluster.add_node(num_cpus=1, num_gpus=0)
cluster.wait_for_nodes()
raylets = [node.all_processes["raylet"][0].process.pid for node in (cluster.head_node, second)]
print(cluster.address, *raylets, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture()
def nodes(here: Path) -> Iterator[tuple[str, list[int]]]:
    """The address of a cluster, and the process of each of its two nodes."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(here)}
    with open(here / "cluster.log", "w") as log:
        cluster = subprocess.Popen(
            [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=environment, cwd=here,
        )  # fmt: skip
    try:
        assert cluster.stdout is not None
        said = cluster.stdout.readline().split()
        assert said, (here / "cluster.log").read_text()
        yield said[0], [int(pid) for pid in said[1:]]
    finally:
        cluster.communicate("", timeout=60)


def children(pid: int) -> list[int]:
    """The processes below one, the nearest first."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            below.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = list(below.get(pid, []))
    for child in found:
        found += below.get(child, [])
    return found


@pytest.mark.slow
def test_a_node_is_lost_in_the_middle(here: Path, nodes: tuple[str, list[int]]) -> None:
    address, (_, second) = nodes
    flags = ["launcher=ray", f"launcher.address={address}", "launcher.gpus=0", "budget.max_steps=12"]
    line = [sys.executable, "-m", "unipet", "train", "-m", *FIXED, *flags, how("slow"), "seed=0,1,2,3"]
    driver = subprocess.Popen(line, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: begun(here), LONG)
        wait_for(lambda: sum(job.status == "running" for job in read_jobs(swept(here))) == 2, LONG)
        lost = [second, *children(second)]
        workers = set(at_work(swept(here)))
        assert len(workers & set(lost)) == 1 and len(workers - set(lost)) == 1, "one worker on each node"
        for sign in (signal.SIGSTOP, signal.SIGKILL):  # all at once: nobody on that node can say good-bye
            for pid in lost:
                with suppress(ProcessLookupError):
                    os.kill(pid, sign)
        out, err = driver.communicate(timeout=LONG)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 0, err
    jobs = read_jobs(swept(here))
    assert [job.status for job in jobs] == ["ok"] * 4
    assert sorted(event.job for event in index_events(swept(here)) if event.over) == [0, 1, 2, 3]
    assert not processes_of(swept(here)) and not attempts(swept(here))
    assert "4 jobs;" in out and "Traceback" not in err, (out, err)


def at_work(sweep: Path) -> list[int]:
    """The processes of the workers that have a job."""
    claims = (read_claim(sweep, job, attempt) for job, attempt in attempts(sweep).items())
    return [claim.owner.pid for claim in claims if claim.owner is not None]


@pytest.mark.slow
def test_a_cluster_of_this_machine_alone(here: Path) -> None:
    done = unipet(here, "train", "-m", *FIXED, "launcher=ray", "launcher.workers=2", how("fine", "raise", "segfault"))
    assert done.returncode == 1, done.stderr
    assert {word: state.status for word, state in states(here).items()} == {
        "fine": "ok",
        "raise": "failed",
        "segfault": "failed",
    }
    assert "3 jobs, 2 failed" in done.stdout and "Traceback" not in done.stderr
    assert not processes_of(swept(here)) and not attempts(swept(here))


@pytest.mark.slow
def test_a_key_press_gives_the_jobs_back(here: Path) -> None:
    flags = ["launcher=ray", "launcher.workers=1", "budget.max_steps=2000"]
    line = [sys.executable, "-m", "unipet", "train", "-m", *FIXED, *flags, how("slow"), "seed=0,1"]
    driver = subprocess.Popen(line, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: begun(here), LONG)
        wait_for(lambda: any(job.status == "running" for job in read_jobs(swept(here))), LONG)
        driver.send_signal(signal.SIGINT)
        _, err = driver.communicate(timeout=LONG)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode != 0 and "to go on: unipet sweep resume" in err and "Traceback" not in err
    assert not processes_of(swept(here)) and not attempts(swept(here))


@pytest.mark.slow
def test_what_does_not_fit_is_said(here: Path) -> None:
    done = unipet(here, "train", "-m", *FIXED, "launcher=ray", "launcher.cpus=4000", how("fine", "raise"))
    assert done.returncode == 2 and "launcher.cpus=4000" in done.stderr and "Traceback" not in done.stderr
    status = unipet(here, "sweep", "status", str(swept(here)), "--json")
    assert json.loads(status.stdout)["counts"] == {"pending": 2}


def test_without_ray_the_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    modules: dict[str, Any] = {"ray": None}
    monkeypatch.setitem(sys.modules, "ray", modules["ray"])
    assert main(["train", "-m", "seed=0,1", "launcher=ray"]) != 0
    assert "pip install 'unipet[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
