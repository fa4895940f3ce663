"""What `init_lora_weights` says of the base weight: some of peft's starts take themselves off it whenever an adapter is made
or loaded, so that W - s B₀A₀ + s B A is computed. Here the base weight stays, and B₀A₀ is more rank of the map.

Shapes: D out width, U in width, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipet.calculus.weights import BaseWeight
from unipet.errors import UnipetError, nearest

KEY = "init_lora_weights"
#: Starts of which nothing is left once an adapter is trained: the base weight stays as it is.
_NEUTRAL = ("gaussian", "eva", "orthogonal", "mica")
#: Why an adapter of the others cannot be taken over: peft itself would need more than the directory holds.
_LOST = {
    "pissa_niter_": "its start is drawn at random whenever peft makes or loads the adapter, and is not stored",
    "corda": "its start depends on the data that the base model saw before training, which are not stored",
    "loftq": "it puts quantised weights in the place of the base model's, which are not stored",
    "lora_ga": "its start depends on gradients of the base model before training, which are not stored",
}
_CONVERT = "In peft, save it with save_pretrained(..., path_initial_model_for_weight_conversion=...) or merge it first."

#: (B₀ (D, R), A₀ (R, U)) with s B₀A₀ what the start takes off W.
Start = Callable[[Tensor, int, float], tuple[Tensor, Tensor]]


def _singular(weight_DU: Tensor, size: int, factor: float) -> tuple[Tensor, Tensor]:
    U_DK, S_K, Vh_KU = torch.linalg.svd(weight_DU, full_matrices=False)
    root_R = (S_K[:size] / factor).sqrt()
    return U_DK[:, :size] * root_R, root_R.unsqueeze(1) * Vh_KU[:size]


def _orthogonal(weight_DU: Tensor, size: int, factor: float) -> tuple[Tensor, Tensor]:
    Q_DK, R_KU = torch.linalg.qr(weight_DU)
    return Q_DK[:, :size], R_KU[:size]


_STARTS: dict[str, Start] = {"pissa": _singular, "olora": _orthogonal}


def check_start(source: Path, config: Mapping[str, Any]) -> None:
    """Raise UnipetError for a start that cannot be made again here, or is unknown."""
    given = config.get(KEY, True)
    if given is None or isinstance(given, bool):
        return
    name = str(given).lower()
    reason = next((why for start, why in _LOST.items() if name.startswith(start)), None)
    if reason is not None:
        raise UnipetError(f"{source}: {KEY}: {given!r} cannot be imported: {reason}. {_CONVERT}")
    if not isinstance(given, str) or name not in (*_NEUTRAL, *_STARTS):
        known = [*_NEUTRAL, *_STARTS]
        raise UnipetError(
            f"{source}: {KEY}: {given!r} is unknown. Allowed: true, false, {', '.join(known)}.{nearest(name, known)}"
        )


def with_start(
    source: Path, config: Mapping[str, Any], model: nn.Module, sites: Mapping[str, Mapping[str, Tensor]]
) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Tensor]]]:
    """Configuration and tensors that compute the same over the base weight as it is: of twice the rank, where the start
    took itself off it. s stays, so α grows with the rank (with its root for α/√r)."""
    start = _STARTS.get(str(config.get(KEY, True)).lower())
    if start is None:
        return config, sites
    size, alpha, root = config["r"], config["lora_alpha"], bool(config.get("use_rslora", False))
    if not (isinstance(size, int) and size > 0 and isinstance(alpha, int | float) and alpha):
        return config, sites  # reading the method reports what is wrong with them
    factor = alpha / (sqrt(size) if root else size)
    doubled: dict[str, Mapping[str, Tensor]] = {}
    for path, own in sites.items():
        module = model.get_submodule(path)
        if start is _orthogonal and not isinstance(module, nn.Linear):
            raise UnipetError(
                f"{source}: {KEY}: {config[KEY]!r} at {path}, a {type(module).__name__}, takes the transposed weight for the "
                f"weight in peft. {_CONVERT}"
            )
        # In float32, as peft computes it.
        B_DR, A_RU = start(BaseWeight(module, None).weight().detach().float(), size, factor)
        down, up = own.get("lora_A.weight"), own.get("lora_B.weight")
        if down is None or up is None or down.shape != A_RU.shape or up.shape != B_DR.shape:
            doubled[path] = own  # putting it into the model reports what is wrong with it
            continue
        start_RU, start_DR = A_RU.to(down), B_DR.to(up)
        doubled[path] = {
            **own,
            "lora_A.weight": torch.cat([down, start_RU]),
            "lora_B.weight": torch.cat([up, -start_DR], dim=1),
        }
    return {**config, "r": 2 * size, "lora_alpha": alpha * (sqrt(2) if root else 2)}, doubled
