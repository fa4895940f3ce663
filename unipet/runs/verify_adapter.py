"""The certificate of a saved adapter that lies apart from its run, made again with made-up inputs: it has no examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.adaptation.certificate import Certificate, Check
from unipet.errors import UnipetError
from unipet.runs.certify import files_again, put_in_order, try_checks

if TYPE_CHECKING:
    from unipet.adaptation.description import Description

LENGTHS = (5, 8, 12, 16)  # tokens of the made-up inputs
MOST_LABELS = 100_000


def verify_adapter(directory: Path, base: Path) -> Certificate:
    """Load the base model in the directory `base` and the adapter in `directory`, check what can be checked without data, and
    write the certificate into the adapter's description. What only the run could know (which tensors moved) stays as it was
    certified.

    Raises `UnipetError` where either cannot be read, or they do not belong together.
    """
    from unipet.adaptation.adapted import adaptation
    from unipet.adaptation.checkpoint import annotate, load
    from unipet.adaptation.description import FORMAT, description_of
    from unipet.adaptation.matched_sites import check_sites, matched_sites
    from unipet.adaptation.proofs import check_finite
    from unipet.training.invariance import check_invariance

    description = description_of(directory)
    model = _base_model(base, description.base_model.kind, description.base_model.dtype)
    if (
        labels := _labels(model, description)
    ) is not None:  # the base model's directory does not say how many there are
        model = _base_model(base, description.base_model.kind, description.base_model.dtype, labels)
    load(model, directory)
    earlier = description.certificate or Certificate()
    made = Certificate("verify", matched_sites(adaptation(model)), protocol=earlier.protocol)
    made.checks |= {
        name: earlier.checks[name] for name in ("moved", "frozen", "generation_cache") if name in earlier.checks
    }
    made.checks["sites"] = check_sites(model, adaptation(model))
    probe = _probe(model)
    together: list[Any] = []

    def invariance() -> dict[str, Check]:
        together.extend(probe.outputs(model))
        return check_invariance(model, probe, together)

    try_checks(made, ("finite",), lambda: {"finite": check_finite(model)})
    try_checks(made, ("padding", "batch_size", "row_order"), invariance)
    try_checks(made, ("merge", "round_trip"), lambda: files_again(model, directory, probe, together))
    put_in_order(made, "an adapter apart from its run has no data")
    if description.format == FORMAT:
        annotate(directory, None, made)
    return made


def _labels(model: Any, description: Description) -> int | None:
    """How many labels the saved head has, if it has others than that of `model`."""
    own = dict(model.named_parameters())
    for name, saved in description.tensors.items():
        part, _, path = name.partition("/")
        tensor = own.get(path.replace("/", ".")) if part == "head" else None
        if tensor is None or not saved.shape or list(tensor.shape) == saved.shape:
            continue
        if tensor.shape[0] == model.config.num_labels and 0 < saved.shape[0] <= MOST_LABELS:
            return saved.shape[0]
    return None


def _base_model(base: Path, kind: str, dtype: str, labels: int | None = None) -> Any:
    """The model in a directory, of the transformers class and in the number format that the adapter was saved with."""
    import torch
    import transformers

    from unipet.runs.base_model import quiet_loading
    from unipet.runs.model_files import first_line

    if not (base / "config.json").is_file():
        raise UnipetError(f"{base}: no config.json, so it is not the directory of a base model.")
    named = getattr(transformers, kind, None) if kind else None
    if not isinstance(named, type) or not issubclass(named, transformers.PreTrainedModel):
        raise UnipetError(
            f"The adapter was saved for a model of class {kind[:60]!r}, which transformers does not have."
        )
    loader: Any = named
    try:
        with quiet_loading():
            model = loader.from_pretrained(
                base,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype=getattr(torch, dtype, None),
                **({} if labels is None else {"num_labels": labels}),
            )
    except Exception as error:  # transformers and safetensors raise many types for a broken file
        raise UnipetError(f"{base}: cannot be loaded as {kind}: {first_line(error)}") from error
    return model.eval()


def _probe(model: Any) -> Any:
    """Made-up examples of several lengths."""
    import torch

    from unipet.tasks import EncodedRows
    from unipet.tasks.collate import collate
    from unipet.tasks.readout import rows, tokens
    from unipet.training.invariance import Probe

    pad = getattr(model.config, "pad_token_id", None) or 0
    size = int(model.config.get_text_config().vocab_size)
    stream = torch.Generator().manual_seed(0)
    ids = [(torch.randint(pad + 1, size, (length,), generator=stream)).tolist() for length in LENGTHS]
    one = "SequenceClassification" in type(model).__name__
    columns = {"input_ids": ids} if one else {"input_ids": ids, "labels": ids}
    examples = EncodedRows(columns, [0] * len(ids) if one else None, 0.0)
    return Probe.of(examples, collate(_Padding(pad)), rows if one else tokens, pad)


class _Padding:
    """What batches need of a tokenizer."""

    def __init__(self, pad: int) -> None:
        self.pad_token_id, self.pad_token_type_id = pad, 0
