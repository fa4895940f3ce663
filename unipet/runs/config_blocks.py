"""Many config.yaml as values. Runs of a sweep share most of their text, and a part that was read before is not parsed again."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from unipet.calculus.yaml_reader import BYTES, parse_yaml, read_yaml, values
from unipet.errors import UnipetError
from unipet.output.json_reader import own_file

_KEY = re.compile(r"^(?=[A-Za-z_])", re.MULTILINE)  # where a key of the outermost mapping begins
_SIMPLE = re.compile(r"(?:[A-Za-z_ #].*\n|- .*\n|\n)*")  # no marks of documents, no key that is more than a word


class ConfigReader:
    """Reads configurations. What it returns shares equal parts: change nothing."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}  # the text of one outermost key -> what it says

    def read(self, path: Path) -> dict[str, Any]:
        """A run's config.yaml, or {} where there is none. Raises `UnipetError`, naming the file, for one that cannot be read."""
        if not os.path.lexists(path):
            return {}
        own_file(path)
        parts = self._parts(path)
        value = read_yaml(path) if parts is None else parts
        return value if isinstance(value, dict) else {}

    def _parts(self, path: Path) -> dict[str, Any] | None:
        """The whole as the sum of its outermost keys; None where it may be more than that."""
        try:
            if path.stat().st_size > BYTES:
                return None
            text = path.read_text(encoding="utf-8-sig")
            if not _SIMPLE.fullmatch(text):
                return None
            found: dict[str, Any] = {}
            for block in _KEY.split(text):
                value = self._block(block)
                if found.keys() & value.keys():
                    return None
                found.update(value)
        except (OSError, UnicodeDecodeError, UnipetError, TypeError):
            return None  # whoever reads the whole says what is wrong with it
        return found

    def _block(self, text: str) -> dict[str, Any]:
        if text not in self._known:
            parsed = values(parse_yaml(text, "config"))
            if parsed is None and all(
                line.startswith("#") for line in text.splitlines()
            ):  # what stands before the first key
                parsed = {}
            if not isinstance(parsed, dict) or len(parsed) > 1:
                raise TypeError
            self._known[text] = parsed
        return self._known[text]
