"""`unipet evaluate RUN`: load a finished run's adapter and score it again."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.output.text_table import text_table


def main(argv: Sequence[str]) -> int:
    """Print the recorded and the recomputed score."""
    parser = Parser(
        prog="unipet evaluate",
        description="Load the base model and the adapter of a finished run, evaluate again, and print both scores.",
        epilog=examples("evaluate"),
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="a run's directory")
    parser.add_argument(
        "--experts",
        action="store_true",
        help="compare the experts of the run's mixtures: merged, apart, averaged, drawn at random; and keep it in the record",
    )
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.cli.commands.finished_run import check_run
    from unipet.runs.run import evaluate

    check_run(asked.run)
    found = evaluate(asked.run, asked.experts)
    print(f"metric     {found['metric']}\nrecorded   {found['recorded']:.6f}\nevaluated  {found['score']:.6f}")
    for name, one in found.get("evaluation_sets", {}).items():
        print(f"{name:<10} {one['score']:.6f}{' (reported)' if one.get('reported') else ''}")
    print("reproduced" if found["reproduced"] else f"differs by {found['difference']:+.6f}")
    if asked.experts:
        ways = found["mixture"]["ways"].items()
        rows = [[name.replace("_", " "), f"{way['score']:.4f}", f"{way['loss']:.4f}"] for name, way in ways]
        print(text_table(["evaluation", found["metric"], "loss"], rows))
        if "oracle_expert" in found["mixture"]["ways"]:
            print("oracle expert: the best one on these very examples, an upper bound that no selection could know")
        if found["mixture"]["barrier"] is not None:
            print(f"barrier between the first two experts: {found['mixture']['barrier']:.4f} of the loss")
    return 0
