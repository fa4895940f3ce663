"""Loading base models: from the hub, a directory or a Python package, always as a directory of safetensors files.

No code from a checkpoint is run: no pickle, no `trust_remote_code`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.config import ModelConfig, RunConfig
from unipet.errors import UnipetError
from unipet.output.stopwatch import importing, phase
from unipet.runs.checks import check_tokenizer, check_weights, fit_tokenizer
from unipet.runs.model_files import check_unchanged, first_line, has_weights, locate, verify
from unipet.runs.record import Record
from unipet.runs.storage import loading_options, mark_quantised, not_quantised, settle
from unipet.runs.tokenizer_files import read_tokenizer
from unipet.tasks.kinds import Kind, kind_of

if TYPE_CHECKING:
    from torch import nn

#: Keys of a model's configuration that are probabilities of dropout: hidden_dropout_prob, attention_dropout, resid_pdrop, ...
_DROPOUT = re.compile(r"(?:^|_)(?:dropout|pdrop)(?:_|$)")


def base_config(model: ModelConfig) -> Any:
    """The base model's transformers configuration, without its weights. Raises `UnipetError` as `load_base_model`."""
    return _read_config(locate(model, weights=False), {})


@phase("base_model")
def skeleton(model: ModelConfig, kind: str, labels: Sequence[str] = (), as_saved: bool = False) -> nn.Module:
    """The base model as a task of this kind uses it, without weights (on the meta device); a new head is one for `labels`, where
    they are known.

    With `as_saved`, a base model that does not support this kind is built as the class that its checkpoint names. Raises
    `UnipetError` as `load_base_model`, and for a kind that this base model does not support.
    """
    import transformers

    from unipet.adaptation import describing

    directory, row = locate(model, weights=False), kind_of(kind)
    regression = kind == "regression"
    own_head = not row.pretrained_head and (regression or len(labels) > 0)
    config = _read_config(directory, _head(list(labels), regression, kind) if own_head else {})
    if as_saved and type(config) not in getattr(transformers, row.auto)._model_mapping:
        made = describing.skeleton(config)
    else:
        made = _without_weights(_loader(config, row, kind, model), directory, config, model)
    if model.quantization is not None:
        loading_options(model)  # or an error where they cannot be stored so
        mark_quantised(made)
    return made


def _without_weights(loader: Any, directory: Path, config: Any, model: ModelConfig) -> nn.Module:
    import torch

    plain = loading_options(replace(model, dtype="fp32", quantization=None))
    if has_weights(directory):  # tensors that they lack are drawn when loading: they belong to the head
        with suppress(Exception):  # loading reports damaged weights
            return _from_pretrained(loader, directory, config, device_map="meta", **plain)[0]
    try:
        with torch.device("meta"):
            made: nn.Module = loader.from_config(config, **plain)
    except Exception as error:  # values in config.json that do not fit each other
        raise _not_loaded(f"{model.path}:", model, error) from error
    return made


def _not_loaded(what: str, model: ModelConfig, error: Exception) -> UnipetError:
    """transformers' errors about an attention name it, and come first: nothing else has been read by then."""
    if model.attention is not None and isinstance(error, ImportError | ValueError):
        return UnipetError(
            f"model.attention: {model.attention} cannot be used with this base model here: {first_line(error)} "
            "model.attention=sdpa and eager need nothing else."
        )
    return UnipetError(f"model.path: {what} {first_line(error)}")


def load_base_model_of(config: RunConfig, record: Record) -> tuple[nn.Module, Any]:
    """Base model and tokenizer of a finished run, loaded as its configuration says. Raises `UnipetError` as
    `load_base_model`, and if the model's configuration or tokenizer has changed since (the record has checksums)."""
    task = config.task
    check_unchanged(config.model, record.identity.base_model)
    return load_base_model(config.model, list(task.labels), task.kind == "regression", task.kind)


def load_base_model(
    model: ModelConfig, labels: list[str], regression: bool, kind: str = "classification"
) -> tuple[nn.Module, Any]:
    """The base model as a task of this kind uses it, and its tokenizer.

    If the kind needs a new head, the model gets one for `labels` (one output for regression). Weights are stored as `model`
    says, whatever the checkpoint stores; the head in float32. A head that the checkpoint lacks is initialised from torch's
    current random state. Raises `UnipetError` for what is missing or unreachable, a wrong checksum, an unreadable configuration,
    weights that do not match it, a tokenizer that does not match the weights, and a kind that it does not support.
    """
    loaded, tokenizer, _ = load_with_drawn(model, labels, regression, kind)
    return loaded, tokenizer


