"""Checks that a base model's weights, its tokenizer and a classification head belong together.

Heads read the answer at different places: encoders at the first token or the mean of all tokens, decoders at the last
token that is not padding, encoder-decoders at the end-of-sequence token. The last two depend on the tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipet.calculus.sites.checks import names_in_forward
from unipet.errors import UnipetError


def check_weights(loaded: Any, loading: dict[str, Any], directory: Path, pretrained_head: bool = False) -> None:
    """Raise `UnipetError` unless every weight of the base model comes from the checkpoint. A pooler may be new, as it
    belongs to the head. With `pretrained_head`, the output layer of a language model is part of the base model."""
    body = "" if pretrained_head else f"{loaded.base_model_prefix}."
    mismatched = [key[0] if isinstance(key, tuple) else key for key in loading["mismatched_keys"]]
    wrong = sorted(
        key for key in [*loading["missing_keys"], *mismatched] if key.startswith(body) and "pooler" not in key
    )
    if wrong:
        raise UnipetError(
            f"model.path: {directory} has no matching weights for {len(wrong)} tensors of {type(loaded).__name__}, "
            f"such as {', '.join(wrong[:3])}: its config.json and weights do not belong together"
            + (", or it was saved without the output layer that this task.kind needs." if pretrained_head else ".")
        )


def check_tokenizer(tokenizer: Any, config: Any, directory: Path) -> None:
    """Give the tokenizer a padding token if it has none, as is common for decoders: the end-of-sequence token then pads,
    and the mask hides it as usual. Raises `UnipetError` if it has neither token, or more tokens than the model."""
    known = getattr(config, "vocab_size", None)  # None for a model that hashes characters
    if known is not None and len(tokenizer) > known:
        raise UnipetError(
            f"model.path: the tokenizer of {directory} has {len(tokenizer)} tokens, the model only {known}: they do "
            "not belong together."
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UnipetError(
                f"model.path: the tokenizer of {directory} has neither a padding nor an end-of-sequence token."
            )
        tokenizer.pad_token = tokenizer.eos_token


def fit_tokenizer(tokenizer: Any, model: Any, directory: Path) -> None:
    """Give tokenizer and model the same padding token, and check that each row ends where the head reads the answer.

    Raises `UnipetError` as `check_tokenizer`, and for a tokenizer that does not append the end-of-sequence token at which
    an encoder-decoder's head reads.
    """
    check_tokenizer(tokenizer, model.config, directory)
    read = names_in_forward(model)
    if model.config.pad_token_id is None or "pad_token_id" in read:  # the head uses it to find the last token
        model.config.pad_token_id = tokenizer.pad_token_id
    if "eos_token_id" in read and tokenizer("a")["input_ids"].count(model.config.eos_token_id) != 1:
        raise UnipetError(
            f"model.path: {type(model).__name__} reads the answer at the end-of-sequence token {model.config.eos_token_id}, "
            f"which the tokenizer of {directory} does not put at the end of a text."
        )
