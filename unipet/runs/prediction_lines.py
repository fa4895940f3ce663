"""The lines of a run's predictions.jsonl."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.json_reader import MIB, read_bounded

MOST = 512 * MIB
Lines = Sequence[Mapping[str, Any]]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a predictions.jsonl. Raises `UnipetError` naming file and line."""
    lines = []
    try:
        text = read_bounded(path, MOST).decode("utf-8")
    except (UnipetError, UnicodeDecodeError) as error:
        raise UnipetError(f"{path}: cannot be read ({error}).") from None
    written = text.splitlines()
    with contextlib.suppress(
        ValueError, RecursionError
    ):  # all at once is several times as fast; else the line that is wrong is looked for
        lines = json.loads(f"[{','.join(written)}]")
        if lines and len(lines) == len(written) and all(isinstance(line, dict) and "id" in line for line in lines):
            return lines
    lines = []
    for number, line in enumerate(written, 1):
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise UnipetError(f"{path}, line {number}: not JSON ({error}). Run its configuration again.") from None
        if not isinstance(lines[-1], dict) or "id" not in lines[-1]:
            raise UnipetError(f"{path}, line {number}: not a prediction (an object with an id is needed).")
    if not lines:
        raise UnipetError(f"{path}: holds no prediction. Run its configuration again.")
    return lines
