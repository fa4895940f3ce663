"""A tiny random model of every architecture that has a site table, with inputs and a loss that fit it.

Models are built once per process and copied, so that the suite can afford methods x architectures x properties.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
import transformers
from torch import Tensor, nn

VOCABULARY, HIDDEN, LAYERS = 64, 32, 2
_BERT = {"hidden_size": HIDDEN, "num_attention_heads": 4, "num_hidden_layers": LAYERS, "intermediate_size": 48}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_ENCODER = {**_BERT, **_NO_DROPOUT, "max_position_embeddings": 40}
_DECODER = {**_BERT, "num_key_value_heads": 2, "max_position_embeddings": 40}
_GEMMA = {**_DECODER, "head_dim": 16}
_BART = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 40,
    "dropout": 0.0,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_T5 = {"d_model": HIDDEN, "d_kv": 16, "num_heads": 4, "num_layers": LAYERS, "d_ff": 48, "dropout_rate": 0.0}
_T5["decoder_start_token_id"] = 0
_GPT2 = {"n_embd": HIDDEN, "n_head": 4, "n_layer": LAYERS, "n_positions": 40}
_GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_NEOX = {**_BERT, "max_position_embeddings": 40, "hidden_dropout": 0.0, "attention_dropout": 0.0}
_OPT = {**_BERT, "ffn_dim": 48, "word_embed_proj_dim": HIDDEN, "max_position_embeddings": 40, "dropout": 0.0}
_OPT.pop("intermediate_size")


@dataclass(frozen=True)
class Arch:
    """One tiny model: its transformers configuration and class, and what kind of inputs it takes."""

    config: str
    model: str
    kind: str  # "encoder", "decoder", "encoder-decoder" or "image"
    options: Mapping[str, Any] = field(default_factory=dict)
    attentions: tuple[str, ...] = ("sdpa", "eager")

    @functools.cached_property
    def _options(self) -> dict[str, Any]:
        if self.kind == "image":
            return dict(self.options)
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        return {"vocab_size": VOCABULARY, **special, **self.options}

    def build(self, *, attention: str | None = None, seed: int = 0, weights: str = "float32") -> Any:
        """A fresh copy of the model, in evaluation mode; its weights float32, bfloat16, or float32 "rounded" to what bfloat16
        holds."""
        attention = attention or self.attentions[0]
        return _built(self.config, self.model, repr(sorted(self._options.items())), attention, seed, weights).copy()

    def batch(self, rows: int = 3, length: int = 7, *, seed: int = 0) -> dict[str, Tensor]:
        """Random inputs; texts with right padding: row i has length - i real tokens (at least 3)."""
        return dict(_inputs(self.kind, rows, length, seed))

    def labels(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Something to learn: classes, or the next token (padding is left out of the loss)."""
        if self.kind in ("encoder", "image"):
            return torch.arange(len(next(iter(batch.values())))) % 2
        prefix = "decoder_" if self.kind == "encoder-decoder" else ""
        return batch[f"{prefix}input_ids"].masked_fill(batch[f"{prefix}attention_mask"] == 0, -100)

    def real(self, batch: Mapping[str, Tensor], logits: Tensor) -> Tensor:
        """The rows of `logits` (classes) or its entries at real tokens (language models)."""
        if self.kind in ("encoder", "image"):
            return logits
        return logits[batch["decoder_attention_mask" if self.kind == "encoder-decoder" else "attention_mask"].bool()]


