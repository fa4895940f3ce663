"""`unipet sweep status|resume|cancel DIR`: a sweep after its command was given, from any process that sees its directory."""

from __future__ import annotations

import time
from collections.abc import Sequence

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.output.terminal import print_json

WATCH_S = 5.0  # between two pictures of `--watch`


def main(argv: Sequence[str]) -> int:
    """`status`: 0 when nothing failed, else 1. `resume`: as the sweep itself. `cancel`: 0."""
    parser = Parser(
        prog="unipet sweep",
        description="status: how far a sweep is, what failed and why, and the command that repeats it. resume: run the jobs "
        "that have no result yet, each from its last checkpoint. cancel: let workers take no further job; those on "
        "this machine write a checkpoint and end.",
        epilog=examples("sweep"),
    )
    parser.add_argument("action", choices=("status", "resume", "cancel"))
    parser.add_argument("sweep", metavar="DIR", type=file_path, help="the sweep's directory, below <runs_dir>/sweeps")
    parser.add_argument(
        "--watch", action="store_true", help="status: show it again every few seconds until all is done"
    )
    parser.add_argument("--json", action="store_true", help="status: print JSON alone on stdout")
    asked = read(parser, argv)
    if asked is None:
        return 0
    if asked.action != "status" and (asked.watch or asked.json):
        parser.error("--watch and --json go with status")
    if asked.action == "resume":
        from unipet.sweeps.launch import resume

        return resume(asked.sweep)
    from unipet.sweeps.directory import read_sweep
    from unipet.sweeps.status import cancel, status

    sweep = read_sweep(asked.sweep)
    if asked.action == "cancel":
        print(cancel(sweep))
        return 0
    now = status(sweep)
    while asked.watch and not now.over:
        print(now.text(), flush=True)
        time.sleep(WATCH_S)
        now = status(sweep)
    if asked.json:
        print_json(now.to_dict())
    else:
        print(now.text())
    return 1 if now.failed else 0
