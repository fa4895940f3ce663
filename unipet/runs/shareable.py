"""What of a finished run may leave this machine: the adapter's files by name, and the record where it names no place here."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unipet.adaptation.description import DESCRIPTION, METHOD, TENSORS, Description, description_of
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.output.files import utf8
from unipet.output.json_reader import MIB, parse_json, read_bounded
from unipet.runs.record_files import ADAPTER, RESULT

CARD = "README.md"
#: What `unipet pull` takes, each with the most bytes that are read of it.
PULLED = {DESCRIPTION: 8 * MIB, METHOD: MIB, TENSORS: 16 * 1024 * MIB, CARD: MIB, RESULT: 32 * MIB}
_PLACE = re.compile(r"(?:^|[\s'\"=(\[:,])(?:~?/(?:[^\s/'\"]+/)*[^\s/'\"]+|[A-Za-z]:[\\/]\S+|\\\\\S+)")
_UP = re.compile(r"(?:^|/)\.\./+[^./]")  # a path through directories above: it names what lies beside the project


def adapter_files(run: Path, base: str | None) -> dict[str, bytes]:
    """The adapter of a run as it is uploaded: name -> content. The base model is called `base`, its name on the hub; where it has
    none, by no place.

    Raises `UnipetError` where a file cannot be read, or a text in one names a place on this machine.
    """
    folder = run / ADAPTER
    description = description_of(folder)
    found = {TENSORS: read_bounded(folder / TENSORS, PULLED[TENSORS])}
    if description.method_sha256:
        found[METHOD] = read_bounded(folder / METHOD, PULLED[METHOD])
    found[DESCRIPTION] = utf8(_renamed(description, base).to_json())
    for name, content in found.items():
        if name != TENSORS and (place := _place_in(name, content)) is not None:
            raise UnipetError(
                f"{folder / name} names a place on this machine ({place[:60]}), so it is not uploaded. Train with a method "
                "that names no file, or share the folder yourself."
            )
    return dict(sorted(found.items()))


def _renamed(description: Description, base: str | None) -> Description:
    """The description without the directory that the base model was loaded from."""
    own = description.base_model
    name = base or (Path(own.name).name if _PLACE.search(own.name) or "/" in own.name else own.name)
    return replace(description, base_model=replace(own, name=name))


def record_file(run: Path) -> tuple[bytes | None, str]:
    """The run's record as it is, or None and the reason why it stays here."""
    content = read_bounded(run / RESULT, PULLED[RESULT])
    place = _place_in(RESULT, content)
    return (content, "") if place is None else (None, f"it names a place on this machine: {place[:60]}")


def hub_name(run: Path, config: RunConfig, known: Mapping[str, str]) -> str | None:
    """What the base model of a run is called on the hub; None for a directory. `known` has the names for packages.

    A model from the hub was loaded from its cache, where the directory has its name; a directory may be called like one.
    """
    model = config.model
    if model.package is not None:
        return known.get(model.package)
    cached = f"models--{model.path.replace('/', '--')}"
    return model.path if cached in Path(description_of(run / ADAPTER).base_model.name).parts else None


def _place_in(name: str, content: bytes) -> str | None:
    """The first text in a file that looks like a path of this machine, or holds the name of its user."""
    texts = _texts(parse_json(content, name)) if name.endswith(".json") else iter(content.decode().split("\n"))
    home, user = str(Path.home()), _user()
    for text in texts:
        if text.startswith("files:") or _PLACE.search(text) or _UP.search(text):
            return text
        if (len(home) > 1 and home in text) or (len(user) > 3 and re.search(rf"\b{re.escape(user)}\b", text)):
            return text
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an entry
        return ""


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
