"""Watching worker processes: what two signals ask for. tests/sweeps/test_isolation.py lets workers die in every other way."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from unipet.config import LauncherConfig
from unipet.sweeps.directory import Sweep
from unipet.sweeps.supervisor import Slot, Supervisor
from unipet.training.stopping import MOMENT_S


def test_a_later_second_signal_kills_the_workers(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as worker:
        sweep = Sweep(tmp_path, ["-m"], [], ["seed"], 1, tmp_path, LauncherConfig())
        supervisor = Supervisor(sweep, [Slot("a", process=worker)])
        supervisor._asked_to_end(signal.SIGTERM, None)
        supervisor._asked_to_end(signal.SIGINT, None)
        assert worker.poll() is None, "two signals within a moment are one wish"
        supervisor.asked_at -= 2 * MOMENT_S
        supervisor._asked_to_end(signal.SIGINT, None)
        assert worker.wait(10) == -signal.SIGKILL and supervisor.ended_by == signal.SIGTERM
