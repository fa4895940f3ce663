"""`unipet merge RUN OUT [--partial]`: fold a run's method into a plain transformers checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError
from unipet.runs.record import Record


def main(argv: Sequence[str]) -> int:
    """Write the merged model and its tokenizer to OUT, completely or not at all."""
    parser = Parser(
        prog="unipet merge",
        description="Fold a finished run's method into the base model's weights, and save a plain transformers model. "
        "from_pretrained(OUT) of the task's transformers class loads it without unipet.",
        epilog=examples("merge"),
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="a run's directory")
    parser.add_argument("out", metavar="OUT", type=file_path, help="a directory that does not exist yet, or is empty")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="merge mixtures, fold the insertions that fold, and save the others in OUT/adapter for unipet.load",
    )
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.cli.commands.finished_run import check_run

    record = check_run(asked.run)
    check_out(asked.out)
    merge_run(asked.run, record, asked.out, asked.partial)
    print(f"merged {asked.run} into {asked.out}")
    return 0


def check_out(out: Path) -> None:
    """Raise `UnipetError` unless OUT is new or an empty directory: nothing is overwritten."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UnipetError(f"{out}: exists already. Give a new directory, or remove this one.")


def merge_run(run: Path, record: Record, out: Path, partial: bool) -> None:
    """Load base model and adapter, merge them, and save the result to `out`, in float32: half precision or 8 bits would
    round what was learned away. A base model that was quantised is merged as what it was in training."""
    import unipet
    from unipet.adaptation.dequantising import dequantise
    from unipet.runs.base_model import load_base_model_of
    from unipet.runs.record_files import ADAPTER, run_config

    config = run_config(run, record)
    model, tokenizer = load_base_model_of(config, record)
    unipet.load(model, run / ADAPTER)
    if config.model.quantization is not None:
        dequantise(model)
    model.float()
    unipet.merge(model, partial=partial)
    save(model, tokenizer, out)


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Save model, tokenizer and remaining insertions in a temporary directory beside `out`, and rename it to `out`."""
    import unipet
    from unipet.adaptation.adapted import CONTAINER
    from unipet.runs.record_files import ADAPTER

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UnipetError(f"{out}: cannot be written ({error.strerror or error}). Choose another place.") from None
    try:
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{CONTAINER}.")}
        model.save_pretrained(temporary, state_dict=weights)
        if hasattr(model, CONTAINER):  # insertions that do not fold stay a method
            unipet.save(model, temporary / ADAPTER)
        tokenizer.save_pretrained(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, out)  # an empty OUT is replaced
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
