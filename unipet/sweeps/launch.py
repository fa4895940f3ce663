"""Run what a plan asks for: one run as it was composed, or a sweep through hydra.main, closed with its comparison table."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipet.compose.composer import ROOT, config_path, hydra_state, plain_values, register_schema, version_base
from unipet.compose.hydra_errors import translate
from unipet.compose.overrides import Plan
from unipet.errors import UnipetError
from unipet.output import libraries
from unipet.runs.record import Record
from unipet.runs.tracked_summary import own_files
from unipet.sweeps import closing, jobs

SWEEP_ID = "UNIPET_SWEEP"  # read by conf/config.yaml for hydra.sweep.dir


@dataclass(frozen=True)
class Flags:
    """The command line but for its overrides."""

    multirun: bool = False
    config_dir: str | None = None
    help: bool = False
    hydra_help: bool = False
    cfg: str | None = None
    resolve: bool = False
    package: str | None = None
    info: str | None = None

    def line(self) -> list[str]:
        """As hydra.main reads them."""
        switches = [
            f"--{name.replace('_', '-')}"
            for name in ("multirun", "help", "hydra_help", "resolve")
            if getattr(self, name)
        ]
        values = [
            f"--{name}={value}" for name in ("cfg", "package", "info") if (value := getattr(self, name)) is not None
        ]
        return switches + values + self.config()

    def config(self) -> list[str]:
        """What a single job of the sweep needs of them."""
        return ["--config-dir", self.config_dir] if self.config_dir else []


def single(todo: Plan, flags: Flags) -> int:
    """One run: 0 when it is ok, 1 when it failed. It runs as `plan` composed it, while that composer is open."""
    records: list[Record] = []
    mistakes: list[UnipetError] = []

    def job(_: Any) -> None:
        try:
            done = jobs.train(todo.config)
        except UnipetError as error:  # Hydra would announce it in its own words
            mistakes.append(error)
            return
        records.append(done.record)
        print(closing.summary(done.record, done.directory))

    with translate(todo.overrides), own_files(flags.config_dir):
        run_composed(job, todo.composed)
    if mistakes:
        raise mistakes[0]
    return 0 if records and records[0].status != "failed" else 1


def sweep(todo: Plan, flags: Flags) -> int:
    """Every job, then the comparison on the terminal and in the sweep's directory; 1 when a job failed."""
    directory, total, swept = todo.sweep_dir, todo.jobs, todo.swept
    assert directory is not None
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnipetError(f"{directory}: cannot be written ({error.strerror or error}). Set runs_dir=DIR.") from None

    def job(composed: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        state = HydraConfig.get()
        overrides = list(state.overrides.task)
        jobs.progress(state.job.num, total, overrides, swept)
        done = jobs.run_job(plain_values(composed), directory, state.job.num, overrides, flags.config())
        print(f"    {closing.outcome(done['record'])}", file=sys.stderr, flush=True)

    try:
        call_hydra(job, flags, todo.overrides)
    except KeyboardInterrupt:
        if any(directory.glob("jobs/*.json")):
            close(directory, total)
        raise
    return close(directory, total)


def close(directory: Path, total: int | None) -> int:
    """Write and print the comparison of the sweep in `directory`; 1 when a job failed or is missing, else 0."""
    from unipet.report.aggregate import aggregate, unscored
    from unipet.report.collect import collect_jobs
    from unipet.report.identity import distinct
    from unipet.report.table import text_table, write_comparison

    jobs = collect_jobs(directory)
    entries = distinct(jobs)
    rows, missing = aggregate(entries), unscored(jobs)
    if rows:
        write_comparison(directory, rows, missing)
        print(text_table(rows, missing))
    lost = max((total or 0) - len(jobs), 0)
    failed = sum(one.status not in ("exceeded", "skipped") for one in missing) + lost
    counts = (
        f"{len(jobs) + lost} jobs"
        + (f", {len(entries)} different runs" if len(entries) < len(jobs) else "")
        + (f", {failed} failed" if failed else "")
        + (f" ({lost} never started)" if lost else "")
    )
    print(f"\n{counts}; table and job files in {directory}")
    print(f"next: unipet report {shlex.quote(str(directory))} --html report.html")
    return 1 if failed else 0


def run_composed(task: Callable[[Any], None], composed: Any) -> None:
    """What hydra.main does with one run once it is composed: logging, callbacks, environment and directory of the job."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import configure_log, run_job
    from hydra.types import HydraContext, RunMode

    hydra = composed.hydra
    hydra.mode = RunMode.RUN
    configure_log(hydra.hydra_logging, hydra.verbose)
    callbacks = Callbacks(composed)
    callbacks.on_run_start(config=composed, config_name=ROOT)
    context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks)
    done = run_job(task, composed, "hydra.run.dir", job_subdir_key=None, hydra_context=context)
    callbacks.on_run_end(config=composed, config_name=ROOT, job_return=done)
    _ = done.return_value  # raises what the job raised


def call_hydra(task: Callable[[Any], None], flags: Flags, overrides: Sequence[str]) -> int:
    """Hand over to hydra.main with its own command line. Errors of Hydra come out as `UnipetError`."""
    import hydra

    line = [*flags.line(), *overrides]
    hydra_answers = bool(flags.help or flags.hydra_help or flags.cfg or flags.info)
    with (
        libraries.speaking(hydra_answers),
        hydra_state(),
        environment("HYDRA_FULL_ERROR", "1"),
        command_line(line),
        translate(overrides),
        own_files(flags.config_dir),
    ):
        register_schema()
        try:
            hydra.main(config_path=config_path(), config_name=ROOT, **version_base())(task)()
        except SystemExit as end:  # hydra's own --help, --info
            return int(end.code or 0)
    return 0


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """An environment variable, for the time inside."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def command_line(rest: Sequence[str]) -> Iterator[None]:
    """sys.argv, where hydra.main looks, for the time inside."""
    before = sys.argv
    sys.argv = ["unipet train", *rest]
    try:
        yield
    finally:
        sys.argv = before
