"""`unipet verify RUN|ADAPTER [--deep]`: make the certificate of a run, or of a saved adapter, again from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError
from unipet.output.text_table import text_table

if TYPE_CHECKING:
    from unipet.adaptation.certificate import Certificate


def main(argv: Sequence[str]) -> int:
    """Print every check. Exit code 1 if one failed."""
    parser = Parser(
        prog="unipet verify",
        description="Load the base model and the adapter afresh, and check again what the certificate says. For a run, the new "
        "certificate is written into its record; for an adapter apart from its run, into the adapter.",
        epilog=examples("verify"),
    )
    parser.add_argument(
        "place", metavar="RUN|ADAPTER", type=file_path, help="a run's directory, or that of a saved adapter"
    )
    parser.add_argument(
        "--deep", action="store_true", help="a run: repeat the whole evaluation, and merge in every number format"
    )
    parser.add_argument(
        "--model", metavar="DIR", type=file_path, help="the base model of an adapter apart from its run, as a directory"
    )
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    certificate = _verified(asked.place, asked.deep, asked.model)
    print(text_of(certificate))
    return 1 if certificate.failed else 0


def _verified(place: Path, deep: bool, model: Path | None) -> Certificate:
    from unipet.adaptation.description import DESCRIPTION
    from unipet.cli.commands.finished_run import check_run
    from unipet.runs.record_files import RESULT
    from unipet.runs.verify import verify
    from unipet.runs.verify_adapter import verify_adapter

    if (place / DESCRIPTION).is_file() and (place.parent / RESULT).is_file():
        place = place.parent
    if (place / DESCRIPTION).is_file():
        if deep:
            raise UnipetError("--deep: an adapter apart from its run has no evaluation to repeat. Give the run.")
        if model is None:
            raise UnipetError(
                f"{place}: an adapter apart from its run does not say where its base model is. Give it: --model DIR."
            )
        return verify_adapter(place, model)
    if model is not None:
        raise UnipetError("--model: a run's configuration names its base model. Leave it out.")
    return verify(place, check_run(place), deep)


def text_of(certificate: Certificate) -> str:
    """Every check on a line, and what it comes to."""
    rows = [
        [name.replace("_", " "), check.status.replace("_", " "), _shown(check.largest), check.text]
        for name, check in certificate.checks.items()
    ]
    lines = [text_table(["check", "outcome", "largest difference", ""], rows)]
    for name, check in certificate.checks.items():
        if len(check.dtypes) > 1:
            lines.append(f"{name}: {', '.join(f'{dtype} {_shown(apart)}' for dtype, apart in check.dtypes.items())}")
    return "\n".join([*lines, certificate.verdict])


def _shown(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.2g}"
