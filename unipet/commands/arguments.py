"""An argparse parser whose mistakes are `UnipetError`s like all others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from unipet.errors import UnipetError


class Parser(argparse.ArgumentParser):
    """Raises instead of exiting with a usage dump."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UnipetError(f"{self.prog}: {message}. See `{self.prog} --help`.")


def read(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace | None:
    """The arguments, flags in any place; None when --help was answered."""
    try:
        return parser.parse_intermixed_args(argv)
    except SystemExit:
        return None
