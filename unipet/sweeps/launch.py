"""Run what a command line asks for: one run as it was composed, or a sweep, closed with its comparison table."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from unipet.compose.composer import Composer
from unipet.compose.expand import sweep_jobs
from unipet.compose.hydra_errors import translate
from unipet.compose.overrides import Plan
from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.runs.sweep_files import RUNNING
from unipet.runs.tracked_summary import own_files
from unipet.sweeps import closing, jobs
from unipet.sweeps.claims import living
from unipet.sweeps.contents import changed_since, done_anew, in_words, mixed
from unipet.sweeps.directory import Sweep, read_sweep, renew, reopen, sweep_name, take_back, write_sweep
from unipet.sweeps.hydra_job import HydraJob, check_objective
from unipet.sweeps.hydra_main import Flags, call_hydra, environment, run_composed
from unipet.sweeps.job_files import Job, written
from unipet.sweeps.launchers import check_launcher, launch
from unipet.sweeps.moved import found_again
from unipet.sweeps.search.advancing import decided_jobs, forget_stages, unfinished
from unipet.sweeps.search.beginning import begin
from unipet.sweeps.search.checks import check_search, searches
from unipet.sweeps.search.summary import search_summary
from unipet.sweeps.stopping import go_on, stopped

SWEEP_ID = "UNIPET_SWEEP"  # read by conf/config.yaml for hydra.sweep.dir


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


def sweep(todo: Plan, flags: Flags, texts: Sequence[str], composer: Composer) -> int:
    """Every job that has no result yet, then the comparison; 1 when a job failed. `texts` are the overrides as typed."""
    check_launcher(todo.config.launcher)
    check_search(todo)
    if todo.launcher != "basic" or todo.jobs is None:
        return _hydra_sweep(todo, flags)
    return go(begun(todo, flags, texts, composer))


def begun(todo: Plan, flags: Flags, texts: Sequence[str], composer: Composer) -> Sweep:
    """The sweep's directory, with every job resolved and written, and those open again that have no result."""
    search = begin(todo, composer) if searches(todo.config) else None
    content = [written(each) for each in sweep_jobs(todo, composer)] if search is None else search.jobs
    own = secrets.token_hex(8) if todo.config.rerun else ""
    named = [*search.trials.values()] if search is not None else content
    name = sweep_name(named, todo.swept, own + (repr(search.search.content()) if search is not None else ""))
    with environment(SWEEP_ID, name):
        directory = Path(str(composer.compose([each.first for each in todo.parsed]).hydra.sweep.dir))
    asked = Sweep(
        directory=directory,
        command=["-m", *texts, *flags.config()],
        flags=flags.config(),
        swept=todo.swept,
        jobs=len(content),
        folder=Path.cwd(),
        launcher=todo.config.launcher,
        name=name,
        search=todo.config.search.name,
        runs=os.path.relpath(todo.config.runs_dir, directory),
    )
    further, events = ({}, []) if search is None else (search.files(), search.events(asked.flags))
    if not write_sweep(asked, content, _versions(), further, events):
        _begin_again(asked, content)
    return asked


def _begin_again(asked: Sweep, content: Sequence[Job]) -> None:
    """Open a sweep again that was begun before. Raises `UnipetError` where its directory holds another one."""
    directory = asked.directory
    if read_sweep(directory).name != asked.name:
        raise UnipetError(
            f"hydra.sweep.dir={directory}: the directory of another sweep, whose jobs are not those of this command. "
            f"Choose another directory, or do what is missing in that one: unipet sweep resume {shlex.quote(str(directory))}"
        )
    print(f"the same sweep was begun before; finished runs are not repeated: {directory}", file=sys.stderr)
    at_work = living(directory)
    reopen(directory, results_too=not at_work)
    if not at_work:
        forget_stages(directory)
        renew(asked, content, _versions())


def _versions() -> dict[str, str]:
    """The versions that `sweep.yaml` names. Each record has those of its run."""
    from importlib import metadata

    import unipet

    names = {"torch": "torch", "transformers": "transformers", "hydra": "hydra-core"}
    return {"unipet": unipet.__version__, **{name: metadata.version(package) for name, package in names.items()}}


