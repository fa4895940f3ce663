"""What vLLM reads of a peft directory, and a method's tensors in that form.

vLLM's `PEFTHelper` (vllm/lora/peft_helper.py) takes `r`, `lora_alpha` and `use_rslora` of the configuration, one for all modules:
it knows no `rank_pattern` and no `alpha_pattern`. It refuses renormalised rows and `modules_to_save`, and its reader of tensors
(vllm/lora/utils.py) any name but `lora_A.weight` and `lora_B.weight` of a linear layer. A server's `--max-lora-rank` is one of
RANKS (vllm/config/lora.py). Here every scale goes into B, so that a server which looks at α and r alone computes the same.

Shapes: D out width, U in width, R rank.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
ROLES = ("attn.q", "attn.k", "attn.v", "attn.qkv", "attn.o", "ffn.up", "ffn.gate", "ffn.down")
_START = "base_model.model."


def as_served(
    model: nn.Module, items: list[Insertion], config: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of one rank and one scale. Raises UnipetError, by name, for what vLLM does not apply."""
    if config["peft_type"] != "LORA":
        raise _refuse(f"it serves low-rank maps alone, and this is peft's {config['peft_type']}")
    for key, why in (
        ("use_dora", "it does not renormalise rows"),
        ("lora_bias", "it adds no bias"),
        ("modules_to_save", "it takes no whole modules, such as a task's head"),
    ):
        if config[key]:
            raise _refuse(f"{why} ({key}: {config[key]})")
    if config["task_type"] != "CAUSAL_LM":
        raise _refuse(f"{type(model).__name__} is no decoder that generates")
    for item in items:
        if item.site.role not in ROLES or not isinstance(model.get_submodule(item.site.path), nn.Linear):
            raise _refuse(f"{item.site.path} ({item.site.role}) is no linear layer of attention or feed-forward")
    ranks = {path: len(tensors[f"{_START}{path}.lora_A.weight"]) for path in config["target_modules"]}
    most = max(ranks.values())
    if most > RANKS[-1]:
        raise _refuse(f"rank {most} is more than a server takes ({RANKS[-1]})")
    made: dict[str, Tensor] = {}
    for path, rank in ranks.items():
        alpha = config["alpha_pattern"][path] if path in config.get("alpha_pattern", {}) else config["lora_alpha"]
        s = alpha / (rank**0.5 if config["use_rslora"] else rank)
        A_RU, B_DR = (tensors[f"{_START}{path}.lora_{letter}.weight"] for letter in "AB")
        made[f"{_START}{path}.lora_A.weight"] = F.pad(A_RU, (0, 0, 0, most - rank))
        made[f"{_START}{path}.lora_B.weight"] = F.pad(B_DR * s, (0, most - rank))
    plain = {key: value for key, value in config.items() if key not in ("rank_pattern", "alpha_pattern")}
    return {**plain, "r": most, "lora_alpha": most, "use_rslora": False}, made


def server_rank(rank: int) -> int:
    """The smallest `--max-lora-rank` that takes this rank."""
    return next(allowed for allowed in RANKS if allowed >= rank)


def _refuse(why: str) -> UnipetError:
    return UnipetError(
        f"vLLM cannot apply this adapter: {why}. `unipet merge` writes a model that vLLM serves without one; --to peft writes "
        "what peft can apply."
    )
