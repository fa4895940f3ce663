"""How a base model's frozen weights are stored: in half precision, in 8 bits (LLM.int8(), Dettmers et al. 2022) or in 4 bits
(NF4 with doubly quantised scales, Dettmers et al. 2023, QLoRA). What trains is float32 in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from unipet.config import ModelConfig, RunConfig
from unipet.errors import UnipetError

if TYPE_CHECKING:
    from torch import nn

    from unipet.adaptation.adapted import Adaptation


def check_storage(config: RunConfig, inserted: Adaptation) -> None:
    """Raises `UnipetError` where a run cannot compute with, or cannot train, weights that are stored so. `config.precision`
    is one of this device, no longer "auto"."""
    dtype = config.model.dtype
    if dtype == "fp32":
        return
    if config.precision == "fp32":
        raise UnipetError(
            f"model.dtype: weights stored as {dtype} need precision=bf16 or precision=fp16; precision=fp32 given "
            "(precision=auto chooses fp32 where bf16 is not native). Set precision=bf16, or model.dtype=fp32."
        )
    if stored := sorted({part for part in inserted.unfrozen.values() if part != "head"}):
        raise UnipetError(
            f"model.dtype: {dtype} given, and method.unfreeze: {stored} trains parameters of the base model, whose small "
            f"steps {dtype} would round away. Set model.dtype=fp32; precision={config.precision} may stay."
        )


def loading_options(model: ModelConfig, unquantised: Iterable[str] = ()) -> dict[str, Any]:
    """The arguments of `from_pretrained` for weights that are stored so. `unquantised` are the modules that stay as they are.

    Quantised layers compute in `model.dtype`. Raises `UnipetError` where bitsandbytes is not installed.
    """
    from unipet.training.precision import DTYPES

    options: dict[str, Any] = {"dtype": DTYPES[model.dtype]}
    if model.attention is not None:
        options["attn_implementation"] = model.attention
    if model.quantization is None:
        return options
    if find_spec("bitsandbytes") is None:
        raise UnipetError(
            f"model.quantization: {model.quantization} given, and bitsandbytes, which stores weights so, is not installed. "
            "Run: pip install 'unipet[quantised]', or set model.quantization=null."
        )
    from transformers import BitsAndBytesConfig

    kept = {"llm_int8_skip_modules": sorted(unquantised)}
    if model.quantization == "8bit":
        how = BitsAndBytesConfig(load_in_8bit=True, **kept)
    else:
        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=DTYPES[model.dtype], **nf4, **kept)
    return options | {"quantization_config": how}


def not_quantised(model: nn.Module) -> list[str]:
    """The modules whose weights stay as they are: the head, which trains, and what yields the words of a language model."""
    from unipet.calculus.sites import head_names

    output = getattr(model, "get_output_embeddings", lambda: None)()
    words = [name for name, module in model.named_modules() if output is not None and module is output]
    return [*{name.rpartition(".")[0] for name in head_names(model)}, *words]


def mark_quantised(model: nn.Module) -> None:
    """Make the linear weights of a model without storage look stored in integers, so that all that cannot be done with
    such weights is refused before any are loaded."""
    import torch

    for name in _linear(model, not_quantised(model)):
        module = model.get_submodule(name)
        weight: Any = module.weight
        stored = torch.nn.Parameter(torch.empty(weight.shape, dtype=torch.int8, device="meta"), requires_grad=False)
        stored._is_hf_initialized = getattr(weight, "_is_hf_initialized", False)  # type: ignore[attr-defined]  # or drawn
        module.weight = stored


def settle(model: nn.Module, dtype: str) -> None:
    """After loading: what trains is float32, and 4-bit weights stay as they are.

    On some CPUs bitsandbytes reorders the weights at the first evaluation and rounds their scales to bfloat16. What comes after
    would then depend on whether there was an evaluation before, as there is none after a run is taken up.
    """
    from unipet.calculus.sites import head_names

    if dtype != "fp32":
        head = head_names(model)
        for name, each in model.named_parameters():
            if name in head:
                each.data = each.data.float()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _linear(model: nn.Module, but: Iterable[str]) -> list[str]:
    from torch import nn

    kept = set(but)
    kinds = ("Linear", "Conv1D")  # transformers' own Conv1D, GPT-2's
    return [name for name, one in model.named_modules() if _kind(one, nn) in kinds and name not in kept]


def _kind(module: Any, nn: Any) -> str:
    return "Linear" if type(module) is nn.Linear else type(module).__name__
