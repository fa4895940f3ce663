"""An argparse parser that raises `UnipetError` for mistakes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from unipet.errors import UnipetError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UnipetError` instead of printing the usage and exiting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UnipetError(f"{self.prog}: {message}. See `{self.prog} --help`.")

    def add_import(self) -> None:
        """Add `--import MODULE`, for commands that read a finished run."""
        self.add_argument(
            *("--import",),
            dest="imports",
            action="append",
            default=[],
            metavar="MODULE",
            help="your own module that registers functions; modules named in a run's configuration are not imported",
        )


def home(text: str) -> str:
    """A path given as an argument, with `~` and `~user` replaced by home directories."""
    return os.path.expanduser(text)


def file_path(text: str) -> Path:
    """The same, as a Path."""
    return Path(home(text))


def read(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace | None:
    """Parse the arguments; flags may stand anywhere. Returns None after --help. Imports the modules given by --import."""
    try:
        asked = parser.parse_intermixed_args(argv)
    except SystemExit:
        return None
    if getattr(asked, "imports", None):
        from unipet.compose.imports import import_modules

        import_modules(asked.imports, "--import")
    return asked
