"""peft's directories: `adapter_config.json` and `adapter_model.safetensors`, written and read without peft itself."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.api import adapt
from unipet.adaptation.peft.reading import check_config, imported, read
from unipet.adaptation.peft.reloading import Compared, compared, is_installed
from unipet.adaptation.peft.served import as_served, server_rank
from unipet.adaptation.peft.writing import written
from unipet.adaptation.report import AdaptReport
from unipet.adaptation.unwrapping import unwraps, unwraps_to_adapt
from unipet.errors import UnipetError, unknown
from unipet.output.files import temporary_name, utf8, write_bytes_atomic

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
LAYOUTS = ("peft", "vllm")


@dataclass(frozen=True)
class Exported:
    """A directory that was written, how it compares with peft (None: peft is not installed), and a server's rank for it."""

    directory: Path
    compared: Compared | None
    rank: int | None = None  # that a vLLM server must allow

    @property
    def words(self) -> str:
        """In a line or two, for people."""
        serve = (
            "" if self.rank is None else f"\nserve it with: vllm serve BASE --enable-lora --max-lora-rank {self.rank}"
        )
        if self.compared is None:
            return f"not compared: peft is not installed (pip install peft){serve}"
        return (
            f"peft {self.compared.version} loads it; outputs differ by {self.compared.error:.1e} of their scale (rounding is up "
            f"to {self.compared.limit:.0e}){serve}"
        )


def export_peft(model: nn.Module, directory: str | Path, layout: str = "peft") -> Path:
    """Write the method of an adapted model so that `peft.PeftModel.from_pretrained(base, directory)` computes the same.

    What is possible follows from the method's four dimensions: low-rank maps at linear layers (of several ranks, with
    renormalised rows or not), vectors that rescale or shift, maps between random matrices, of shared numbers or of entries at
    places, Hadamard and Kronecker products, circulants, grids, rotations, butterflies and reflections, projections, prefixes,
    virtual tokens. The task's head and whole unfrozen modules go along. Where peft is
    installed, it loads the directory and its outputs are compared before the directory is there; otherwise a warning says that
    nobody has. `layout: vllm` writes one rank, and every scale inside the tensors.

    Raises UnipetError saying why peft (or vLLM) cannot express anything else; nothing is written then.
    """
    made = exported(model, directory, layout)
    if made.compared is None:
        warnings.warn(
            f"{made.directory} was written and not compared, as peft is not installed (pip install peft).", stacklevel=2
        )
    return made.directory


@unwraps
@torch.no_grad()
def exported(model: nn.Module, directory: str | Path, layout: str = "peft", tokenizer: Any = None) -> Exported:
    """The same, with a tokenizer beside it; returns what was compared instead of warning."""
    import safetensors.torch

    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    inserted = adaptation(model)
    training, _ = inserted.training, inserted.eval()
    try:
        config, tensors = written(model, inserted)
        if layout == "vllm":
            config, tensors = as_served(model, inserted.items, config, tensors)
    finally:
        inserted.train(training)
    ready = {name: tensor.detach().to("cpu").clone().contiguous() for name, tensor in tensors.items()}
    out = Path(directory).expanduser()
    folder = temporary_name(out)
    try:
        folder.mkdir(parents=True)
        write_bytes_atomic(folder / TENSORS, safetensors.torch.save(ready, metadata={"format": "pt"}))
        write_bytes_atomic(folder / CONFIG, utf8(json.dumps(config, indent=2, sort_keys=True)))
        found = compared(model, inserted, folder) if is_installed() else None
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        _put(folder, out)
    except OSError as error:
        raise UnipetError(f"Cannot write to {out}: {error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(out, found, server_rank(config["r"]) if layout == "vllm" else None)


def _put(folder: Path, out: Path) -> None:
    """Make a folder `out`, or put its files into the one that is there, the configuration last."""
    if not out.exists() or not any(out.iterdir()):
        os.replace(folder, out)
        return
    for path in sorted(folder.iterdir(), key=lambda each: each.name == CONFIG):
        os.replace(path, out / path.name)


@unwraps_to_adapt
def import_peft(model: nn.Module, directory: str | Path) -> AdaptReport:
    """Adapt a base model with a directory that peft (or `export_peft`) wrote, and take over its values.

    The method is called `imported`; its sites are the roles whose modules the tensors name. Raises UnipetError where the
    directory says something that no composition here computes, or does not fit the model, which is then left as it was.
    """
    source = Path(directory).expanduser()
    config, tensors = read(source, CONFIG, TENSORS)
    check_config(source, config)
    method, values = imported(model, source, config, tensors)
    report = adapt(model, method)
    inserted = adaptation(model)
    try:
        values(inserted)
    except BaseException:
        inserted.undo(model)
        raise
    return report
