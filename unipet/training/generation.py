"""Generating text for evaluation, in batches with the KV cache, and the likelihood of the references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipet.config import DecodingConfig, TaskConfig
from unipet.output.progress import counted
from unipet.output.stopwatch import current_phase
from unipet.tasks import Collate, EncodedRows, Readout, left_padded
from unipet.training.forward import evaluation_mode, longest_first, passes, to_device
from unipet.training.precision import autocast


def generate_texts(
    model: Any,
    examples: EncodedRows,
    tokenizer: Any,
    collate: Collate,
    task: TaskConfig,
    batch_size: int,
    precision: str,
) -> list[str]:
    """One text per example, in the order of the examples, decoded by `task.decoding` and never sampled.

    Batches are sorted by length, the longest first. Prompts of a decoder are padded on the left.
    """
    causal = task.kind == "causal_generation"
    settings = generation_config(model, tokenizer, task)
    texts = [""] * len(examples)
    with evaluation_mode(model) as device, torch.no_grad(), autocast(device, precision):
        for chosen in counted(longest_first(examples, batch_size), len(examples), current_phase()):
            batch = _prompts(examples, chosen, tokenizer, collate, causal)
            made = model.generate(**to_device(batch, device), generation_config=settings)
            if causal:
                made = made[:, batch["input_ids"].shape[1] :]
            for index, text in zip(chosen, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
                texts[index] = text.strip()
    return texts


def generated_logits(
    model: Any,
    examples: EncodedRows,
    chosen: Sequence[int],
    tokenizer: Any,
    collate: Collate,
    task: TaskConfig,
    tokens: int,
    cache: bool,
) -> list[Tensor]:
    """The logits (tokens, vocabulary) of the first tokens that are generated greedily for each chosen example alone, with the
    cache of keys and values or without, in the precision of the weights."""
    plain = replace(task, decoding=DecodingConfig(max_new_tokens=tokens, min_new_tokens=tokens))
    settings = generation_config(model, tokenizer, plain)
    settings.use_cache, settings.output_logits, settings.return_dict_in_generate = cache, True, True
    found = []
    with evaluation_mode(model) as device, torch.no_grad():
        for index in chosen:
            batch = _prompts(examples, [index], tokenizer, collate, task.kind == "causal_generation")
            made = model.generate(**to_device(batch, device), generation_config=settings)
            found.append(torch.cat(made.logits).float().cpu())
    return found


def _prompts(
    examples: EncodedRows, chosen: list[int], tokenizer: Any, collate: Collate, causal: bool
) -> dict[str, Tensor]:
    """What generation begins with: ids and mask (B, L)."""
    if causal:
        return left_padded([examples.prompt(index) for index in chosen], tokenizer.pad_token_id)
    batch = collate([examples[index] for index in chosen])
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def generation_config(model: Any, tokenizer: Any, task: TaskConfig) -> Any:
    """The task's decoding with the base model's special tokens. Other decoding settings of the checkpoint, such as a
    summariser's beams or a chat model's sampling, are ignored."""
    from transformers import GenerationConfig

    decoding, own, config = task.decoding, model.generation_config, model.config

    def token(name: str) -> Any:
        value = getattr(own, name, None)
        return value if value is not None else getattr(config, name, None)

    special = {name: token(name) for name in ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id")}
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else token("eos_token_id")
    if task.kind == "seq2seq" and task.languages and hasattr(tokenizer, "tgt_lang"):
        language = tokenizer.convert_tokens_to_ids(task.languages[1])
        if config.model_type == "mbart" and special["forced_bos_token_id"] is None:
            special["decoder_start_token_id"] = language  # mBART-25 starts decoding with the language token
        else:
            special["forced_bos_token_id"] = language
    return GenerationConfig(
        do_sample=False,
        num_beams=decoding.num_beams,
        length_penalty=decoding.length_penalty if decoding.num_beams > 1 else None,
        early_stopping=True if decoding.num_beams > 1 else None,
        max_new_tokens=decoding.max_new_tokens or task.max_target,
        min_new_tokens=decoding.min_new_tokens or None,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size or None,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end,
        **special,
    )


def target_losses(
    model: nn.Module, examples: EncodedRows, collate: Collate, read: Readout, batch_size: int, precision: str
) -> tuple[list[float], list[int]]:
    """For each example, in order: the summed negative log-likelihood of its target, and the target's number of tokens."""
    losses, counts = [0.0] * len(examples), [0] * len(examples)
    for one in passes(model, examples, collate, batch_size, precision):
        logits, answers = read(one.logits, one.inputs, one.labels)
        each = F.cross_entropy(logits.float(), answers, reduction="none").cpu()
        sizes = [examples.target_lengths[index] for index in one.chosen]
        for index, part in zip(one.chosen, each.split(sizes), strict=True):
            losses[index], counts[index] = float(part.sum()), len(part)
    return losses, counts
