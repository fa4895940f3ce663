"""`unipet export RUN OUT --to peft`: write a run's adapter in the format of another library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.runs.record import Record


def main(argv: Sequence[str]) -> int:
    """Write the adapter to OUT in the requested format."""
    parser = Parser(
        prog="unipet export",
        description="Write a finished run's adapter as peft's adapter_config.json and adapter_model.safetensors. If peft "
        "cannot express the method, the error says why.",
        epilog=examples("export"),
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="a run's directory")
    parser.add_argument("out", metavar="OUT", type=file_path, help="a directory that does not exist yet, or is empty")
    parser.add_argument("--to", required=True, choices=("peft",), help="the format: peft")
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.cli.commands.finished_run import check_run
    from unipet.cli.commands.merge import check_out

    record = check_run(asked.run)
    check_out(asked.out)
    export_run(asked.run, record, asked.out)
    print(f"exported {asked.run} to {asked.out}")
    return 0


def export_run(run: Path, record: Record, out: Path) -> None:
    """Load base model and adapter, and export them to `out`."""
    import unipet
    from unipet.runs.base_model import load_base_model_of
    from unipet.runs.record_files import ADAPTER, run_config

    config = run_config(run, record)
    model, tokenizer = load_base_model_of(config, record)
    unipet.load(model, run / ADAPTER)
    unipet.export_peft(model, out)
    tokenizer.save_pretrained(out)
