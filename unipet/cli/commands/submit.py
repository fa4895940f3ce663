"""`unipet submit RUN`: predict the hidden test sets of a run's task, and write one TSV file for each, as GLUE requires."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples


def main(argv: Sequence[str]) -> int:
    """Write the files and print their paths."""
    parser = Parser(
        prog="unipet submit",
        description="Load a finished run's adapter, predict every split of task.submission, and write NAME.tsv with the "
        "columns index and prediction.",
        epilog=examples("submit"),
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="a run's directory")
    parser.add_argument("--out", metavar="DIR", type=file_path, help="where to write (default: RUN/submission)")
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.cli.commands.finished_run import check_run
    from unipet.runs.submission import submit

    check_run(asked.run)
    for path in submit(asked.run, asked.out or asked.run / "submission"):
        print(path)
    return 0
