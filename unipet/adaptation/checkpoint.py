"""Saving and loading what a method owns: its tensors, the method itself, and which base model they belong to.

`adapter.safetensors` holds the tensors under their names (many of one kind as a stack, see packing.py), the whole head
among them, trained or not: the checkpoint does not determine it. `method.yaml` holds the method. `adapter.json` (description.py)
says which base model they belong to and what is in the other two, binds the three, and has the certificate.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.api import adaptation, frozen, parameters, stored
from unipet.adaptation.build import build
from unipet.adaptation.certificate import Certificate
from unipet.adaptation.description import (
    DESCRIPTION,
    FORMAT,
    METHOD,
    SAMPLED,
    TENSORS,
    BaseModel,
    Description,
    Shape,
    Training,
    description_of,
)  # fmt: skip
from unipet.adaptation.fingerprint import fingerprint
from unipet.adaptation.matched_sites import check_sites, matched_sites
from unipet.adaptation.packing import pack, unpack
from unipet.adaptation.report import AdaptReport, report_of
from unipet.adaptation.saved_adapter import check_base_model, method_of, stored_tensors, table_of, tensors_of
from unipet.adaptation.several import alone, beside, check_name
from unipet.adaptation.tensor_file import NAMES
from unipet.adaptation.unwrapping import unwraps, unwraps_to_adapt
from unipet.calculus.site_files import sites_for
from unipet.calculus.sites import table_data
from unipet.calculus.yaml_reader import write_yaml
from unipet.errors import UnipetError, nearest
from unipet.output.files import utf8, write_bytes_atomic, write_folder_atomic


@unwraps
def save(model: nn.Module, directory: str | Path, name: str | None = None) -> Path:
    """Write the method of an adapted model, its head included, into `directory`: of several adaptations the one called
    `name`, or the one in use.

    A new directory appears whole or not at all; in one that exists, each file does. Raises UnipetError if the directory
    cannot be written, and for values that are not finite.
    """
    with alone(model, name) as inserted:
        return _written(model, inserted, directory)


def _written(model: nn.Module, inserted: Adaptation, directory: str | Path) -> Path:
    import safetensors.torch

    if inserted.unsavable:
        raise UnipetError(f"Cannot save this method: {inserted.unsavable}. unipet.export_peft writes them.")
    tensors = {name: p.detach().to("cpu").contiguous() for name, p in stored(model).items()}
    if wrong := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise UnipetError(f"Cannot save this adapter: {', '.join(wrong[:4])} hold values that are not finite numbers.")
    packed = pack(tensors)
    # One metadata key only: safetensors writes several in random order, and equal runs should give equal bytes.
    data = safetensors.torch.save(packed, metadata={"format": "pt"})
    method = utf8(write_yaml(inserted.method.to_dict()))
    certificate = Certificate("save", matched_sites(inserted), {"sites": check_sites(model, inserted)})
    description = Description(
        base_model=_base_model(model, inserted),
        head=sorted(inserted.head),
        sites=None if inserted.table is None else table_data(inserted.table),
        frozen=_checksums(model),
        tensors={name: Shape(NAMES[tensor.dtype], list(tensor.shape)) for name, tensor in packed.items()},
        sha256=hashlib.sha256(data).hexdigest(),
        method_sha256=hashlib.sha256(method).hexdigest(),
        certificate=certificate,
    )
    out = Path(directory).expanduser()
    try:
        write_folder_atomic(out, {TENSORS: data, METHOD: method, DESCRIPTION: utf8(description.to_json())})
    except OSError as error:
        raise UnipetError(f"Cannot save the adapter to {out}: {error}.") from error
    return out


def _base_model(model: nn.Module, inserted: Adaptation) -> BaseModel:
    config: Any = model.config
    return BaseModel(
        **asdict(inserted.base_fingerprint or fingerprint(model, inserted.head, inserted.original)),
        name=str(getattr(config, "_name_or_path", "") or ""),
        revision=getattr(config, "_commit_hash", None),
        model_type=str(getattr(config, "model_type", "")),
        # the class that was adapted, also where torch has put one of its own in front (FSDP)
        kind=next(
            each.__name__ for each in type(model).__mro__ if not each.__module__.startswith("torch.distributed.")
        ),
    )


def annotate(directory: Path, training: Training | None, certificate: Certificate) -> None:
    """Write what is known of a saved adapter once it was evaluated into its description. Raises UnipetError where that cannot
    be read or written, and for a format that has no place for it."""
    description = description_of(directory)
    if description.format < FORMAT:
        raise UnipetError(
            f"{directory} has format {description.format}, which holds no certificate. Load it and save it again."
        )
    description.training, description.certificate = training or description.training, certificate
    try:
        write_bytes_atomic(directory / DESCRIPTION, utf8(description.to_json()))
    except OSError as error:
        raise UnipetError(f"{directory / DESCRIPTION}: cannot be written ({error.strerror or error}).") from error


@unwraps_to_adapt
def load(model: nn.Module, directory: str | Path, name: str | None = None, cast: bool = False) -> AdaptReport:
    """Adapt a base model with a saved method and its trained values; `name` as for `adapt`.

    The base model must be the one that was adapted (its fingerprint is compared) and every tensor must be there with
    its shape and number format, no more and no less; otherwise UnipetError says what differs and the model is left as it was.
    With `cast`, the base model may be in another precision than it was (bfloat16 instead of float32), and the values are cast.
    """
    source = Path(directory).expanduser()
    description = description_of(source)
    check_name(model, name)
    with beside(model, name):
        return _read(model, source, description, cast)


def _read(model: nn.Module, source: Path, description: Description, cast: bool) -> AdaptReport:
    held = stored_tensors(source, description)
    method = method_of(source, description)
    head = check_base_model(source, model, description, cast)
    packed = tensors_of(source, description)
    table = sites_for(model, table_of(source, description))
    inserted = build(model, method, table, head=head, most=sum(each.values for each in held.values()))
    inserted.table = table
    report = report_of(model, inserted)
    inserted.attach(model)
    try:
        own = parameters(model, head=True) if description.format in SAMPLED else stored(model)
        tensors = unpack(packed, own)
        _same_tensors(source, own, tensors, cast)
        _same_frozen(source, _checksums(model), description.frozen)
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])
    except BaseException:
        inserted.undo(model)
        raise
    return report


def _checksums(model: nn.Module) -> dict[str, Any]:
    """The frozen tensors of each insertion, which are not stored: a checksum of what a seed makes again, and one rough
    number for each tensor that comes from the base weight, whose last bits depend on the machine."""
    starts = {item.name: item.parts.function for item in adaptation(model).items}
    of_weight = {name for name, one in starts.items() if one.starts_from_weight or one.starts_from_text}
    found: dict[str, Any] = {}
    for name, tensor in frozen(model).items():
        insertion = name.split("/", 1)[0]
        if insertion in of_weight:
            found.setdefault(insertion, []).append(_rough(tensor))
        else:
            digest = found.setdefault(insertion, hashlib.sha256())
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {name: value if isinstance(value, list) else value.hexdigest()[:16] for name, value in found.items()}


def _rough(tensor: Tensor) -> float:
    """How far a tensor points into one fixed direction, about N(0, 1) for a random one."""
    flat = tensor.detach().double().flatten()
    direction = torch.sin(torch.arange(1, len(flat) + 1, device=flat.device, dtype=flat.dtype) * 1.618)
    return round(float(flat @ direction / flat.norm().clamp(min=1e-30)) * 2**0.5, 2)


def _same_frozen(source: Path, made: dict[str, Any], saved: dict[str, Any]) -> None:
    wrong = sorted(name for name in made.keys() | saved.keys() if not _alike(made.get(name), saved.get(name)))
    if wrong:
        raise UnipetError(
            f"{source}: the frozen tensors of {', '.join(wrong)} came out differently than when the adapter was saved. It "
            "needs the torch version that saved it, and the base model in the precision that it had."
        )


def _alike(made: Any, saved: Any) -> bool:
    if isinstance(made, list) and isinstance(saved, list):
        return len(made) == len(saved) and all(abs(one - other) <= 0.1 for one, other in zip(made, saved, strict=True))
    return bool(made == saved)


def _same_tensors(source: Path, own: dict[str, nn.Parameter], saved: dict[str, Tensor], cast: bool) -> None:
    missing, extra = sorted(set(own) - set(saved)), sorted(set(saved) - set(own))
    if missing or extra:
        hint = nearest(missing[0], extra) if missing else ""
        raise UnipetError(
            f"{source} does not fit this model: missing {missing[:4] or 'nothing'}, extra {extra[:4] or 'nothing'}"
            f"{' ...' if len(missing) + len(extra) > 8 else ''}.{hint}"
        )
    for name, parameter in own.items():
        if tuple(saved[name].shape) != tuple(parameter.shape):
            raise UnipetError(
                f"{source}: {name} is {tuple(saved[name].shape)} in the file but {tuple(parameter.shape)} in this model."
                + (" Load the base model with the task's number of labels." if name.startswith("head/") else "")
            )
        if saved[name].dtype != parameter.dtype and not cast:
            raise UnipetError(
                f"{source}: {name} is {NAMES[saved[name].dtype]} in the file but {NAMES.get(parameter.dtype)} in this model. "
                "Load the base model in the precision that it had, or say cast=True."
            )
