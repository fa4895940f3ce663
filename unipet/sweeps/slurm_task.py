"""What a task of a SLURM job does: one worker over the sweep's directory, watched; the last task writes the comparison.

submitit starts it on a node and calls `checkpoint` on the signal USR2, which SLURM sends before the time limit and, where
the cluster is set up so, on preemption. It then queues the task again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unipet.sweeps.claims import Owner
from unipet.sweeps.directory import read_sweep
from unipet.sweeps.stopping import stopped
from unipet.sweeps.supervisor import Slot, Supervisor

LOOK_S = 1.0  # between two looks at the tasks that the last one waits for
END_S = 3600.0  # that a task stays after SIGTERM: the end itself, or a place in the queue again, is SLURM's to give


@dataclass
class SlurmTask:
    """Called by submitit. `closes`: it is the last one, which leaves no job undone and writes the comparison. `after` are
    processes to wait for: on SLURM the dependency of the job says that, and there are none."""

    sweep: Path
    name: str  # unique in the sweep
    closes: bool = False
    after: Sequence[Owner] = ()
    supervisor: Supervisor | None = None

    def __call__(self) -> None:
        """Until no job is left. Exit code 1 when the last task finds that a job failed."""
        from unipet.sweeps.launch import close

        while not all(owner.ended() for owner in self.after):
            time.sleep(LOOK_S)
        sweep = read_sweep(self.sweep)
        name = f"{self.name}-{time.time_ns():x}"  # a task that was queued again is another worker
        self.supervisor = Supervisor(sweep, [Slot(name)], flags=["--last"] if self.closes else [])
        try:
            self.supervisor.run()
        except KeyboardInterrupt:  # SIGTERM: the worker has ended and given its job back
            self._wait_for_the_end()
            return
        if self.closes and close(sweep.directory, sweep.total):
            sys.exit(1)

    def checkpoint(self) -> Any:
        """End the worker, which writes its checkpoint and gives its job back. What the task does when it starts again."""
        from submitit.helpers import DelayedSubmission

        if self.supervisor is not None:
            self.supervisor.end()
        return DelayedSubmission(replace(self, supervisor=None))

    def _wait_for_the_end(self) -> None:
        """SLURM sends SIGTERM when it cancels a job and when it preempts one. A task that ended by itself would count as
        done, and not be queued again."""
        until = time.monotonic() + END_S
        while stopped(self.sweep) is None and time.monotonic() < until:
            time.sleep(LOOK_S)
