"""`unipet report DIR [--csv FILE] [--across-budgets]`: one comparison from every record below a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unipet.commands.arguments import Parser, read
from unipet.commands.examples import examples


def main(argv: Sequence[str]) -> int:
    """Print the comparison. Exit code 0, also when some of the runs failed: the report itself is done."""
    parser = Parser(
        prog="unipet report",
        description="One comparison table from every result.json below DIR, or from the jobs of a sweep's directory.",
        epilog=examples("report"),
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the table, in full precision, to this file too")
    parser.add_argument(
        "--across-budgets", action="store_true", help="rank what ran on different budgets in one table, too"
    )
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.report.aggregate import aggregate, unscored
    from unipet.report.collect import collect
    from unipet.report.table import csv_table, text_table, write_text

    entries = collect(asked.directory)
    rows = aggregate(entries, asked.across_budgets)
    if asked.csv:
        write_text(asked.csv, csv_table(rows))
    print(text_table(rows, unscored(entries), across_budgets=asked.across_budgets))
    return 0
