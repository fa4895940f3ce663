"""Results of other projects as runs on disk, which reports read like own ones. Each says where it is from (`imported`), and the
name of its method begins with that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipet.calculus.yaml_reader import write_yaml
from unipet.errors import UnipetError
from unipet.output.files import write_bytes_atomic
from unipet.output.json_reader import MIB, read_bounded
from unipet.runs.peft_results import from_peft, is_peft_result
from unipet.runs.record import Record
from unipet.runs.record_files import RESULT, write_record

ORIGINAL = "imported.json"  # the file as it was
MOST = 16 * MIB  # of one result


@dataclass(frozen=True)
class Format:
    """`knows` tells a result from other JSON files, `read` makes a record and a configuration of it."""

    knows: Callable[[Any], bool]
    read: Callable[[Mapping[str, Any]], tuple[Record, dict[str, Any]]]


FORMATS: dict[str, Format] = {"peft": Format(is_peft_result, from_peft)}


@dataclass
class Imported:
    """What was made of a folder."""

    runs: list[Path] = field(default_factory=list)
    failed: int = 0  # of them, runs that had failed there
    others: int = 0  # JSON files that are no results


def import_results(folder: Path, name: str, out: Path) -> Imported:
    """A run below `out` for every result below `folder`. Everything is read before anything is written.

    Raises `UnipetError` for a folder without results, for a file that is one and lacks a part, and for one that is no ordinary
    file of the folder.
    """
    if not folder.is_dir():
        raise UnipetError(
            f"{folder}: no such folder. Give the one that holds the results, such as method_comparison/MetaMathQA/results."
        )
    made, written = Imported(), dict[Path, tuple[Record, dict[str, Any], bytes]]()
    for path in sorted(folder.rglob("*.json")):
        content = read_bounded(path, MOST)
        result = _parsed(content)
        if not FORMATS[name].knows(result):
            made.others += 1
            continue
        try:
            record, config = FORMATS[name].read(result)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UnipetError(
                f"{path}: a result of {name} that lacks a part ({type(error).__name__}: {error}). Move it elsewhere."
            ) from None
        digest = hashlib.sha256(content).hexdigest()
        record.imported, record.run_id = name, digest[:16]
        written[out / f"{path.stem}-{digest[:8]}"] = record, config, content
        made.failed += record.status == "failed"
    if not written:
        raise UnipetError(
            f"{folder}: no result of {name} among its {made.others} JSON files. Give the folder `results` of a comparison."
        )
    for directory, (record, config, content) in written.items():
        directory.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(directory / ORIGINAL, content)
        write_bytes_atomic(directory / "config.yaml", write_yaml(config).encode())
        write_record(directory / RESULT, record)
        made.runs.append(directory)
    return made


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