@phase("base_model")
def load_with_drawn(
    model: ModelConfig, labels: list[str], regression: bool, kind: str
) -> tuple[nn.Module, Any, frozenset[str]]:
    """As `load_base_model`, and the names of the parameters that were drawn because the checkpoint has none that fit."""
    directory = locate(model, weights=True)
    verify(directory, model)
    row = kind_of(kind)
    config = _read_config(directory, {} if row.pretrained_head else _head(labels, regression, kind))
    _set_dropout(config, model)
    loader = _loader(config, row, kind, model)
    tokenizer = _read_tokenizer(directory)
    kept = [] if model.quantization is None else not_quantised(_without_weights(loader, directory, config, model))
    try:
        loaded, found = _from_pretrained(loader, directory, config, **loading_options(model, kept))
    except Exception as error:  # transformers and safetensors raise many types for a broken file
        raise _not_loaded(f"cannot load {directory}:", model, error) from error
    check_weights(loaded, found, directory, row.pretrained_head)
    fit_tokenizer(tokenizer, loaded, directory)
    settle(loaded, model.dtype)
    drawn = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    return loaded, tokenizer, frozenset(drawn)


@phase("base_model")
def _from_pretrained(loader: Any, directory: Path, config: Any, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The model in `directory`, and transformers' loading information (missing and mismatched keys)."""
    with quiet_loading():
        loaded, found = loader.from_pretrained(
            directory,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced; `check_weights` rejects all other cases
            output_loading_info=True,
            **options,
        )
    return loaded, found


def load_tokenizer(model: ModelConfig) -> Any:
    """The base model's tokenizer alone. Raises `UnipetError` as `load_base_model`."""
    directory = locate(model, weights=True)
    tokenizer = _read_tokenizer(directory)
    check_tokenizer(tokenizer, _read_config(directory, {}), directory)
    return tokenizer


def _read_tokenizer(directory: Path) -> Any:
    with quiet_loading():
        return read_tokenizer(directory)


def _head(labels: list[str], regression: bool, kind: str) -> dict[str, Any]:
    """The keys of the model's configuration that describe the new head."""
    if kind == "multiple_choice":  # one score per choice; names play no part
        return {}
    names = dict(enumerate(["value"] if regression else labels))
    found: dict[str, Any] = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    if kind != "token_classification":
        labelled = "multi" if kind == "multi_label" else "single"
        found["problem_type"] = "regression" if regression else f"{labelled}_label_classification"
    return found


def _loader(config: Any, row: Kind, kind: str, model: ModelConfig) -> Any:
    """The transformers class for this kind. Raises `UnipetError` if the base model does not support it."""
    with importing():  # takes seconds: transformers imports its models on first use
        import transformers
        from transformers import PreTrainedModel  # noqa: F401

    loader = getattr(transformers, row.auto)
    able = type(config) in loader._model_mapping
    both = bool(getattr(config, "is_encoder_decoder", False))
    if kind in ("causal_generation", "causal_prompt") and able:
        # transformers has such a class for encoders, too, but an encoder attends to the words that it should predict.
        encoder = type(config) in transformers.AutoModelForMaskedLM._model_mapping
        able = not both and (not encoder or bool(getattr(config, "is_decoder", False)))
    if kind == "masked_prompt" and both:
        able = False
    if able:
        return loader
    name = model.path if model.name == "auto" else model.name
    what = "an encoder-decoder" if both else f"a {config.model_type} model"
    raise UnipetError(
        f"task.kind={kind}: the base model {name} is {what}, which does not support this kind; needed: {row.base}. "
        "Choose another model=..., or a task of another kind."
    )


def _set_dropout(config: Any, model: ModelConfig) -> None:
    """Give every probability of dropout in a configuration the value of `model.dropout`, where it has one. Raises
    `UnipetError` for a configuration without such a key."""
    if model.dropout is None:
        return
    names = [name for name, value in config.to_dict().items() if _DROPOUT.search(name) and value is not None]
    if not names and model.dropout > 0:
        raise UnipetError(
            f"model.dropout={model.dropout:g}: the configuration of a {config.model_type} model has no dropout. Leave it out."
        )
    for name in names:
        setattr(config, name, float(model.dropout))


def _read_config(directory: Path, changes: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    path = directory / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "model_type" not in content:
            raise UnipetError(f"{path}: no model_type, so this is not the configuration of a transformers model.")
        return AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True, **changes)
    except UnipetError:
        raise
    except Exception as error:  # invalid JSON, values of wrong types, an architecture this transformers does not know
        raise UnipetError(f"{path}: not a usable model configuration: {first_line(error)}") from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' progress bar and its report of missing keys, which `check_weights` examines itself."""
    from transformers.utils import logging as hf_logging

    logger = logging.getLogger("transformers.modeling_utils")
    bar = hf_logging.is_progress_bar_enabled()
    logger.addFilter(_not_a_load_report)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(_not_a_load_report)
        if bar:
            hf_logging.enable_progress_bar()


def _not_a_load_report(line: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in line.getMessage()
