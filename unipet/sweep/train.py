"""`unipet train`: one run, or with -m a sweep that closes with a comparison table. Hydra composes, `unipet.run` trains."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from unipet.commands.arguments import Parser
from unipet.errors import UnipetError
from unipet.sweep import jobs
from unipet.sweep.composer import ROOT, check_config_dir, composer, config_path, hydra_state, register_schema, version_base
from unipet.sweep.mistakes import translate
from unipet.sweep.overrides import Plan, parse, plan

SWEEP_ID = "UNIPET_SWEEP"  # read by conf/config.yaml for hydra.sweep.dir


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The flags of `unipet train`; everything else is an override, before or after them."""
    parser = Parser(prog="unipet train", add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> int:
    """Exit code 0 when every run is ok, 1 when one failed."""
    asked = arguments(argv)
    if asked.help or asked.hydra_help or asked.info:
        if asked.config_dir:
            check_config_dir(asked.config_dir)
        return call_hydra(lambda composed: None, asked, [])
    with environment(SWEEP_ID, f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"):
        with composer(asked.config_dir) as composing:
            if asked.cfg:
                texts = [parse(text, composing).text for text in asked.overrides]
                todo = None
            else:
                todo = plan(asked.overrides, asked.multirun, composing)
                texts = todo.overrides
        if todo is None:
            return call_hydra(lambda composed: None, asked, texts)
        check_before_start(todo)
        return sweep(todo, asked) if todo.multirun else single(todo, asked)


def check_before_start(todo: Plan) -> None:
    """What can be known to fail before the first example is read. Raises `UnipetError`."""
    from unipet.tracking import check_tracking

    check_tracking(todo.config.tracking)
    if todo.sweep_dir is None:
        return  # a single run's own preparation finds the rest, and writes nothing before
    root = todo.sweep_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnipetError(f"{root}: cannot be written ({error.strerror or error}). Set runs_dir=DIR.") from None


def single(todo: Plan, asked: argparse.Namespace) -> int:
    """One run."""
    from unipet.sweep.composer import Composer

    records: list[Mapping[str, Any]] = []

    def job(composed: Any) -> None:
        config = jobs.strict.run_config(Composer(None).values(composed))
        record = jobs.train(config)
        records.append(record)
        print(jobs.summary(record, config))

    call_hydra(job, asked, todo.overrides)
    return 0 if records and records[0].get("status") != "failed" else 1


def sweep(todo: Plan, asked: argparse.Namespace) -> int:
    """Every job, then the comparison on the terminal and in the sweep's directory."""
    directory, total, swept = todo.sweep_dir, todo.jobs, todo.swept
    assert directory is not None

    def job(composed: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        from unipet.sweep.composer import Composer

        state = HydraConfig.get()
        overrides = list(state.overrides.task)
        jobs.progress(state.job.num, total, overrides, swept)
        done = jobs.run_job(Composer(None).values(composed), directory, state.job.num, overrides)
        print(f"    {jobs.outcome(done['record'])}", file=sys.stderr, flush=True)

    try:
        call_hydra(job, asked, todo.overrides)
    except KeyboardInterrupt:
        if any(directory.glob("jobs/*.json")):
            close(directory, total)
        raise
    return close(directory, total)


def close(directory: Path, total: int | None) -> int:
    """Write and print the comparison of the sweep in `directory`; 1 when a job failed or is missing, else 0."""
    from unipet.report.aggregate import aggregate, unscored
    from unipet.report.collect import collect_sweep
    from unipet.report.table import text_table, write_comparison

    entries = collect_sweep(directory)
    rows, missing = aggregate(entries), unscored(entries)
    if rows:
        write_comparison(directory, rows, missing)
        print(text_table(rows, missing))
    lost = (total or len(entries)) - len(entries)
    failed = sum(one.status not in ("exceeded", "skipped") for one in missing) + lost
    print(f"\n{len(entries)} jobs" + (f", {failed} failed" if failed else "") + (f" ({lost} never started)" if lost else ""), end="")
    print(f"; table and job files in {directory}")
    return 1 if failed else 0


def call_hydra(task: Callable[[Any], None], asked: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Hand over to hydra.main with its own command line rebuilt from ours. Errors of Hydra come out as `UnipetError`."""
    import hydra

    flags = [flag for flag in ("multirun", "help", "hydra_help", "resolve") if getattr(asked, flag)]
    line = [f"--{flag.replace('_', '-')}" for flag in flags]
    line += [f"--{name}={value}" for name in ("cfg", "package", "info") if (value := getattr(asked, name)) is not None]
    line += ["--config-dir", asked.config_dir] if asked.config_dir else []
    with hydra_state(), environment("HYDRA_FULL_ERROR", "1"), command_line([*line, *overrides]), translate(overrides):
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
