"""What a Ray actor does: one worker over the sweep's directory, watched. Ray need not be imported to know it."""

from __future__ import annotations

from pathlib import Path

from unipet.sweeps.directory import read_sweep
from unipet.sweeps.supervisor import Slot, Supervisor, log_of


class RayWorker:
    """An actor on some node. `run` and `end` are called at the same time, so neither is in the process's main thread."""

    def __init__(self, sweep: Path, name: str) -> None:
        self.sweep, self.name = sweep, name
        self.ending = False

    def run(self) -> None:
        """Until no job is left for it, or until `end`. Raises `UnipetError` where no worker can be started here."""
        sweep = read_sweep(self.sweep)
        slot = Slot(self.name, log=log_of(sweep, self.name))
        try:
            Supervisor(sweep, [slot], look=self._look).run()
        except KeyboardInterrupt:
            if not self.ending:
                raise

    def end(self) -> None:
        """Let the worker write its checkpoint, give its job back and end; then `run` returns."""
        self.ending = True

    def _look(self) -> None:
        if self.ending:
            raise KeyboardInterrupt
