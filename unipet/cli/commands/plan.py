"""`unipet plan [-m] KEY=VALUE ...`: forecast the sizes, memory and time of a run or a sweep without running it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

from unipet.cli.commands.arguments import Parser, home, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError
from unipet.output.terminal import print_json


def main(argv: Sequence[str]) -> int:
    """Print one row per job and the totals. Exit code 1 if a job would fail."""
    began = time.perf_counter()
    parser = Parser(
        prog="unipet plan",
        description="For a command line of `unipet train`: every job's fitted sizes, micro-batch, memory, operations and time, "
        "the jobs that will be skipped and why, and the totals. A few batches of each kind of job are timed on this machine, "
        "once. Nothing is written except these measurements and the predicted times, below runs_dir/.cache.",
        epilog=examples("plan"),
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for `unipet train`")
    parser.add_argument("-m", "--multirun", action="store_true", help="a job for every combination of comma lists")
    parser.add_argument("--total", metavar="HOURS", help="the available device-hours, compared with the total")
    parser.add_argument("--fresh", action="store_true", help="repeat earlier measurements")
    parser.add_argument("--json", action="store_true", help="print JSON alone on stdout")
    parser.add_argument("-cd", "--config-dir", type=home, metavar="DIR", help="a directory with your own groups")
    asked = read(parser, argv)
    if asked is None:
        return 0
    given = None if asked.total is None else _hours(asked.total)
    from unipet.compose.composer import composer
    from unipet.compose.expand import sweep_jobs
    from unipet.compose.overrides import plan
    from unipet.sweeps.job_files import written
    from unipet.sweeps.planned import keep
    from unipet.sweeps.search.beginning import planned
    from unipet.sweeps.search.checks import check_search, searches

    with composer(asked.config_dir) as composing:
        todo = plan(asked.overrides, asked.multirun, composing, command="plan")
        check_search(todo)
        if todo.config.launcher.name == "packed":
            raise UnipetError(
                "unipet plan: launcher=packed: a forecast is of jobs that train alone. What a pack of them needs is measured "
                "on its first batch, when it begins, and its memory is that of all its jobs together. Plan with "
                "launcher=local: packing that takes longer is not done, so without launcher.pack its hours are about "
                "the most."
            )
        jobs = list(planned(todo, composing) if searches(todo.config) else sweep_jobs(todo, composing))
    composed = sum(job.compose_s for job in jobs)
    from unipet.runs.forecast import measuring  # noqa: F401  # as a run imports it, so that the time of imports counts
    from unipet.runs.forecast.forecaster import Forecaster, on_cuda
    from unipet.runs.forecast.measurement_cache import MeasurementCache
    from unipet.runs.forecast.sweep_table import Forecast
    from unipet.runs.tracking import check_tracking
    from unipet.runs.versions import versions
    from unipet.tasks import cache_directory

    check_tracking(todo.config.tracking)
    start_s = time.perf_counter() - began - composed
    current = [""]

    def say(work: str) -> None:
        print(f"[{' '.join(current)}] measuring {work}", file=sys.stderr, flush=True)

    forecaster = Forecaster(MeasurementCache(cache_directory(todo.config.runs_dir), asked.fresh), say)
    made = []
    for job in jobs:
        current[:] = [f"{job.number + 1}/{len(jobs)}", *job.differing]
        if job.config is None:
            made.append(forecaster.mistaken(job.number, job.differing, job.mistake or ""))
            continue
        made.append(forecaster.forecast(job.number, job.differing, job.config, job.compose_s))
    if todo.multirun and not searches(todo.config):
        keep(todo.config.runs_dir, list(map(written, jobs)), todo.swept, {each.job: each.total_s for each in made})
    if not todo.multirun and made[0].status == "fails":
        raise UnipetError(str(made[0].reason))
    seen = forecaster.kinds.values()
    fresh, loads = sum(now for now, _ in seen), [each for _, each in seen if each is not None]
    load = sum(loads) / len(loads) if loads else None
    measured = {"now": fresh, "before": len(seen) - fresh, "seconds": forecaster.measuring_s, "load": load}
    found = Forecast(made, start_s, given, versions().machine.to_dict(), measured, on_cuda())
    if asked.json:
        print_json(found.to_dict())
    else:
        print(found.text())
    return 1 if any(job.status == "fails" for job in made) else 0


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not (math.isfinite(hours) and hours > 0):
        raise UnipetError(f"unipet plan: --total {text}: not a number of hours. Give a finite number greater than 0.")
    return hours
