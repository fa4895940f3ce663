"""An argparse parser whose mistakes are `UnipetError`s like all others."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from unipet.errors import UnipetError


class Parser(argparse.ArgumentParser):
    """Raises instead of exiting with a usage dump."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UnipetError(f"{self.prog}: {message}. See `{self.prog} --help`.")

    def add_import(self) -> None:
        """`--import MODULE`, for commands that take a finished run."""
        self.add_argument(
            *("--import",),
            dest="imports",
            action="append",
            default=[],
            metavar="MODULE",
            help="a module of your own that registers functions; what a run's configuration names is not imported by itself",
        )


def home(text: str) -> str:
    """An argument that names a file or a directory; `~` and `~user` are home directories."""
    return os.path.expanduser(text)


def file_path(text: str) -> Path:
    """The same as a path."""
    return Path(home(text))


def read(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace | None:
    """The arguments, flags in any place; None when --help was answered. Modules named by --import are imported."""
    try:
        asked = parser.parse_intermixed_args(argv)
    except SystemExit:
        return None
    if getattr(asked, "imports", None):
        from unipet.compose.imports import import_modules

        import_modules(asked.imports, "--import")
    return asked
