"""`unipet export RUN OUT --to peft|vllm`: write a run's adapter in the format of another library."""

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
        "cannot express the method, the error says why. Where peft is installed, it loads what was written and its outputs are "
        "compared before OUT is there. --to vllm writes what vLLM documents: low-rank maps of one rank, their scale inside.",
        epilog=examples("export"),
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="a run's directory")
    parser.add_argument("out", metavar="OUT", type=file_path, help="a directory that does not exist yet, or is empty")
    parser.add_argument("--to", required=True, choices=("peft", "vllm"), help="the format")
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.cli.commands.finished_run import check_run
    from unipet.cli.commands.merge import check_out

    record = check_run(asked.run)
    check_out(asked.out)
    said = export_run(asked.run, record, asked.out, asked.to)
    print(f"exported {asked.run} to {asked.out}\n{said}")
    return 0


def export_run(run: Path, record: Record, out: Path, layout: str = "peft") -> str:
    """Load base model and adapter, export them to `out`, and say in a line how that compares with peft."""
    import unipet
    from unipet.adaptation.peft.directories import exported
    from unipet.runs.base_model import load_base_model_of
    from unipet.runs.record_files import ADAPTER, run_config

    config = run_config(run, record)
    model, tokenizer = load_base_model_of(config, record)
    unipet.load(model, run / ADAPTER)
    return exported(model, out, layout, tokenizer).words
