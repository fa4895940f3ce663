"""Which modules peft's configuration means, by peft's own rules: each must have its tensors, and no other may."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unipet.adaptation.peft.patterns import checked_pattern
from unipet.errors import UnipetError

_ALL = "all-linear"
_HEADS = ("score", "classifier")  # what "all-linear" leaves out of a sequence classifier, the first that is there


def check_targets(source: Path, config: Mapping[str, Any], model: nn.Module, stored: Collection[str]) -> None:
    """Raise UnipetError unless `stored`, the modules that have tensors, are the modules that the configuration targets."""
    meant = targeted(source, config, model)
    missing = [path for path in meant if path not in stored]
    if missing:
        raise UnipetError(
            f"{source}: target_modules: it targets {len(meant)} modules of this {type(model).__name__}, and the tensors of "
            f"{len(missing)} are missing: {_few(missing)}. Copy the whole adapter again, or load the base model that it "
            "was trained on."
        )
    foreign = [path for path in stored if path not in meant]
    if foreign:
        raise UnipetError(
            f"{source}: target_modules: there are tensors of {len(foreign)} modules that it does not target: {_few(foreign)}. "
            "peft would leave them out. Complete target_modules, or remove the tensors."
        )


def saved_names(source: Path, config: Mapping[str, Any], model: nn.Module) -> list[str]:
    """The parameters of the modules that `modules_to_save` names."""
    named = _names(source, config, "modules_to_save")
    ends = tuple(f".{name}" for name in named)
    saved = [path for path, _ in model.named_modules() if path in named or path.endswith(ends)]
    return [name for name, _ in model.named_parameters() if any(name.startswith(f"{path}.") for path in saved)]


def check_saved_modules(source: Path, config: Mapping[str, Any], whole: list[str], stored: Collection[str]) -> None:
    """Raise UnipetError unless `stored`, the stored parameters of the model itself, are the `whole` of `modules_to_save`."""
    named = _names(source, config, "modules_to_save")
    missing, foreign = [name for name in whole if name not in stored], [name for name in stored if name not in whole]
    if missing:
        raise UnipetError(f"{source}: modules_to_save: {named} are to be there, and {_few(missing)} are missing.")
    if foreign:
        raise UnipetError(f"{source}: modules_to_save: it names {named}, and not {_few(foreign)}, which are stored.")


def _few(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")


def _names(source: Path, config: Mapping[str, Any], key: str) -> list[str]:
    given = config.get(key) or []
    if not isinstance(given, list) or not all(isinstance(name, str) and name for name in given):
        raise UnipetError(f"{source}: {key}: {given!r} given; allowed: a list of module names.")
    return given


def targeted(source: Path, config: Mapping[str, Any], model: nn.Module) -> list[str]:
    """The module paths that `target_modules` and what narrows it mean, in the model's order."""
    given = config.get("target_modules")
    if given is None or given == [] or given == "":
        raise KeyError("target_modules")
    paths = [path for path, _ in model.named_modules() if path]
    saved = [
        checked_pattern(source, "modules_to_save", rf"(^|.*\.){name}($|\..*)")
        for name in _names(source, config, "modules_to_save")
    ]
    paths = [path for path in paths if not any(pattern.match(path) for pattern in saved)]
    if config.get("exclude_modules"):
        left_out = set(_matching(source, config, "exclude_modules", paths))
        paths = [path for path in paths if path not in left_out]
    if isinstance(given, str) and given.lower() == _ALL:
        kept = set(_linear(model, config))
        return [path for path in paths if path in kept]
    return _in_layers(source, config, _matching(source, config, "target_modules", paths))


def _matching(source: Path, config: Mapping[str, Any], key: str, paths: list[str]) -> list[str]:
    """The paths that a key means: a string is a pattern of the whole path, a list holds paths or their ends."""
    given = config[key]
    if isinstance(given, str):
        pattern = checked_pattern(source, key, given)
        return [path for path in paths if pattern.fullmatch(path)]
    named = set(_names(source, config, key))
    ends = tuple(f".{name}" for name in named)
    return [path for path in paths if path in named or path.endswith(ends)]


def _in_layers(source: Path, config: Mapping[str, Any], paths: list[str]) -> list[str]:
    """Those in the layers of `layers_to_transform`, which narrows a list of names, and not what names a whole path."""
    layers, named = config.get("layers_to_transform"), config["target_modules"]
    if layers is None or layers == [] or isinstance(named, str):
        return paths
    chosen = [layers] if isinstance(layers, int) else layers
    if not isinstance(chosen, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in chosen):
        raise UnipetError(
            f"{source}: layers_to_transform: {layers!r} given; allowed: a layer's number, or a list of them."
        )
    given = config.get("layers_pattern")
    around = [given] if isinstance(given, str) and given else _names(source, config, "layers_pattern")
    patterns = [rf"(?:^|.*?\.){name}\.(\d+)\." for name in around] or [r".*?\.[^.]*\.(\d+)\."]
    for pattern in patterns:
        checked_pattern(source, "layers_pattern", pattern)

    def layer(path: str) -> int | None:
        match = next((found for pattern in patterns if (found := re.match(pattern, path))), None)
        return None if match is None else int(match[1])

    return [path for path in paths if path in named or layer(path) in chosen]


def _linear(model: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """Every linear layer but the output layer: a language model's output embeddings, or a sequence classifier's head."""
    output: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if output is None and config.get("task_type") == "SEQ_CLS":
        output = next((getattr(model, name) for name in _HEADS if hasattr(model, name)), None)
    linear = [(path, module) for path, module in model.named_modules() if _is_linear(module)]
    return [path for path, module in linear if module is not output]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
