"""What `adapter.json` says of a saved adapter, with a type for every key; and the same of adapters of earlier formats."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipet.adaptation.certificate import Certificate
from unipet.adaptation.fingerprint import Fingerprint
from unipet.errors import UnipetError
from unipet.output.json_object import JsonObject, WrongType, added_later
from unipet.output.json_reader import MIB, read_json

TENSORS, METHOD, DESCRIPTION = "adapter.safetensors", "method.yaml", "adapter.json"
#: 4: the method is a file of its own, and the description has the shapes of tensors. 3: a fingerprint over every value, and
#: the whole head. 2 and 1: a fingerprint of some values, and the head only where it trained; 1 stores every tensor on its own.
FORMAT = 4
FORMATS = (1, 2, 3, 4)
SAMPLED = (1, 2)
MOST = 8 * MIB  # of the description
_NEEDED = ("format", "base_model", "sha256")


@dataclass
class BaseModel(JsonObject):
    """The base model that an adapter belongs to."""

    exact: str = ""
    rounded: str = ""
    dtype: str = ""
    name: str = ""
    revision: str | None = added_later(None)  # of a base model from the hub
    model_type: str = ""
    kind: str = added_later("")  # the transformers class
    fingerprint: str = added_later("")  # of the formats that looked at some values

    @property
    def print(self) -> Fingerprint:
        """Its fingerprint over every value."""
        return Fingerprint(self.exact, self.rounded, self.dtype)


@dataclass
class Shape(JsonObject):
    """One stored tensor."""

    dtype: str = ""
    shape: list[int] = field(default_factory=list)


@dataclass
class Training(JsonObject):
    """The run that trained an adapter."""

    run_id: str | None = None
    task: str | None = None
    data: str | None = None  # fingerprint of labels and rows
    seed: int | None = None
    steps: int | None = None
    stopped_by: str | None = None
    metric: str | None = None
    score: float | None = None
    unipet: str | None = None  # version


@dataclass
class Description(JsonObject):
    """`adapter.json`."""

    format: int = FORMAT
    method: dict[str, Any] | None = added_later(None)  # of the formats that have no method.yaml
    base_model: BaseModel = field(default_factory=BaseModel)
    head: list[str] = field(default_factory=list)  # names of the head's parameters
    sites: dict[str, Any] | None = added_later(None)  # a site table of the user's own
    #: Of insertions with parts that are drawn at the start and not stored: a checksum, or a rough number for each tensor.
    frozen: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Shape] = added_later(factory=dict)
    sha256: str = ""  # of the tensors' file
    method_sha256: str = added_later("")
    training: Training | None = added_later(None)  # None: saved from Python
    certificate: Certificate | None = added_later(None)

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps(self.to_dict(), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def description_of(source: Path) -> Description:
    """The description of the adapter in a directory. Raises UnipetError for anything that is not understood to the last key."""
    path = source / DESCRIPTION
    if not path.is_file():
        here = ", ".join(sorted(p.name for p in source.iterdir())[:8]) if source.is_dir() else "no such directory"
        raise UnipetError(f"{source} is not a saved adapter: {DESCRIPTION} is missing ({here}).")
    content = read_json(path, MOST)
    if not isinstance(content, dict) or any(key not in content for key in _NEEDED):
        raise UnipetError(f"{path} is not a unipet adapter description: it needs {', '.join(_NEEDED)}.")
    number = content["format"]
    if type(number) is not int or number not in FORMATS:
        raise UnipetError(
            f"{path} has format {str(number)[:20]}; this unipet reads formats {', '.join(map(str, FORMATS))}. "
            "A newer unipet reads newer ones."
        )
    if number == 1:
        content.pop("tensors", None)  # shapes, which the file has as well
    try:
        description = Description.from_dict(content)
    except WrongType as error:
        key, value = ".".join(error.path), json.dumps(error.value)[:80]
        raise UnipetError(f"{path} is corrupted: {key} is {value}, where {error.wanted} belongs.") from None
    _check(path, description)
    return description


def _check(path: Path, description: Description) -> None:
    """Raise UnipetError for keys that this version does not know, and for keys that the format lacks or needs."""
    whole = (description, description.base_model, *description.tensors.values())
    whole += tuple(each for each in (description.training,) if each is not None)
    unknown = [key for each in whole for key in each.others]
    if unknown:
        raise UnipetError(
            f"{path}: {', '.join(str(key)[:60] for key in unknown[:4])} means nothing to this unipet, which "
            "reads what it knows to the last key. A newer version may have written it."
        )
    base, sampled = description.base_model, description.format in SAMPLED
    needed = ("fingerprint",) if sampled else ("exact", "rounded", "dtype")
    if lacking := [key for key in needed if not getattr(base, key)]:
        raise UnipetError(
            f"{path} is corrupted: base_model needs {', '.join(needed)}, and {', '.join(lacking)} is missing."
        )
    in_file = description.format < FORMAT
    if in_file and description.method is None:
        raise UnipetError(f"{path} is corrupted: a description of format {description.format} needs the method.")
    if not in_file and (description.method is not None or not description.method_sha256):
        raise UnipetError(
            f"{path} is corrupted: the method of format {FORMAT} is in {METHOD}, and method_sha256 binds it."
        )
