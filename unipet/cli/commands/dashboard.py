"""`unipet dashboard DIR --dry-run|--push|--sync`: a wandb workspace and report of the runs below a directory."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError

FILE = "dashboard.json"


def main(argv: Sequence[str]) -> int:
    """Write the dashboard as JSON, or save it on wandb's server."""
    parser = Parser(
        prog="unipet dashboard",
        description="Build a wandb workspace and a wandb report of the runs below DIR: score by method with error bars, "
        "score against parameters, memory and time, design dimensions, learning curves, table. The runs themselves must be "
        "tracked with tracking=wandb (and uploaded with --sync, if they were tracked offline).",
        epilog=examples("dashboard"),
    )
    parser.add_argument("directory", metavar="DIR", type=file_path)
    parser.add_argument("--dry-run", action="store_true", help="print the JSON and write it to a file; needs no login")
    parser.add_argument(
        "--push", action="store_true", help="save workspace and report on wandb's server; needs a login"
    )
    parser.add_argument(
        "--sync", action="store_true", help="upload the runs of DIR that were tracked offline; needs a login"
    )
    parser.add_argument("--out", metavar="FILE", type=file_path, help=f"the file of --dry-run (default: DIR/{FILE})")
    parser.add_argument("--project", help="the wandb project (default: that of the tracked runs)")
    parser.add_argument("--entity", default="", help="the wandb team or user (default: your own)")
    parser.add_argument("--name", help="the name of workspace and report (default: DIR's name)")
    asked = read(parser, argv)
    if asked is None:
        return 0
    if [asked.dry_run, asked.push, asked.sync].count(True) != 1:
        raise UnipetError(
            "unipet dashboard: give one of --dry-run (JSON, no network), --push (to wandb) and --sync (runs tracked offline)."
        )
    if asked.out and not asked.dry_run:
        raise UnipetError(
            f"unipet dashboard: --out goes with --dry-run; --{'push' if asked.push else 'sync'} writes no file."
        )
    if asked.sync:
        return _sync(asked.directory, asked.project, asked.entity)
    from unipet.output.files import write_asked
    from unipet.report.collect import collect
    from unipet.report.dashboard import as_json, project_of, tracked
    from unipet.report.pushing import check_workspaces, push

    check_workspaces()
    entries = collect(asked.directory)
    project = asked.project or project_of(entries)
    name = asked.name or f"unipet {asked.directory.resolve().name}"
    if tracked(entries) < len(entries):
        print(
            f"warning: {len(entries) - tracked(entries)} of {len(entries)} runs were not tracked with wandb, so the "
            "dashboard cannot show them. Train with tracking=wandb.",
            file=sys.stderr,
        )
    if asked.push:
        for address in push(entries, name, project, asked.entity):
            print(address)
        return 0
    text = json.dumps(as_json(entries, name, project, asked.entity), indent=2, allow_nan=False) + "\n"
    path = asked.out or asked.directory / FILE
    write_asked(path, text)
    print(text, end="")
    print(f"written: {path}", file=sys.stderr)
    return 0


def _sync(directory: Path, project: str | None, entity: str) -> int:
    """Upload what was tracked offline; 1 where wandb did not take all of it."""
    from unipet.report.collect import collect
    from unipet.report.syncing import sync, waiting

    found = waiting(collect(directory), directory)
    left = sync(found.parts, project, entity) if found.parts else []
    print(
        f"uploaded: {len(found.parts) - len(left)}; before: {found.uploaded}; without a result yet: {found.unfinished}"
    )
    for part in left:
        print(f"not uploaded: {part}", file=sys.stderr)
    return 1 if left else 0