@functools.cache
def _inputs(kind: str, rows: int, length: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if kind == "image":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    found = dict(zip(("input_ids", "attention_mask"), _text(rows, length, generator), strict=True))
    if kind == "encoder-decoder":
        ids, mask = _text(rows, length - 1, generator)
        found |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    return found


def _text(rows: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
    ids[0, 1] = 7  # a token that every batch holds
    real = torch.arange(length) < torch.clamp(length - torch.arange(rows), min=3)[:, None]
    return ids.masked_fill(~real, 0), real.long()


class _Mould:
    """A model to be copied often: several times faster than deepcopy, which walks it in Python."""

    def __init__(self, model: nn.Module):
        self._kept: list[Any] = []  # what is no plain data: tensors are cloned, functions shared
        written = io.BytesIO()
        pickler = pickle.Pickler(written)
        pickler.persistent_id = self._keep  # type: ignore[method-assign]
        pickler.dump(model)
        self._bytes = written.getvalue()

    def _keep(self, value: Any) -> int | None:
        if not isinstance(value, Tensor | FunctionType):
            return None
        self._kept.append(value)
        return len(self._kept) - 1

    def copy(self) -> Any:
        """A model of its own, tied tensors tied."""
        made: dict[int, Any] = {}

        def load(number: int) -> Any:
            value = self._kept[number]
            if isinstance(value, FunctionType):
                return value
            if id(value) not in made:
                copied = value.detach().clone()
                kept = isinstance(value, nn.Parameter)
                made[id(value)] = nn.Parameter(copied, value.requires_grad) if kept else copied
            return made[id(value)]

        unpickler = pickle.Unpickler(io.BytesIO(self._bytes))
        unpickler.persistent_load = load  # type: ignore[method-assign]
        return unpickler.load()


@functools.cache
def _built(config: str, model: str, options: str, attention: str, seed: int, weights: str) -> _Mould:
    from ast import literal_eval

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = getattr(transformers, config)(**dict(literal_eval(options)), attn_implementation=attention)
        made.architectures = [model]
        found: nn.Module = getattr(transformers, model)(made)
        for name, parameter in found.named_parameters():
            if name.endswith("bias"):  # zeros would hide what a method does to a bias
                nn.init.normal_(parameter, 0.0, 0.02)
    if weights != "float32":
        found = found.to(torch.bfloat16)
    return _Mould((found.float() if weights == "rounded" else found).eval())


ARCHS: dict[str, Arch] = {
    "bert": Arch("BertConfig", "BertForSequenceClassification", "encoder", _ENCODER),
    "roberta": Arch("RobertaConfig", "RobertaForSequenceClassification", "encoder", _ENCODER),
    "xlm_roberta": Arch("XLMRobertaConfig", "XLMRobertaForSequenceClassification", "encoder", _ENCODER),
    "electra": Arch("ElectraConfig", "ElectraForSequenceClassification", "encoder", {**_ENCODER, "embedding_size": 16}),
    "distilbert": Arch(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        "encoder",
        {"dim": HIDDEN, "n_heads": 4, "n_layers": LAYERS, "hidden_dim": 48, "dropout": 0.0, "attention_dropout": 0.0},
    ),
    "deberta_v2": Arch(
        "DebertaV2Config",
        "DebertaV2ForSequenceClassification",
        "encoder",
        {**_ENCODER, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
        attentions=("eager",),
    ),
    "modernbert": Arch(
        "ModernBertConfig",
        "ModernBertForSequenceClassification",
        "encoder",
        {**_BERT, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8},
    ),
    "vit": Arch(
        "ViTConfig",
        "ViTForImageClassification",
        "image",
        {**_BERT, **_NO_DROPOUT, "image_size": 16, "patch_size": 4},
    ),
    "gpt2": Arch("GPT2Config", "GPT2LMHeadModel", "decoder", _GPT2),
    "gpt_neox": Arch("GPTNeoXConfig", "GPTNeoXForCausalLM", "decoder", _NEOX),
    "gpt_neox_serial": Arch(
        "GPTNeoXConfig", "GPTNeoXForCausalLM", "decoder", {**_NEOX, "use_parallel_residual": False}
    ),
    "opt": Arch("OPTConfig", "OPTForCausalLM", "decoder", _OPT),
    "opt_post_norm": Arch("OPTConfig", "OPTForCausalLM", "decoder", {**_OPT, "do_layer_norm_before": False}),
    "llama": Arch("LlamaConfig", "LlamaForCausalLM", "decoder", _DECODER),
    "mistral": Arch("MistralConfig", "MistralForCausalLM", "decoder", {**_DECODER, "sliding_window": 4}),
    "qwen2": Arch("Qwen2Config", "Qwen2ForCausalLM", "decoder", _DECODER),
    "qwen3": Arch("Qwen3Config", "Qwen3ForCausalLM", "decoder", _GEMMA),
    "gemma": Arch("GemmaConfig", "GemmaForCausalLM", "decoder", _GEMMA),
    # sdpa cannot cap logits, so transformers itself wants Gemma 2 eager
    "gemma2": Arch(
        "Gemma2Config", "Gemma2ForCausalLM", "decoder", {**_GEMMA, "sliding_window": 4}, attentions=("eager",)
    ),
    "gemma3": Arch("Gemma3TextConfig", "Gemma3ForCausalLM", "decoder", {**_GEMMA, "sliding_window": 4}),
    "bart": Arch("BartConfig", "BartForConditionalGeneration", "encoder-decoder", _BART),
    "marian": Arch("MarianConfig", "MarianMTModel", "encoder-decoder", _BART),
    "mbart": Arch("MBartConfig", "MBartForConditionalGeneration", "encoder-decoder", _BART),
    "pegasus": Arch("PegasusConfig", "PegasusForConditionalGeneration", "encoder-decoder", _BART),
    "t5": Arch("T5Config", "T5ForConditionalGeneration", "encoder-decoder", _T5),
    "flan_t5": Arch(
        "T5Config",
        "T5ForConditionalGeneration",
        "encoder-decoder",
        {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": Arch("MT5Config", "MT5ForConditionalGeneration", "encoder-decoder", _T5),
}

_EXPERTS = {**_DECODER, "num_experts_per_tok": 2, "experts_implementation": "eager"}
#: Decoders whose feed-forward blocks are experts. They stand apart from `ARCHS`: half of a layer's roles are theirs in another
#: form, which tests/calculus/test_expert_sites.py and tests/adaptation/test_inside_experts.py ask for.
SPARSE: dict[str, Arch] = {
    "mixtral": Arch("MixtralConfig", "MixtralForCausalLM", "decoder", {**_EXPERTS, "num_local_experts": 4}),
    "olmoe": Arch("OlmoeConfig", "OlmoeForCausalLM", "decoder", {**_EXPERTS, "num_experts": 4}),
    "qwen3_moe": Arch(
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        "decoder",
        {**_EXPERTS, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 24},
    ),
    "qwen2_moe": Arch(
        "Qwen2MoeConfig",
        "Qwen2MoeForCausalLM",
        "decoder",
        {
            **_EXPERTS,
            "num_experts": 4,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "num_hidden_layers": LAYERS + 1,
            "mlp_only_layers": [1],
        },
    ),
}
