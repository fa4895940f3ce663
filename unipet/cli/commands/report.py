"""`unipet report DIR`: one comparison from every record below a directory, on the terminal and as files for papers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError


def main(argv: Sequence[str]) -> int:
    """Print the comparison. Exit code 0, also if some of the runs failed."""
    from unipet.report.published.asked import source_names
    from unipet.report.writers import WRITERS, Report

    parser = Parser(
        prog="unipet report",
        description="Compare every result.json below DIR, or the jobs of a sweep's directory, in one table, and test which "
        "methods differ, paired over seeds and over the examples of predictions.jsonl.",
        epilog=examples("report"),
    )
    parser.add_argument("directory", metavar="DIR", type=file_path)
    for name, (what, _) in WRITERS.items():
        parser.add_argument(f"--{name}", metavar="FILE", type=file_path, help=what)
    parser.add_argument("--figures", metavar="DIR", type=file_path, help="figures as PDF and PNG (needs matplotlib)")
    parser.add_argument(
        *("--published",),
        metavar="SOURCE[:TABLE]",
        action="append",
        default=[],
        help="published numbers beside ours in every format, with what differs in the setting; repeatable: "
        f"{', '.join(source_names())}, or a file of yours",
    )
    parser.add_argument("--metric", metavar="NAME", help="report this recorded metric instead of each task's first one")
    parser.add_argument(
        "--contrast",
        metavar='"KEY=A vs B"',
        action="append",
        default=[],
        help="test A against B over all runs that differ in this key alone, such as method.insertions.ffn.position.form, or "
        "in their methods (method=A vs B); may be given several times",
    )
    parser.add_argument(
        "--certified", action="store_true", help="rank certified runs alone, and say what is missing of the others"
    )
    parser.add_argument("--serve", action="store_true", help="show the live page on this machine while a sweep runs")
    parser.add_argument(
        "--port", metavar="N", type=int, help="the port of --serve; 0 chooses a free one (default: 8765)"
    )
    parser.add_argument(
        "--anyway", action="store_true", help="rank across budgets, data and selection; the differences stay named"
    )
    asked = read(parser, argv)
    if asked is None:
        return 0
    if asked.port is not None and not asked.serve:
        raise UnipetError("--port: only the live page uses a port. Add --serve.")
    if asked.serve:
        from unipet.report.page.serve import PORT, serve

        others = [
            name
            for name in (*WRITERS, "figures", "published", "contrast", "metric", "certified", "anyway")
            if getattr(asked, name)
        ]
        if others:
            raise UnipetError(
                f"--serve writes no file: leave out --{others[0]}, or write the file with a second command."
            )
        return serve(asked.directory, PORT if asked.port is None else asked.port)
    from unipet.output.files import write_asked
    from unipet.report.aggregate import aggregate, unscored
    from unipet.report.average_rows import averages_text
    from unipet.report.averages import averages
    from unipet.report.cases import study
    from unipet.report.certified import only_certified
    from unipet.report.collect import collect, trials
    from unipet.report.comparing import compare
    from unipet.report.contrasts import contrasts, parsed
    from unipet.report.effect_rows import contrasts_text, effects, effects_text
    from unipet.report.figures import check_figures, write_figures
    from unipet.report.other_metric import by_metric
    from unipet.report.published.asked import read_published
    from unipet.report.published.beside import beside, published_text
    from unipet.report.study_figures import study_figures
    from unipet.report.table import text_table
    from unipet.report.tuning import curves, curves_text
    from unipet.report.verdicts import verdicts_text

    paths = [path for name in WRITERS if (path := getattr(asked, name))]
    if len(set(paths)) < len(paths):
        raise UnipetError("unipet report: two files have the same name. Give each file its own name.")
    if asked.figures:
        check_figures()
    for contrast in asked.contrast:
        parsed(contrast)
    published = read_published(asked.published)
    entries, left_out = collect(asked.directory), list[str]()
    if asked.metric:
        entries = by_metric(entries, asked.metric)
    if asked.certified:
        entries, left_out = only_certified(entries)
    told = beside(published, entries) if published else []
    rows = aggregate(entries, asked.anyway)
    tuning = curves(trials(asked.directory))
    groups = compare(entries, asked.anyway)
    known = study(groups, asked.anyway)
    report = Report(
        *(entries, rows, unscored(entries), groups, told, tuning),
        effects=effects(known),
        contrasts=contrasts(asked.contrast, known),
        averages=averages(groups),
    )
    texts = {path: make(report) for name, (_, make) in WRITERS.items() if (path := getattr(asked, name))}
    for path, text in texts.items():
        write_asked(path, text)
    if asked.figures:
        more = partial(study_figures, report.effects, report.contrasts, report.averages)
        write_figures(asked.figures, report.groups, tuning, more)
    print(text_table(report.rows, report.missing, across_budgets=asked.anyway))
    if left_out:
        print("\n".join(["", "left out, not certified:", *(f"    {line}" for line in left_out)]))
    print(f"\n{verdicts_text(report.groups)}")
    for text in (
        effects_text(report.effects) if report.effects else "",
        contrasts_text(report.contrasts) if report.contrasts else "",
        averages_text(report.averages),
    ):
        if text:
            print(f"\n{text}")
    if tuning:
        print(f"\n{curves_text(tuning)}")
    if told:
        print(f"\n{published_text(told)}")
    return 0
