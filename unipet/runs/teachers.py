"""The teachers of a run's objective: the base model itself, or what an earlier run saved."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.runs import record_files as records

if TYPE_CHECKING:
    from torch import nn

    from unipet.calculus.method import Method


def teacher_contents(method: Method, pretrained_head: bool) -> dict[str, str]:
    """A checksum of the adapter of each teacher that is a saved run, by regulariser. Raises UnipetError for a teacher that
    cannot be read, and for a base model that cannot teach: `pretrained_head` says whether it has answers of its own."""
    from unipet.calculus.objectives import Distillation

    found: dict[str, str] = {}
    for name, rule in method.objective.of(Distillation).items():
        key = f"method.objective.{name}.run"
        if rule.run is None and not pretrained_head:
            raise UnipetError(
                f"{key}: null means the base model as teacher, but this task's output layer is new, so its answers are "
                f"random. Give a finished run on this task: {key}=runs/NAME."
            )
        if rule.run is not None:
            found[name] = _checksum(_adapter(rule.run, key), key)
    return found


def load_teachers(method: Method, model: nn.Module) -> dict[str, Any]:
    """The teachers, copies of the unadapted base `model`, by regulariser. The random streams are left as they were."""
    import copy

    import torch

    from unipet.adaptation.checkpoint import load
    from unipet.calculus.objectives import Distillation

    found: dict[str, Any] = {}
    for name, rule in method.objective.of(Distillation).items():
        found[name] = copy.deepcopy(model)
        if rule.run is not None:
            with torch.random.fork_rng():
                load(found[name], _adapter(rule.run, f"method.objective.{name}.run"))
    return found


def _adapter(run: str, key: str) -> Path:
    """The directory of a saved adapter, given that of its run or its own."""
    from unipet.adaptation.description import DESCRIPTION

    given = Path(run).expanduser()
    for directory in (given / records.ADAPTER, given):
        if (directory / DESCRIPTION).is_file():
            return directory
    raise UnipetError(f"{key}: {run} is neither a finished run nor a saved adapter: no {DESCRIPTION} in it.")


def _checksum(directory: Path, key: str) -> str:
    """Over all that a saved adapter computes with; its certificate is no part of that."""
    from unipet.adaptation.description import DESCRIPTION, FORMAT, TENSORS, description_of

    digest = hashlib.sha256()
    try:
        description = description_of(directory)
        if description.format == FORMAT:  # it has the checksum of the method
            description.training = description.certificate = None
            digest.update(description.to_json().encode())
        else:
            digest.update((directory / DESCRIPTION).read_bytes())
        digest.update((directory / TENSORS).read_bytes())
    except (OSError, UnipetError) as error:
        raise UnipetError(f"{key}: {error}") from error
    return digest.hexdigest()[:16]
