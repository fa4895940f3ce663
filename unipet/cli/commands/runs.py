"""`unipet runs`: the runs of a directory, filtered; what differs between two; as CSV or JSON; deleted safely."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unipet.cli.commands.arguments import Parser, file_path, home, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError
from unipet.output.terminal import print_json

if TYPE_CHECKING:
    from unipet.runs.record_index import KnownRun

HEADS = ("run", "status", "method", "task", "model", "budget", "seed", "score", "metric", "finished")
LONGEST = 48  # characters of a value that --diff shows


def main(argv: Sequence[str]) -> int:
    """0, or with --delete 1 where a run was kept."""
    parser = Parser(
        prog="unipet runs",
        description="List the runs below runs_dir (default: runs), the last to finish at the end. FILTER is KEY=VALUE, or with "
        "!= > >= < <=, on any key of result.json or config.yaml: status, score, time.train_s, optim.lr, ... A value may be "
        "several with commas, and a pattern with * and ?. `run` is the name of a run's directory. All filters must hold.",
        epilog=examples("runs"),
    )
    parser.add_argument("filters", metavar="runs_dir=DIR | FILTER", nargs="*")
    parser.add_argument(
        "--diff", nargs=2, metavar="RUN", help="show what differs between two runs: paths, or names below runs_dir"
    )
    parser.add_argument(
        "--csv", metavar="FILE", type=file_path, help="write one line per run, with every cost and swept key"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone on stdout")
    parser.add_argument("--delete", action="store_true", help="delete the runs that the filters leave, after asking")
    parser.add_argument("--yes", action="store_true", help="with --delete: do not ask")
    asked = read(parser, argv)
    if asked is None:
        return 0
    root, filters = _split(asked.filters)
    _check(asked, filters)
    from unipet.runs.deleting import find_run
    from unipet.runs.record_files import record_files
    from unipet.runs.record_index import read_runs
    from unipet.runs.run_columns import csv_of, rows_of
    from unipet.runs.run_filters import filtered, read_filters

    if asked.diff:
        first, second = read_runs([find_run(root, name) for name in asked.diff])
        return _diff(first, second, asked.json)
    if not root.is_dir():
        raise UnipetError(f"{root}: no such directory. Give that of your runs: unipet runs runs_dir=DIR.")
    broken: list[UnipetError] = []
    conditions = read_filters(filters)
    every = read_runs([path.parent for path in record_files(root)], lambda _, error: broken.append(error))
    runs = sorted(
        filtered(every, conditions),
        key=lambda run: (run.record.finished or run.record.started or "", run.directory.name),
    )
    if asked.csv or asked.json:
        rows = rows_of(runs)
    if asked.csv:
        from unipet.output.files import write_asked

        write_asked(asked.csv, csv_of(rows))
    if asked.json:
        print_json(rows)
    else:
        print(_table(runs, root, len(every)))
    for error in broken:
        print(f"warning: {error}", file=sys.stderr)
    return _delete(runs, root, asked.yes) if asked.delete else 0


def _split(texts: Sequence[str]) -> tuple[Path, list[str]]:
    """The directory of the runs, and the filters."""
    from unipet.config import RunConfig

    places = [text.removeprefix("runs_dir=") for text in texts if text.startswith("runs_dir=")]
    filters = [text for text in texts if not text.startswith("runs_dir=")]
    return Path(home(places[-1] if places else RunConfig.runs_dir)), filters


def _check(asked: argparse.Namespace, filters: Sequence[str]) -> None:
    if asked.yes and not asked.delete:
        raise UnipetError("--yes: it answers what --delete asks. Add --delete, or leave it out.")
    if asked.diff and (filters or asked.csv or asked.delete):
        raise UnipetError("--diff takes two runs by name: leave out filters, --csv and --delete.")
    if asked.delete and asked.json:
        raise UnipetError("--delete lists what it deletes: leave out --json.")


def _table(runs: Sequence[KnownRun], root: Path, total: int) -> str:
    from unipet.output.text_table import text_table

    rows = []
    for run in runs:
        record = run.record
        score = "-" if record.score is None else f"{record.score:.4f}"
        names = [record.status, record.method, record.task, record.model, record.budget, record.seed]
        name = run.directory.relative_to(root).as_posix() if run.directory != root else "."
        finished = (record.finished or "-")[:19].replace("T", " ")
        rows.append(
            [name, *("-" if each is None else str(each) for each in names), score, record.metric or "-", finished]
        )
    states = Counter(run.record.status for run in runs)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(states.items()))
    said = f"{len(runs)} of {total} runs" if len(runs) < total else f"{total} run{'s' * (total != 1)}"
    summary = f"{said} in {root}" + (f": {counts}" if counts else "")
    return f"{text_table(HEADS, rows)}\n\n{summary}" if rows else summary


def _diff(first: KnownRun, second: KnownRun, as_json: bool) -> int:
    from unipet.output.text_table import text_table
    from unipet.runs.labels import plain
    from unipet.runs.run_columns import differences

    differing = differences(first, second)
    if as_json:
        print_json({key: [one, other] for key, one, other in differing})
    elif differing:
        heads = ("key", first.directory.name, second.directory.name)
        texts = [(key, plain(one), plain(other)) for key, one, other in differing]
        print(text_table(heads, [(key, _cut(one), _cut(other)) for key, one, other in texts]))
        if any(max(map(len, values)) > LONGEST for _, *values in texts):
            print("\nlong values are cut; --json shows them whole")
    else:
        print("these two runs differ in nothing")
    return 0


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _delete(runs: Sequence[KnownRun], root: Path, yes: bool) -> int:
    from unipet.runs.deleting import delete_run, size_of

    if not runs:
        print("nothing to delete")
        return 0
    mib = sum(size_of(run.directory) for run in runs) / 2**20
    question = f"delete {len(runs)} run{'s' * (len(runs) > 1)}, {mib:.1f} MiB, and all that is in their directories?"
    if not yes:
        if not sys.stdin.isatty():
            raise UnipetError(f"--delete: {question} There is no terminal to ask on. Add --yes.")
        print(f"{question} [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 0
    chosen = [run.directory for run in runs]
    kept = [(directory, why) for directory in chosen if (why := delete_run(directory, root, chosen)) is not None]
    print(f"deleted: {len(runs) - len(kept)}")
    for directory, why in kept:
        print(f"kept: {directory}: {why}", file=sys.stderr)
    return 1 if kept else 0