def resume(directory: Path) -> int:
    """Do what is missing in the sweep of `directory`, as its command said."""
    todo = found_again(read_sweep(directory), _versions())
    decided = decided_jobs(directory)
    reopen(directory, results_too=False, decided=decided)
    if unfinished(todo) and not living(directory):
        _take_back_changed(todo, decided)
    return go(todo)


def _take_back_changed(todo: Sweep, decided: Container[int]) -> None:
    """Let jobs run again whose result was made of other data, base model or functions than there are now. Raises `UnipetError`
    where a search has gone on from one of them."""
    changed = changed_since(todo)
    if not changed:
        return
    what = in_words([part for parts in changed.values() for part in parts])
    if any(job in decided for job in changed):
        again = shlex.join(["unipet", "train", *todo.command])
        raise UnipetError(
            f"{todo.directory}: {what} changed since, and this search has gone on from results with what was there before. "
            f"Give its command again, which decides anew: {again}"
        )
    take_back(todo.directory, changed)
    jobs = "1 job has" if len(changed) == 1 else f"{len(changed)} jobs have"
    print(f"{what} changed since {jobs} ended; they are run again, the earlier runs are kept", file=sys.stderr)


def go(todo: Sweep) -> int:
    """Run the jobs without an outcome, and close the sweep; 1 when a job failed or is missing. 0 where others run them later."""
    go_on(todo.directory)
    try:
        if unfinished(todo) and (how_to_follow := launch(todo)) is not None:
            print(how_to_follow)
            return 0
    except KeyboardInterrupt:
        close(todo.directory, todo.total)
        print(f"to go on: unipet sweep resume {shlex.quote(str(todo.directory))}", file=sys.stderr)
        raise
    if (why := stopped(todo.directory)) is not None:
        print(f"stopped: {why}", file=sys.stderr)
    return close(todo.directory, todo.total)


def _hydra_sweep(todo: Plan, flags: Flags) -> int:
    """A sweep whose jobs Hydra starts: by a launcher or a sweeper of Hydra's own."""
    directory, total = todo.sweep_dir, todo.jobs
    assert directory is not None
    if total is None:
        check_objective(todo)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnipetError(f"{directory}: cannot be written ({error.strerror or error}). Set runs_dir=DIR.") from None

    each = HydraJob(directory.absolute(), flags.config(), list(todo.swept), total)

    def job(composed: Any) -> float:
        return each(composed)

    try:
        call_hydra(job, flags, todo.overrides)
    except KeyboardInterrupt:
        if any(directory.glob("jobs/*.json")):
            close(directory, total)
        print("to go on, give the command again: finished runs are not repeated, the others resume", file=sys.stderr)
        raise
    return close(directory, total)


def close(directory: Path, total: int | None) -> int:
    """Write and print the comparison of the sweep in `directory`; 1 when a job failed or is missing, else 0."""
    from unipet.report.aggregate import aggregate, unscored
    from unipet.report.collect import collect_jobs, reported
    from unipet.report.identity import distinct
    from unipet.report.table import text_table, write_comparison

    every = collect_jobs(directory)
    jobs = reported(every)
    entries = distinct(jobs)
    search = search_summary(directory)
    rows, missing = aggregate(entries), unscored(jobs)
    if search is not None:
        print(search.text())
    if rows:
        write_comparison(directory, rows, missing)
        print(text_table(rows, missing))
    unended = {"interrupted": "interrupted", RUNNING: "unfinished"}  # by another process, or by one that was killed
    ends = Counter(unended.get(run.status, "failed") for run in missing if run.status not in ("exceeded", "skipped"))
    ends["never started"] = max((total or 0) - len(every), 0)
    counts = f"{len(jobs) + ends['never started']} jobs"
    if search is not None:
        ends["without a choice"] = len(search.undecided)
        counts = f"{len(every) - len(jobs)} trials and {len(jobs) + ends['never started']} other jobs"
    counts += f", {len(entries)} different runs" if len(entries) < len(jobs) else ""
    counts += "".join(f", {count} {end}" for end, count in ends.items() if count)
    print(f"\n{counts}; table and job files in {directory}")
    for sentence in done_anew(directory):
        print(sentence)
    if unlike := mixed(every):
        print(
            f"not comparable: {in_words(unlike)} changed while the sweep was on its way. The sweep's command once more does "
            "the jobs anew that were run before that."
        )
        ends["mixed"] = 1
    print(f"next: unipet report {shlex.quote(str(directory))} --html report.html")
    return 1 if ends.total() else 0
