"""`unipet import-results DIR --from peft`: results of another project as runs that reports read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples


def main(argv: Sequence[str]) -> int:
    """Write a run for every result below DIR."""
    parser = Parser(
        prog="unipet import-results",
        description="Read the results that another project left in DIR as runs of their own, for `unipet report`. Each is marked "
        "as imported, its method's name begins with the project's, and its data are not those of a run of yours: it is never "
        "ranked with one.",
        epilog=examples("import-results"),
    )
    parser.add_argument("directory", metavar="DIR", type=file_path, help="a folder with results, and folders in it")
    parser.add_argument("--from", dest="name", required=True, choices=("peft",), help="whose: peft's method_comparison")
    parser.add_argument("--to", metavar="OUT", type=file_path, default=Path("imported"), help="default: imported/NAME")
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.runs.importing_results import import_results

    out = asked.to / asked.name
    made = import_results(asked.directory, asked.name, out)
    failed = f", {made.failed} of them failed there" if made.failed else ""
    others = f"; {made.others} other JSON files were passed over" if made.others else ""
    print(f"imported {len(made.runs)} runs to {out}{failed}{others}\nunipet report {out}")
    return 0
