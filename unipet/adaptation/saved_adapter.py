"""Reading the files of a saved adapter, and checking that they are whole and of this base model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.description import METHOD, SAMPLED, TENSORS, Description
from unipet.adaptation.fingerprint import fingerprint, sampled_fingerprint
from unipet.adaptation.tensor_file import Stored, finite_tensors, header_of
from unipet.calculus.method import Method, parse_method
from unipet.calculus.sites import Architecture, outside, parse_table
from unipet.calculus.yaml_reader import parse_yaml, values
from unipet.errors import UnipetError
from unipet.output.json_reader import MIB, read_bounded

MOST = MIB  # of the method's file


def check_base_model(source: Path, model: nn.Module, description: Description, cast: bool = True) -> frozenset[str]:
    """The names of the head's parameters; raises UnipetError unless all others are those that the adapter was made on: bit for
    bit, or with `cast` in another precision."""
    saved = description.base_model
    if description.format in SAMPLED:
        head = outside(model)
        made, found = saved.fingerprint, sampled_fingerprint(model, head)
        same = made == found
    else:
        head = frozenset(description.head)
        here = fingerprint(model, head)
        exact = saved.dtype == here.dtype
        same = saved.print.same(here)
        made, found = ((each.exact if exact else each.rounded) for each in (saved.print, here))
        if same and not exact and not cast:
            raise UnipetError(
                f"{source} was trained on a base model in {saved.dtype}, this one is in {here.dtype}. Load it as it was, or say "
                "cast=True: outputs then differ by rounding."
            )
    if not same:
        raise UnipetError(
            f"{source} belongs to another base model: it was trained on {saved.name or '(unnamed)'} with fingerprint "
            f"{made}, this one is {model.config._name_or_path or '(unnamed)'} with {found}."  # type: ignore[union-attr]
        )
    if absent := sorted(head - dict(model.named_parameters()).keys()):
        raise UnipetError(
            f"{source} does not fit this model: its head has {', '.join(absent[:4])}, which {type(model).__name__} lacks. "
            "Load the base model as the transformers class that was adapted."
        )
    return head


def method_of(source: Path, description: Description) -> Method:
    """The method of a saved adapter. Raises UnipetError for one that cannot be read, or is not the one that was saved."""
    if description.method is not None:
        content: Any = description.method
    else:
        path = source / METHOD
        data = read_bounded(path, MOST)
        if hashlib.sha256(data).hexdigest() != description.method_sha256:
            raise UnipetError(
                f"{path} is not the method that was saved with these tensors: its checksum is another. Save the adapter again."
            )
        try:
            content = values(parse_yaml(data.decode("utf-8"), str(path)))
        except UnicodeDecodeError as error:
            raise UnipetError(f"{path}: not a readable YAML file: byte {error.start} is no UTF-8.") from None
    if not isinstance(content, dict):
        raise UnipetError(f"{source}: its method is no mapping.")
    return parse_method(content)


def table_of(source: Path, description: Description) -> Architecture | None:
    """The user's own site table, which an adapter for an architecture without a table in the package carries."""
    if description.sites is None:
        return None
    try:
        return parse_table(description.sites)
    except UnipetError as error:
        raise UnipetError(f"{source}: sites: {error}") from None


def stored_tensors(source: Path, description: Description) -> dict[str, Stored]:
    """What the file of tensors holds, from its header. Raises UnipetError where that is not what the description says."""
    path = source / TENSORS
    if not path.is_file():
        raise UnipetError(f"{source} is not a whole adapter: {TENSORS} is missing.")
    header = header_of(path)
    said = {name: Stored(each.dtype, tuple(each.shape)) for name, each in description.tensors.items()}
    if description.format >= 4 and header != said:
        wrong = sorted(name for name in header.keys() | said.keys() if header.get(name) != said.get(name))
        raise UnipetError(f"{path} does not hold what the description says: {', '.join(wrong[:4])}.")
    return header


def tensors_of(source: Path, description: Description) -> dict[str, Tensor]:
    """The tensors, each finite. Raises UnipetError for a file that is damaged or another one."""
    path = source / TENSORS
    stored_tensors(source, description)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnipetError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if hashlib.sha256(data).hexdigest() != description.sha256:
        raise UnipetError(f"{path} is corrupted: its checksum is not the one that was recorded. Save it again.")
    return finite_tensors(data, path)
