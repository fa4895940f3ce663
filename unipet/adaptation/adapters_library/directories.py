"""The adapters library's directories: `adapter_config.json` and `adapter.safetensors`. They are read, never written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.adapters_library.layout import Stored, stored
from unipet.adaptation.adapters_library.parts import Part, parts_of
from unipet.adaptation.api import adapt, parameters
from unipet.adaptation.report import AdaptReport
from unipet.adaptation.tensor_file import finite_tensors, header_of
from unipet.adaptation.unwrapping import unwraps_to_adapt
from unipet.errors import UnipetError
from unipet.output.json_reader import MIB, own_file, read_json

CONFIG = "adapter_config.json"
#: Names of the tensors' file: the library's own, and that of a pickle after it was converted.
TENSORS = ("adapter.safetensors", "pytorch_adapter.safetensors")
PICKLE = "pytorch_adapter.bin"
_CONVERT = (
    'It is a pickle, which can run code when it is read, so it is not. Where you trust it, convert it once: python -c "import '
    "torch, safetensors.torch as s; s.save_file({k: v.clone() for k, v in torch.load('pytorch_adapter.bin', "
    "weights_only=True).items()}, 'adapter.safetensors')\""
)
MOST = MIB  # of the configuration


@unwraps_to_adapt
def import_adapters(model: nn.Module, directory: str | Path) -> AdaptReport:
    """Adapt a base model with a directory that the adapters library wrote, and take over its values: bottlenecks (sequential or
    parallel, also with factorised weights), low-rank maps, rescaling vectors, prefixes, and unions of them, gated or not.

    The method is called `imported`. A prediction head is in a file of its own there and is not imported. Raises UnipetError where
    the directory says something that no composition here computes, or does not fit the model, which is then left as it was.
    """
    source = Path(directory).expanduser()
    config, tensors = _read(source)
    held = stored(source, str(config["name"]), tensors, model)
    parts = parts_of(source, config, held, model)
    insertions = {name: spec for part in parts for name, spec in part.insertions.items()}
    report = adapt(model, {"name": "imported", "insertions": insertions, "unfreeze": []})
    inserted = adaptation(model)
    try:
        _fill(source, model, parts, held)
    except BaseException:
        inserted.undo(model)
        raise
    return report


def _read(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not source.is_dir():
        raise UnipetError(f"{source}: no directory. Give the one that the adapters library saved into.")
    if not (source / CONFIG).is_file():
        raise UnipetError(f"{source}: {CONFIG} is missing, so it is no directory of the adapters library.")
    config = read_json(source / CONFIG, MOST)
    if isinstance(config, dict) and "peft_type" in config:
        raise UnipetError(f"{source} is a directory of peft's. Read it with unipet.import_peft.")
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("config"), dict)
        or not isinstance(config.get("name"), str)
    ):
        raise UnipetError(f"{source / CONFIG}: no configuration of the adapters library: it needs name and config.")
    path = next((source / name for name in TENSORS if (source / name).is_file()), None)
    if path is None:
        why = f"{PICKLE} is there. {_CONVERT}" if (source / PICKLE).exists() else "the adapter has no tensors."
        raise UnipetError(f"{source}: {TENSORS[0]} is missing; {why}")
    own_file(path)
    header_of(path)
    return config, finite_tensors(path.read_bytes(), path)


@torch.no_grad()
def _fill(source: Path, model: nn.Module, parts: list[Part], held: Stored) -> None:
    """Every value into its parameter. Raises UnipetError for one that has none, and for a tensor that nothing takes."""
    items = {f"{item.name}/{item.site.name}": item for item in adaptation(model).items}
    owner: Mapping[str, Part] = {name: part for part in parts for name in part.insertions}
    for name, parameter in parameters(model).items():
        place, _, slot = name.rpartition("/")
        insertion = name.partition("/")[0]
        value = owner[insertion].value(insertion, items.get(place), slot)
        if value.numel() != parameter.numel() or _plain(value) != _plain(parameter):
            raise UnipetError(
                f"{source} does not fit this model: {name} is {tuple(value.shape)} there, {tuple(parameter.shape)} here."
            )
        parameter.copy_(value.reshape(parameter.shape))
    if left := held.left():
        raise UnipetError(f"{source}: {left[0]} has no place here (and {len(left) - 1} more); it was not imported.")


def _plain(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]
