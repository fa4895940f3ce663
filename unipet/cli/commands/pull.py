"""`unipet pull OWNER/NAME OUT`: a saved adapter from the hub, checked as any stranger's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unipet.cli.commands.arguments import Parser, file_path, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError


def main(argv: Sequence[str]) -> int:
    """Download the adapter's known files to OUT, check them, and say how to load them."""
    parser = Parser(
        prog="unipet pull",
        description="Download a saved adapter from a model repository on the hub: the files that `unipet push` writes, by "
        "name, and nothing else. They are checked to the last key before OUT stays; none of them is run.",
        epilog=examples("pull"),
    )
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument("out", metavar="OUT", type=file_path, help="a directory that does not exist yet")
    parser.add_argument("--revision", metavar="COMMIT", help="a commit, branch or tag (default: the newest)")
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.adaptation.description import DESCRIPTION, description_of
    from unipet.runs.hub import check_name, download
    from unipet.runs.shareable import PULLED

    check_name(asked.repository)
    if asked.out.exists():
        raise UnipetError(f"{asked.out}: exists already. Give a new directory, or remove this one.")
    commit = download(asked.repository, asked.revision, PULLED, DESCRIPTION, check_adapter, asked.out)
    base = description_of(asked.out).base_model
    kind, name = base.kind or "its transformers class", base.name or "its base model"
    print(f"pulled {asked.repository} at {commit[:12]} to {asked.out}")
    print(f"load {name} as {kind}, then unipet.load(model, {str(asked.out)!r})")
    return 0


def check_adapter(folder: Path) -> None:
    """Raise `UnipetError` unless the folder holds a whole adapter, every part of which is understood."""
    from unipet.adaptation.description import description_of
    from unipet.adaptation.saved_adapter import method_of, table_of, tensors_of

    description = description_of(folder)
    method_of(folder, description)
    table_of(folder, description)
    tensors_of(folder, description)
