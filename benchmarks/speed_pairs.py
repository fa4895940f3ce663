"""The methods whose speed is measured, each beside a peer with equal sites and sizes: peft, or plain torch.

A pair is a shipped method with options, and the configuration that makes peft compute the same. peft gets its target
modules from the sites of ours, so they are equal; `benchmarks.speed_variants` refuses a pair that trains another number of
parameters. Dropout of insertions is left out on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from unipet.config import conf_dir

#: Every projection of a layer; each architecture has some of them.
LINEAR = [
    *("attn.q", "attn.k", "attn.v", "attn.o", "cross.q", "cross.k", "cross.v", "cross.o"),
    *("ffn.gate", "ffn.up", "ffn.down"),
]
_ALL = {"site": LINEAR, "form": "parallel", "optional": [*LINEAR[4:9]]}
_KEPT = {"name": "concat", "after": "start", "keep_outputs": True}  # where peft puts virtual tokens

#: (paths of the sites, those of them that act at an input, peft's word for the task) -> peft's configuration.
Peer = Callable[[list[str], list[str], str], Any]


@dataclass(frozen=True)
class Pair:
    """One row of the comparison. Without `peft`, peft has no such method. `torch`: the parameters that plain torch trains
    in its place, by a part of their name."""

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peft: Peer | None = None
    torch: tuple[str, ...] | None = None
    models: tuple[str, ...] = ("encoder",)  # the structures on which the pair is measured

    def spec(self) -> dict[str, Any]:
        """The method as a mapping. An option that is null is left out."""
        text = (conf_dir() / "method" / f"{self.method}.yaml").read_text(encoding="utf-8")
        spec: dict[str, Any] = yaml.safe_load(text)
        for insertion in spec["insertions"].values():
            insertion["function"].pop("dropout", None)
        for key, value in self.options.items():
            *parents, last = key.split(".")
            owner = spec
            for parent in parents:
                owner = owner[parent]
            if value is None:
                owner.pop(last)
            else:
                owner[last] = value
        return spec

    @property
    def peer(self) -> str:
        """Whose implementation is measured beside ours."""
        return "peft" if self.peft else "torch" if self.torch is not None else ""


def _at_sites(kind: str, **options: Any) -> Peer:
    """peft's configuration for insertions at the given modules."""

    def make(paths: list[str], inputs: list[str], task: str) -> Any:
        import peft

        return getattr(peft, f"{kind}Config")(target_modules=paths, task_type=task, **options)

    return make


def _vectors(paths: list[str], inputs: list[str], task: str) -> Any:
    import peft

    return peft.IA3Config(target_modules=paths, feedforward_modules=inputs, task_type=task)


def _tokens(kind: str, **options: Any) -> Peer:
    """peft's configuration for virtual tokens, which have no target modules."""

    def make(paths: list[str], inputs: list[str], task: str) -> Any:
        import peft

        return getattr(peft, f"{kind}Config")(task_type=task, **options)

    return make


_EVERY = ("encoder", "decoder", "encoder-decoder")
_NOT_BOTH = ("encoder", "decoder")
#: MAM's sizes on GLUE (He et al. 2022, §4.6). Those for XSum, 30 and 512, are meant for a model three times as wide as MiniLM.
_OF_GLUE = {
    "insertions.attention.function.size": 16,
    "insertions.ffn.function.size": 16,
    "insertions.ffn.scaling": 2.0,
}

