"""A resume point: the whole state of an unfinished training on disk, from which another process goes on bit for bit.

`<run>/resume/<step>.safetensors` holds its tensors, `<step>.json` the rest and the tensors' checksum. Each appears whole or
not at all, the JSON last, so a point is there once its JSON is. The newest two are kept: a damaged one falls back to the one
before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from unipet.output.files import replacing, write_bytes_atomic
from unipet.training.tensor_file import read_tensors, write_tensors

FOLDER = "resume"  # in a run's directory
KEPT = 2
FORMAT = 1
_SEPARATOR = ":"  # between a part's name and its tensor's


@dataclass(frozen=True)
class State:
    """What one part of a training carries from step to step: plain values that JSON has, and tensors."""

    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Part(Protocol):
    """Whatever decides what follows: it tells its state, and goes on from one."""

    def state(self) -> State:
        """All that the part carries from step to step."""

    def resume(self, state: State) -> None:
        """Go on from `state`."""


@dataclass(frozen=True)
class ResumePoint:
    """A training after `step` optimiser steps; `outcome` says what the training came to, once it is over."""

    step: int
    parts: dict[str, State]
    outcome: dict[str, Any] | None = None


class ResumePoints:
    """The resume points of one run, in its directory `run`.

    `setting` is what must be the same for a point to be gone on from: the run, the software, the kind of device.
    """

    def __init__(self, run: Path, setting: Mapping[str, Any], say: Callable[[str], None] | None = None) -> None:
        self._folder, self._setting = run / FOLDER, dict(setting)
        self._say = say or (lambda text: print(text, file=sys.stderr))
        self._warned = False

    def write(self, point: ResumePoint) -> None:
        """Add `point` and drop what is older than the one before; after the end of training no other is needed.

        A disk that does not take it costs a warning: training is worth more.
        """
        try:
            self._write(point)
        except OSError as error:
            if not self._warned:
                self._say(f"warning: {self._folder}: no resume point could be written ({error.strerror or error}).")
            self._warned = True
            return
        names = {path.stem for path in self._folder.glob("*.json")}
        kept = {_name(point.step)} | (set() if point.outcome else set(sorted(names)[-KEPT:]))
        for path in self._folder.iterdir():
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def _write(self, point: ResumePoint) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        tensors, name = self._folder / f"{_name(point.step)}.safetensors", self._folder / f"{_name(point.step)}.json"
        with replacing(tensors) as file:
            checksum = write_tensors(
                file,
                {
                    part + _SEPARATOR + own: tensor
                    for part, state in point.parts.items()
                    for own, tensor in state.tensors.items()
                },
            )
        content = {
            "format": FORMAT,
            "step": point.step,
            "setting": self._setting,
            "outcome": point.outcome,
            "values": {part: state.values for part, state in point.parts.items()},
            "tensors": checksum,
        }
        write_bytes_atomic(name, _spelled({"content": content, "sha256": _checksum(content)}))

    def newest(self) -> ResumePoint | None:
        """The last point that is whole and of this setting; None without one: the run then begins at its beginning."""
        for path in sorted(self._folder.glob("*.json"), reverse=True):
            try:
                content = _read(path)
            except (OSError, ValueError) as error:
                self._say(f"warning: {path}: a damaged resume point ({error}); the one before is used.")
                path.unlink(missing_ok=True)
                continue
            differing = [key for key in self._setting if content["setting"].get(key) != self._setting[key]]
            if differing:
                self._say(
                    f"warning: {path}: not gone on from, since {', '.join(differing)} changed meanwhile; the run begins anew."
                )
                return None
            return _point(content)
        return None


def discard(run: Path) -> None:
    """Remove every resume point of the run in this directory."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def training_is_over(run: Path) -> bool:
    """Whether the newest resume point there is one of a training that has ended."""
    paths = sorted((run / FOLDER).glob("*.json"))
    try:
        return bool(paths) and json.loads(paths[-1].read_text(encoding="utf-8"))["content"]["outcome"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _name(step: int) -> str:
    return f"{step:010d}"  # in the order of their steps


def _spelled(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_spelled(content)).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """What a point's JSON holds, `tensors` read. Raises OSError or ValueError for a point that is not whole."""
    read = json.loads(path.read_bytes())
    if not isinstance(read, dict) or not isinstance(read.get("content"), dict):
        raise ValueError("not what a resume point holds")
    content: dict[str, Any] = read["content"]
    if read.get("sha256") != _checksum(content):
        raise ValueError("its checksum is another")
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, this version reads {FORMAT}")
    content["tensors"] = read_tensors(path.with_suffix(".safetensors"), content["tensors"])
    return content


def _point(content: Mapping[str, Any]) -> ResumePoint:
    parts = {part: State(values, {}) for part, values in content["values"].items()}
    for name, tensor in content["tensors"].items():
        part, _, own = name.partition(_SEPARATOR)
        parts[part].tensors[own] = tensor
    return ResumePoint(content["step"], parts, content["outcome"])
