"""`unipet push RUN OWNER/NAME`: a finished run's adapter on the hub, with a model card made from its record."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError
from unipet.output.json_reader import read_json
from unipet.runs.record import Record


def main(argv: Sequence[str]) -> int:
    """Upload the adapter's known files and the card; with --dry-run write them to a folder instead."""
    parser = Parser(
        prog="unipet push",
        description="Upload a finished run's adapter to a model repository on the hub: adapter.json, method.yaml, "
        "adapter.safetensors, a model card made from the record, and result.json where it names no place on this machine. "
        "Nothing else is uploaded.",
        epilog=examples("push"),
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="a run's directory")
    parser.add_argument("repository", metavar="OWNER/NAME", help="made if it is not there")
    parser.add_argument("--private", action="store_true", help="a repository that only its owner sees")
    parser.add_argument("--licence", "--license", metavar="ID", help="the adapter's licence, such as apache-2.0")
    parser.add_argument("--peft", action="store_true", help="export it for peft as well, and upload that beside it")
    parser.add_argument("--message", metavar="TEXT", help="of the commit (default: the run's name)")
    parser.add_argument("--dry-run", metavar="DIR", type=file_path, help="write what would be uploaded to DIR instead")
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.cli.commands.finished_run import check_run
    from unipet.cli.commands.merge import check_out
    from unipet.output.files import write_folder_atomic
    from unipet.runs.hub import check_name, upload

    check_name(asked.repository)
    check_licence(asked.licence)
    record = check_run(asked.run)
    if asked.dry_run is not None:
        check_out(asked.dry_run)
    files = files_of(asked.run, record, asked.repository, asked.licence, asked.peft)
    if asked.dry_run is not None:
        write_folder_atomic(asked.dry_run, files)
        print(f"would upload {', '.join(files)}: written to {asked.dry_run}")
        return 0
    address = upload(asked.repository, files, asked.private, asked.message or f"{record.method} on {record.task}")
    print(f"uploaded {', '.join(files)}\n{address}")
    return 0


def check_licence(licence: str | None) -> None:
    """Raise `UnipetError` unless it is a licence's identifier, as the hub writes them."""
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,60}", licence):
        raise UnipetError(
            f"--licence: {licence[:60]!r} given; allowed: an identifier in small letters, such as apache-2.0, mit, cc-by-4.0 or "
            "other."
        )


def files_of(run: Path, record: Record, repository: str, licence: str | None, peft: bool) -> dict[str, bytes]:
    """What is uploaded: path in the repository -> content. Prints what stays here, and why."""
    from unipet.report.card import ON_HUB, Card
    from unipet.report.collect import read_entries
    from unipet.report.resampling import answers
    from unipet.report.seeds_of import other_seeds
    from unipet.runs.record_files import RESULT, run_config
    from unipet.runs.shareable import CARD, adapter_files, hub_name, record_file

    config = run_config(run, record)
    base = hub_name(run, config, ON_HUB)
    files = adapter_files(run, base)
    if peft:
        files |= _exported(run, record, base)
    (entry,) = read_entries([(run, (), ())])
    metric, value = str(record.metric), float(record.score or 0.0)
    known = answers(run, metric, value, config.task.labels, config.task.bleu_tokenizer)
    card = Card(entry, config, base, other_seeds(entry), known, repository, licence, peft)
    files[CARD] = card.text().encode()
    content, why = record_file(run)
    if content is not None:
        files[RESULT] = content
    else:
        print(f"{RESULT} stays here: {why}")
    return files


def _exported(run: Path, record: Record, base: str | None) -> dict[str, bytes]:
    """The export for peft, which names the base model as the hub does, and no directory."""
    from unipet.adaptation.peft.directories import CONFIG, TENSORS
    from unipet.cli.commands.export import export_run

    with TemporaryDirectory(prefix="unipet-push-") as temporary:
        out = Path(temporary) / "peft"
        print(export_run(run, record, out))
        config = {**read_json(out / CONFIG), "base_model_name_or_path": base}
        return {CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(), TENSORS: (out / TENSORS).read_bytes()}
