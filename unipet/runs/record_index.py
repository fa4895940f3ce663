"""An index over the runs of a directory: what their records and configurations say, read anew only where a file has changed.

The index of the runs beside each other in one directory is one file in its cache (unipet/output/cache_place.py). It only saves
time. Nothing in it is believed unless the file that it was read from is, by size, times and place, the file that is there.
A damaged index, or one of another version, is made anew. Processes that write it at the same time replace it as a whole: what
the slower one did not know is read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.cache_place import cache_directory
from unipet.output.files import remove_leftovers, write_bytes_atomic
from unipet.output.json_object import WrongType
from unipet.runs.checksums import file_state
from unipet.runs.config_blocks import ConfigReader
from unipet.runs.record import Record
from unipet.runs.record_files import CONFIG, RESULT, read_record

FORMAT = 1  # of the file; another one is not read
FEW = 32  # so many runs are read as fast without an index
_DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)  # what a damaged file leads to
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class KnownRun:
    """A run's directory, its record and its configuration. Runs share what is equal in them: change nothing."""

    directory: Path
    record: Record
    config: dict[str, Any]


@dataclass
class _Line:
    """One run in the index: the states of its files, and its two mappings with every list and mapping in them by number."""

    result: list[int]
    config: list[int] | None
    contents: tuple[dict[str, Any], dict[str, Any]]  # scalars of the record, and of the configuration
    numbers: tuple[dict[str, int], dict[str, int]]  # the others: key -> which of the index's values


class _Index:
    """The index of the runs in one directory."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.path = _path(parent)
        self.values: list[Any] = []
        self.lines: dict[str, _Line] = {}
        self.changed = False
        self._configs = ConfigReader()
        self._numbers: dict[str, int] = {}
        self._parts: dict[tuple[str, int], Any] = {}  # of records: made once, however many runs have them
        with contextlib.suppress(*_DAMAGE):
            self._read()

    def _read(self) -> None:
        """Take over the file, if all of it is well formed."""
        if self.path is None:
            return
        content = json.loads(self.path.read_bytes())
        if content["format"] != FORMAT:
            return
        values = list(content["values"])
        lines = {str(name): _Line(*line) for name, line in content["runs"].items()}
        for line in lines.values():
            for scalars, numbers in zip(line.contents, line.numbers, strict=True):
                scalars.keys() | numbers.keys()
                if any(not 0 <= number < len(values) for number in numbers.values()):
                    raise IndexError
        self.values, self.lines = values, lines

    def run(self, name: str) -> KnownRun:
        """The run in directory `name`. Raises `UnipetError` for files that cannot be read."""
        directory = self.parent / name
        states = _states(directory)
        line = self.lines.get(name)
        if line is not None and states == (line.result, line.config):
            with contextlib.suppress(WrongType):
                return self._known(line, directory)
        record, config = read_record(directory / RESULT), self._configs.read(directory / CONFIG)
        if states is not None and states == _states(directory):  # nobody wrote while they were read
            self._keep(name, states, record.to_dict(), config)
            if (line := self.lines.get(name)) is not None and line.result == states[0]:
                return self._known(line, directory)
        return KnownRun(directory, record, config)

    def _known(self, line: _Line, directory: Path) -> KnownRun:
        return KnownRun(directory, self._record(line), self._config(line))

    def _record(self, line: _Line) -> Record:
        known: dict[str, Any] = {key: Record.read_key(key, value) for key, value in line.contents[0].items()}
        for key, number in line.numbers[0].items():
            if (key, number) not in self._parts:
                self._parts[key, number] = Record.read_key(key, self.values[number])
            known[key] = self._parts[key, number]
        return Record.from_parts(known)

    def _config(self, line: _Line) -> dict[str, Any]:
        order = line.contents[1]  # every key in its order; those of lists and mappings hold null
        return order | {key: self.values[number] for key, number in line.numbers[1].items()}

    def _keep(self, name: str, states: tuple[list[int], list[int] | None], record: Any, config: Any) -> None:
        contents, numbers = [], []
        for mapping in (record, config):
            if json.loads(json.dumps(mapping)) != mapping:  # NaN, or a key that is no text: JSON has neither
                return
            contents.append({key: value if isinstance(value, _SCALARS) else None for key, value in mapping.items()})
            numbers.append(
                {key: self._number(value) for key, value in mapping.items() if not isinstance(value, _SCALARS)}
            )
        self.lines[name] = _Line(*states, (contents[0], contents[1]), (numbers[0], numbers[1]))
        self.changed = True

    def _number(self, value: Any) -> int:
        if not self._numbers:
            self._numbers = {json.dumps(each): number for number, each in enumerate(self.values)}
        text = json.dumps(value)
        if text not in self._numbers:
            self._numbers[text] = len(self.values)
            self.values.append(value)
        return self._numbers[text]

    def write(self) -> None:
        """Keep what is new. A directory that cannot be written to costs time, nothing else."""
        if self.path is None or not self.changed or len(self.lines) < FEW:
            return
        lines = {name: line for name, line in self.lines.items() if (self.parent / name / RESULT).is_file()}
        used = sorted({number for line in lines.values() for numbers in line.numbers for number in numbers.values()})
        place = {number: at for at, number in enumerate(used)}
        runs = {
            name: [
                line.result,
                line.config,
                line.contents,
                [{key: place[number] for key, number in numbers.items()} for numbers in line.numbers],
            ]
            for name, line in lines.items()
        }
        content = {"format": FORMAT, "values": [self.values[number] for number in used], "runs": runs}
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path.parent)
            write_bytes_atomic(self.path, json.dumps(content, separators=(",", ":")).encode())


def _path(parent: Path) -> Path | None:
    cache = cache_directory(parent)
    if cache is None:
        return None
    return cache / f"index-{hashlib.sha256(os.fsencode(os.path.realpath(parent))).hexdigest()[:16]}.json"


def _states(directory: Path) -> tuple[list[int], list[int] | None] | None:
    """What the files of a run are by now; None where there is no record."""
    try:
        result = file_state(f"{directory}/{RESULT}")
    except OSError:
        return None
    try:
        return result, file_state(f"{directory}/{CONFIG}")
    except OSError:
        return result, None


def raised(directory: Path, error: UnipetError) -> None:
    """What happens by default with a run that cannot be read."""
    raise error


def read_runs(directories: Iterable[Path], unreadable: Callable[[Path, UnipetError], None] = raised) -> list[KnownRun]:
    """The runs in these directories, in their order, from the index where nothing has changed.

    A run whose files cannot be read is handed to `unreadable`, which raises unless told otherwise.
    """
    indexes: dict[Path, _Index] = {}
    runs = []
    for directory in directories:
        parent = directory.parent
        if parent not in indexes:
            indexes[parent] = _Index(parent)
        try:
            runs.append(indexes[parent].run(directory.name))
        except UnipetError as error:
            unreadable(directory, error)
    for index in indexes.values():
        index.write()
    return runs
