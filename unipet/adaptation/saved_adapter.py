"""Reading the two files of a saved adapter, and checking that they are whole and of this base model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.fingerprint import Fingerprint, fingerprint, sampled_fingerprint
from unipet.calculus.sites import Architecture, outside, parse_table
from unipet.errors import UnipetError

TENSORS, DESCRIPTION = "adapter.safetensors", "adapter.json"
FORMAT = 3
_SAMPLED = 2  # the format whose fingerprint looked at some values alone, and which held a head only where it trained


def check_base_model(source: Path, model: nn.Module, description: dict[str, Any]) -> frozenset[str]:
    """The names of the head's parameters; raises UnipetError unless all others are those that the adapter was made on."""
    saved = description["base_model"]
    if description["format"] == _SAMPLED:
        head = outside(model)
        made, found = saved["fingerprint"], sampled_fingerprint(model, head)
        same = made == found
    else:
        head = frozenset(description["head"])
        expected = Fingerprint(**{one.name: saved[one.name] for one in fields(Fingerprint)})
        here = fingerprint(model, head)
        exact = expected.dtype == here.dtype
        same, made, found = expected.same(here), *((one.exact if exact else one.rounded) for one in (expected, here))
    if not same:
        raise UnipetError(
            f"{source} belongs to another base model: it was trained on {saved['name'] or '(unnamed)'} with fingerprint "
            f"{made}, this one is {model.config._name_or_path or '(unnamed)'} with {found}."  # type: ignore[union-attr]
        )
    if absent := sorted(head - dict(model.named_parameters()).keys()):
        raise UnipetError(
            f"{source} does not fit this model: its head has {', '.join(absent[:4])}, which {type(model).__name__} lacks. "
            "Load the base model as the transformers class that was adapted."
        )
    return head


def description_of(source: Path) -> dict[str, Any]:
    path = source / DESCRIPTION
    if not path.is_file():
        here = ", ".join(sorted(p.name for p in source.iterdir())[:8]) if source.is_dir() else "no such directory"
        raise UnipetError(f"{source} is not a saved adapter: {DESCRIPTION} is missing ({here}).")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UnipetError(f"{path} is corrupted: {error}.") from error
    wanted = ("format", "method", "base_model", "sha256")
    if not isinstance(description, dict) or any(key not in description for key in wanted):
        raise UnipetError(f"{path} is not a unipet adapter description: it needs {', '.join(wanted)}.")
    if description["format"] == FORMAT:
        base_model = description["base_model"]
        needed = ("name", *(one.name for one in fields(Fingerprint)))
        if not isinstance(base_model, dict) or any(not isinstance(base_model.get(key), str) for key in needed):
            raise UnipetError(f"{path} is corrupted: base_model needs {', '.join(needed)}, each a text.")
        head = description.get("head")
        if not isinstance(head, list) or not all(isinstance(name, str) for name in head):
            raise UnipetError(f"{path} is corrupted: head must be a list of parameter names.")
    if description["format"] not in (FORMAT, _SAMPLED):
        raise UnipetError(
            f"{path} has format {description['format']!r}; this unipet reads formats {_SAMPLED} and {FORMAT}."
        )
    return description


def table_of(source: Path, description: dict[str, Any]) -> Architecture | None:
    """The user's own site table, which an adapter for an architecture without a table in the package carries."""
    if "sites" not in description:
        return None
    try:
        return parse_table(description["sites"])
    except UnipetError as error:
        raise UnipetError(f"{source / DESCRIPTION}: {error}") from None


def tensors_of(source: Path, description: dict[str, Any]) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    path = source / TENSORS
    if not path.is_file():
        raise UnipetError(f"{source} is not a whole adapter: {TENSORS} is missing.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != description["sha256"]:
        raise UnipetError(
            f"{path} is corrupted: its checksum is not the one that {DESCRIPTION} records. Save it again."
        )
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise UnipetError(f"{path} is corrupted: {error}.") from error
