"""The adapters library's configurations as insertions, and its tensors as our slots. Each of its architectures is a `Part`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.adapters_library.bottlenecks import Bottlenecks
from unipet.adaptation.adapters_library.layout import Stored
from unipet.adaptation.adapters_library.linear_maps import LinearMaps
from unipet.adaptation.adapters_library.part import Part
from unipet.adaptation.adapters_library.prefixes import Prefixes
from unipet.errors import UnipetError, nearest

Make = Callable[[Path, Mapping[str, Any], Stored, nn.Module, str], Part]
#: The `architecture` of a configuration; bottlenecks have none.
ARCHITECTURES: dict[str | None, Make] = {
    None: Bottlenecks,
    "bottleneck": Bottlenecks,
    "lora": LinearMaps,
    "prefix_tuning": Prefixes,
}
UNION = "union"
#: Before this version alpha / r was not applied, so that every adapter had learned a scale of 1.
_SCALED_SINCE = (1, 1, 0)

__all__ = ["ARCHITECTURES", "Part", "Tensor", "parts_of"]


def parts_of(source: Path, config: Mapping[str, Any], held: Stored, model: nn.Module) -> list[Part]:
    """One part for each configuration of a union, or the one that there is. Raises UnipetError for what cannot be imported."""
    whole = config["config"]
    each = whole.get("configs") if whole.get("architecture") == UNION else [whole]
    if not isinstance(each, list) or not 0 < len(each) <= 8 or not all(isinstance(own, dict) for own in each):
        raise UnipetError(
            f"{source}: config.configs: {str(each)[:60]} given; allowed: a list of up to 8 configurations."
        )
    found: list[Part] = []
    for number, own in enumerate(each):
        kind = own.get("architecture")
        if not isinstance(kind, str | None) or kind not in ARCHITECTURES:
            known = [str(name) for name in (*ARCHITECTURES, UNION) if name]
            raise UnipetError(
                f"{source}: architecture {str(kind)[:40]!r} cannot be imported. Those that can: none (bottlenecks), "
                f"{', '.join(known)}.{nearest(str(kind), known)}"
            )
        found.append(ARCHITECTURES[kind](source, _as_trained(config, own), held, model, str(number or "")))
    return found


def _as_trained(config: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with what the library itself changes when it reads one of an earlier version."""
    version = config.get("version")
    if version is None:  # names of activations from before there were versions
        renamed = {"gelu": "gelu_new", "gelu_orig": "gelu"}
        word = own.get("non_linearity")
        return {**own, "non_linearity": renamed[word]} if word in renamed else own
    numbers = str(version).removeprefix("adapters.").split(".")
    known = str(version).startswith("adapters.") and all(part.isdigit() for part in numbers[:3])
    if known and tuple(map(int, numbers[:3])) < _SCALED_SINCE and own.get("architecture") == "lora":
        return {**own, "alpha": own.get("r")}
    return own
