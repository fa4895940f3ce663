"""A worker whose jobs train in packs: it takes several that share base model, task and batches, and does them in one process.

A job that cannot be in a pack is done alone afterwards, and its record says why. So is a job whose last worker was lost: it may
be what ended it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unipet.errors import UnipetError
from unipet.runs import packed
from unipet.runs.run_directory import Busy
from unipet.runs.sweep_files import job_numbers
from unipet.runs.tracked_summary import own_files
from unipet.sweeps import jobs
from unipet.sweeps.claims import Claim, attempts, beating, claim, release, step_back
from unipet.sweeps.job_files import job_config, read_job
from unipet.sweeps.moved import in_its_place
from unipet.sweeps.worker import BUSY_S, Worker

if TYPE_CHECKING:
    from unipet.training.seat import Seat

MOST = 16  # jobs of a pack where nobody says how many


@dataclass(frozen=True)
class Kind:
    """What the configuration of a job says of packs: what all of one pack have in common, or why it is alone."""

    common: str = ""
    seed: int = 0
    alone: str | None = None


@dataclass
class Packer(Worker):
    """A worker of `launcher=packed`."""

    kinds: dict[int, Kind] = field(default_factory=dict)
    best: dict[str, int] = field(default_factory=dict)  # what jobs have in common -> how many of them a pack shall have

    def do(self, held: Claim) -> None:
        """Do the job of a claim, and others with it."""
        kind = self.kind(held.job)
        most = self.launcher.pack or self.best.get(kind.common, MOST)
        if (why := self.why_alone(held, kind, most)) is not None:
            self.do_alone(held, why)
            return
        pack_of = [held, *self.more_of(kind, held, most)]
        if len(pack_of) == 1:
            self.do_alone(held, "no other job was left to train with it")
            return
        self.do_pack(pack_of, kind)

    def kind(self, number: int) -> Kind:
        """What job `number` says of packs."""
        if number not in self.kinds:
            try:
                config = job_config(read_job(self.sweep.directory, number))
            except UnipetError as error:  # which its run will say
                self.kinds[number] = Kind(alone=str(error))
            else:
                self.kinds[number] = Kind(packed.same_batches(config), config.seed, packed.why_alone(config))
        return self.kinds[number]

    def why_alone(self, held: Claim, kind: Kind, most: int) -> str | None:
        """Why a job is not to be in a pack, or None."""
        if held.attempt > 1:
            return "the worker that it had before was lost"
        if most == 1:
            return "measured: jobs like this one take less time one after the other"
        return kind.alone

    def more_of(self, kind: Kind, held: Claim, most: int) -> list[Claim]:
        """Claims to further jobs of this kind, as many as a pack may have, and not more than this worker's part of them."""
        over, taken = job_numbers(self.sweep.directory, ".json"), attempts(self.sweep.directory)
        now = time.monotonic()
        free = [
            job
            for job in range(self.sweep.total)
            if not (job in over or job in taken or self.busy.get(job, 0.0) > now) and self.kind(job) == kind
        ]
        count = min(most, math.ceil((len(free) + 1) / (self.launcher.workers or 1))) - 1
        claims: list[Claim] = []
        for job in free:
            if len(claims) < count and (made := claim(self.sweep.directory, job, self.owner, 1)) is not None:
                claims.append(made)
        return claims

    def do_alone(self, held: Claim, why: str) -> None:
        """Do one job as any worker does."""
        self.shared.alone = why
        try:
            super().do(held)
        finally:
            self.shared.alone = None

    def do_pack(self, claims: list[Claim], kind: Kind) -> None:
        """Do several jobs in one pack, then those that it could not take, one after the other."""
        pack = packed.pack_of(self.shared, kind.seed, measures=self.launcher.pack is None)
        print(f"pack of {len(claims)} jobs: {', '.join(str(each.job + 1) for each in claims)}", file=sys.stderr)
        with self.holding(claims), own_files(self.sweep.config_dir):
            seats = pack.run([self.work(held) for held in claims])
        if pack.best is not None:
            self.best[kind.common] = pack.best
        left = [
            (held, seat.turn.error) for held, seat in zip(claims, seats, strict=True) if seat.turn.error is not None
        ]
        alone = [(held, why) for held, error in left if (why := self.settled(held, error)) is not None]
        ended = [error for _, error in left if not self.stays(error)]
        if ended:
            for held, _ in alone:
                release(held)
            raise ended[0]
        with self.holding([held for held, _ in alone]):  # the last of them waits for the others
            for held, why in alone:
                self.do_alone(held, why)

    @contextmanager
    def holding(self, claims: list[Claim]) -> Iterator[None]:
        """Inside, all claims show signs of life; what an exception leaves unfinished is given back."""
        with ExitStack() as inside:
            for held in claims:
                inside.enter_context(beating(held, self.leave))
            try:
                yield
            except BaseException:
                for held in claims:
                    if held.held():
                        release(held)
                raise

    def stays(self, error: BaseException) -> bool:
        """Whether the worker goes on after a job left its pack like this."""
        from unipet.training.company import StandsAside

        return isinstance(error, StandsAside | Busy)

    def settled(self, held: Claim, error: BaseException) -> str | None:
        """What becomes of a job that left its pack without an outcome: why it is to be done alone, or it is given back."""
        from unipet.training.company import StandsAside

        if isinstance(error, StandsAside):
            print(f"    job {held.job + 1} is not in the pack: {error.reason}", file=sys.stderr)
            if error.alone:
                return error.reason
        if isinstance(error, Busy):
            self.busy[held.job] = time.monotonic() + BUSY_S
            step_back(held)
        else:
            release(held)
        return None

    def work(self, held: Claim) -> Callable[[Seat], None]:
        """What a seat of the pack does: one job, to its outcome."""

        def do(seat: Seat) -> None:
            job = in_its_place(self.sweep, read_job(self.sweep.directory, held.job))
            self.say(job, None)
            outcome = jobs.run_job(job.values, self.task(job, held), job.mistake, self.shared.beside(seat))
            if held.held():
                self.end(held, outcome)
                self.say(job, outcome)

        return do


def worker_kind(launcher: str) -> type[Worker]:
    """The worker of a launcher."""
    return Packer if launcher == "packed" else Worker
