"""`unipet merge RUN OUT [--dtype bf16] [--untie] [--partial]`: a run's method folded into a plain transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError

#: As `model.dtype` calls them; unipet.training.precision, which imports torch, says what they are.
DTYPES = ("fp32", "bf16", "fp16")


def main(argv: Sequence[str]) -> int:
    """Write the merged model and its tokenizer to OUT, completely or not at all, and say how exact it is."""
    parser = Parser(
        prog="unipet merge",
        description="Fold a finished run's method into the base model's weights, and save a plain transformers model. "
        "from_pretrained(OUT) of the task's transformers class loads it without unipet. OUT is loaded once before it counts "
        "as written, and its outputs are compared with the run's.",
        epilog=examples("merge"),
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="a run's directory")
    parser.add_argument("out", metavar="OUT", type=file_path, help="a directory that does not exist yet, or is empty")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="the number format of OUT's weights (fp32)")
    parser.add_argument(
        "--untie",
        action="store_true",
        help="give modules that share a weight (token embedding and output layer) each its own, and write "
        "tie_word_embeddings: false; needed where the method changes one of them",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="merge mixtures, fold the insertions that fold, and save the others in OUT/adapter for unipet.load",
    )
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    if asked.partial and asked.dtype != "fp32":
        raise UnipetError(
            f"unipet merge: --partial writes fp32 alone, and --dtype {asked.dtype} was given. Leave out one of them."
        )
    from unipet.cli.commands.finished_run import check_run

    record = check_run(asked.run)
    check_out(asked.out)
    from unipet.runs.merged_folder import merge_run

    made = merge_run(asked.run, record, asked.out, dtype=asked.dtype, partial=asked.partial, untie=asked.untie)
    print(f"merged {asked.run} into {asked.out}")
    print(f"outputs differ by {made.error:.1e} of their scale; rounding in {asked.dtype} is up to {made.limit:.0e}")
    if made.stored is not None:
        print(f"and by {made.stored:.1e} from those of the base model as it was stored in training")
    if made.untied:
        print(f"no longer shared: {', '.join(made.untied)}")
    return 0


def check_out(out: Path) -> None:
    """Raise `UnipetError` unless OUT is new or an empty directory: nothing is overwritten."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UnipetError(f"{out}: exists already. Give a new directory, or remove this one.")
