"""A finished run merged into a plain transformers folder: written, loaded from there again, and compared with the run."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.runs.record_files import ADAPTER, run_config

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Merged:
    """How the merged folder differs from the run: largest difference of outputs, relative to the largest output (at least 1)."""

    error: float  # from the run's model with its weights in float32
    limit: float  # how much of that is rounding in the number format that was asked for
    stored: float | None  # from the run's model as it was trained, where that is stored in fewer bits; else None
    untied: tuple[str, ...]  # parameters that were shared and are no longer


def merge_run(run: Path, record: Record, out: Path, *, dtype: str, partial: bool, untie: bool) -> Merged:
    """Write the run's model, its method folded into the weights, to `out`, with its tokenizer.

    It is folded in float64 into float32 weights (for a base model in 4 or 8 bits into those that it stands for, which were
    trained on) and stored in `dtype` (a key of `unipet.training.precision.DTYPES`). Then it is loaded from there, and its
    outputs for made-up inputs are compared. Raises `UnipetError`, and leaves nothing behind, where it cannot be folded,
    where `out` cannot be written, and where the outputs differ by more than rounding.
    """
    import unipet
    from unipet.adaptation.dequantising import dequantise
    from unipet.adaptation.made_up_inputs import made_up_inputs, outputs_of
    from unipet.adaptation.untying import untie as give_own
    from unipet.runs.base_model import load_base_model_of
    from unipet.training.precision import DTYPES

    config = run_config(run, record)
    model, tokenizer = load_base_model_of(config, record)
    unipet.load(model, run / ADAPTER)
    inputs = made_up_inputs(model)
    stored = outputs_of(model, inputs) if config.model.quantization or config.model.dtype != "fp32" else None
    if config.model.quantization is not None:
        dequantise(model)
    model.float()
    before = outputs_of(model, inputs)
    untied = tuple(give_own(model)) if untie else ()
    unipet.merge(model, partial=partial)
    model.to(DTYPES[dtype])
    with appearing(out) as folder:
        kind = type(model)
        _write(model, tokenizer, folder)
        del model
        gc.collect()
        after = outputs_of(_loaded(kind, folder, DTYPES[dtype]), inputs)
        return _compared(before, after, stored, DTYPES[dtype], untied)


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A temporary directory beside `out` that becomes `out` when the block ends, and is gone if an error ends it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UnipetError(f"{out}: cannot be written ({error.strerror or error}). Choose another place.") from None
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, out)  # an empty directory is replaced
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(model: Any, tokenizer: Any, folder: Path) -> None:
    import unipet
    from unipet.adaptation.adapted import CONTAINER

    weights = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{CONTAINER}.")}
    model.save_pretrained(folder, state_dict=weights)
    if hasattr(model, CONTAINER):  # insertions that do not fold stay a method
        unipet.save(model, folder / ADAPTER)
    tokenizer.save_pretrained(folder)


def _loaded(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The model in `folder`, as transformers loads it; what stays a method is loaded, too."""
    import unipet
    from unipet.runs.base_model import quiet_loading

    with quiet_loading():
        model, report = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    if lost := sorted({*report["missing_keys"], *report["unexpected_keys"]}):
        raise UnipetError(f"The merged folder does not hold what {kind.__name__} loads: {', '.join(lost[:4])}.")
    if (folder / ADAPTER).is_dir():
        unipet.load(model, folder / ADAPTER)
    return model


def _compared(before: Any, after: Any, stored: Any, dtype: torch.dtype, untied: tuple[str, ...]) -> Merged:
    from unipet.adaptation.proofs import ROUNDING, difference

    scale = max(1.0, *(float(rows.abs().max()) for rows in before if rows.numel()))
    error, limit = difference(before, after) / scale, ROUNDING[dtype]
    if not error <= limit:
        advice = " Half precision does not hold this model; leave out --dtype, and load the folder in half precision."
        raise UnipetError(
            f"The merged model's outputs differ by {error:.1e} of their scale from the run's, more than rounding "
            f"({limit:.0e}): nothing was written.{advice if limit > 1e-3 else ''}"
        )
    apart = None if stored is None else difference(stored, after) / scale
    return Merged(error, limit, apart, untied)