#: In the order of interest: where time is short, the first are measured most often.
PAIRS = (
    Pair(
        "LoRA, q and v",
        "lora",
        {"insertions.attention.function.size": 8},
        _at_sites("Lora", r=8, lora_alpha=32),
        models=_EVERY,
    ),
    Pair(
        "LoRA, all linears",
        "lora",
        {"insertions.attention.function.size": 8, "insertions.attention.position": _ALL},
        _at_sites("Lora", r=8, lora_alpha=32),
        models=_EVERY,
    ),
    Pair(
        "DoRA",
        "dora",
        {"insertions.attention.function.size": 8},
        _at_sites("Lora", r=8, lora_alpha=32, use_dora=True),
        models=_EVERY,
    ),
    Pair("(IA)³", "ia3", {}, _vectors, models=_EVERY),
    Pair(
        "prefix, 30 tokens",
        "prefix_flat",
        {
            "insertions.attention.function.size": 30,
            "insertions.attention.composition": {"name": "gated", "shift_positions": True},
        },
        _tokens("PrefixTuning", num_virtual_tokens=30),
        models=_NOT_BOTH,
    ),
    Pair(
        "prompt, 20 tokens",
        "prompt_tuning",
        {"insertions.prompt.composition": _KEPT, "insertions.prompt.function.init": None},
        _tokens("PromptTuning", num_virtual_tokens=20),
        models=("decoder",),
    ),
    Pair("VeRA", "vera", {"insertions.attention.function.size": 256}, _at_sites("Vera", r=256), models=_EVERY),
    Pair("LoHa", "loha", {}, _at_sites("LoHa", r=8, alpha=8), models=_EVERY),
    Pair("LoKr", "lokr", {}, _at_sites("LoKr", r=8, alpha=8), models=_EVERY),
    Pair("OFT", "oft", {}, _at_sites("OFT", r=0, oft_block_size=32), models=_EVERY),
    Pair(
        "BOFT",
        "boft",
        {"insertions.rotation.function.factors": 1},
        _at_sites("BOFT", boft_block_size=8),
        models=_EVERY,
    ),
    Pair("HRA", "hra", {}, _at_sites("HRA", r=8), models=_EVERY),
    Pair("FourierFT", "fourierft", {}, _at_sites("FourierFT", n_frequency=1000, scaling=150.0), models=_EVERY),
    Pair(
        "AdaLoRA, its ranks fixed",
        "adalora_fixed",
        {},
        _at_sites("AdaLora", target_r=12, init_r=12, total_step=1000, lora_alpha=32),
    ),
    Pair("BitFit", "bitfit", {}, torch=("bias",), models=("encoder", "encoder-decoder")),
    Pair("full fine-tuning", "full", {}, torch=("",), models=_EVERY),
    Pair("Houlsby adapter", "adapter", models=_EVERY),
    Pair("sequential adapter", "adapter_pfeiffer"),
    Pair("parallel adapter", "parallel_adapter", {"insertions.ffn.function.size": 48}, models=_NOT_BOTH),
    Pair("MAM", "mam", _OF_GLUE, models=_EVERY),
    Pair("UniPELT", "unipelt"),
    Pair("Compacter", "compacter"),
    Pair("AdaMix without consistency", "adamix", {"objective": None}),
    Pair("AdaMix", "adamix"),
    Pair("HiRA", "hira", {}, _at_sites("Hira", r=32)),
    Pair("RandLoRA", "randlora", {}, _at_sites("RandLora", r=32, randlora_alpha=32)),
    Pair("WaveFT", "waveft", {}, _at_sites("WaveFT", n_frequency=2592, scaling=25.0)),
    Pair("C3A", "c3a", {}, _at_sites("C3A", block_size=16)),
    Pair("MiSS", "miss", {}, _at_sites("Miss", r=64)),
    Pair("RoAd", "road", {}, _at_sites("Road", variant="road_1", group_size=2)),
    Pair("GraLoRA", "gralora", {}, _at_sites("Gralora", r=32, alpha=64, gralora_k=2, hybrid_r=0)),
    Pair("SHiRA", "shira", {}, _at_sites("Shira", r=16)),
    Pair("DeLoRA", "delora", {}, _at_sites("Delora", r=8)),
    Pair("PSOFT", "psoft", {}, _at_sites("Psoft", r=16, psoft_alpha=16)),
    Pair(
        "VB-LoRA",
        "vblora",
        {"insertions.attention.function.vector": 64},
        _at_sites("VBLoRA", r=4, num_vectors=90, vector_length=64, topk=2),
    ),
)
