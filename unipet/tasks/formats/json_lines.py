"""JSON lines: one object per line. Only a line feed ends a line; U+2028 inside a text is text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.tasks.formats.source import Source, repeated, text_bytes
from unipet.tasks.gaps import short


def read_json_lines(path: Path) -> Source:
    """The objects of a file, without blank lines. Raises UnipetError naming the file, the line and, if known, the field."""
    return Source(_records(path), typed=True)


def _records(path: Path) -> Iterator[tuple[object, str]]:
    for number, line in enumerate(text_bytes(path).split(b"\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield parse(line, place), place


def parse(line: bytes, place: str) -> object:
    """Parse one JSON value. Raises UnipetError, beginning with `place`, for text that RFC 8259 does not allow, for a field
    that is given twice, and for a number that is not finite."""
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=lambda pairs: _object(pairs, place))
        if _not_finite(found):
            raise UnipetError(f"{place}: NaN or infinity given, which JSON does not have; a finite number is needed.")
        return found
    except UnipetError:
        raise
    except UnicodeDecodeError as error:
        field = f"{place}{_last_field(line[: error.start])}"
        raise UnipetError(
            f"{field}: not UTF-8 (byte {error.start + 1}: {error.reason}). Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        field = f"{place}{_last_field(error.doc[: error.pos].encode())}"
        raise UnipetError(f"{field}: malformed or truncated JSON, column {error.colno}: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits; endless nesting
        raise UnipetError(f"{place}: malformed JSON: {error}.") from error


def _object(pairs: list[tuple[str, Any]], place: str) -> dict[str, Any]:
    """The fields of an object. Python's own reader would silently keep the last of two equal fields, and accept NaN."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = repeated(name for name, _ in pairs)
        raise UnipetError(f"{place}, field {short(twice)}: given twice. Remove one of them.")
    for name, value in pairs:
        if _not_finite(value):
            raise UnipetError(
                f"{place}, field {short(name)}: NaN or infinity given, which JSON does not have; a finite number, or null, "
                "is needed."
            )
    return found


def _not_finite(value: object) -> bool:
    if isinstance(value, list):
        return any(_not_finite(each) for each in value)
    return isinstance(value, float) and not math.isfinite(value)


def _last_field(line: bytes) -> str:
    """The last field that begins in a broken line, for its error message; "" if there is none."""
    names = re.findall(rb'"((?:[^"\\\\]|\\\\.)*)"\s*:', line)
    return f", field {short(names[-1].decode('utf-8', 'replace'))}" if names else ""
