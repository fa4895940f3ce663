"""Whether a base model's weights, its tokenizer and a classification head belong together.

The heads differ in where they read the answer: at the first token or the mean of all (encoders), at the last token that
is not padding (decoders), or at the end-of-sequence token (encoder-decoders). The last two need the tokenizer's help.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.calculus.sites.checks import names_in_forward


def check_weights(loaded: Any, loading: dict[str, Any], directory: Path, pretrained_head: bool = False) -> None:
    """Every weight of the base model must come from the checkpoint; a pooler may be new, as the head it feeds. The
    output layer of a language model is part of the base model (`pretrained_head`)."""
    body = "" if pretrained_head else f"{loaded.base_model_prefix}."
    mismatched = [key[0] if isinstance(key, tuple) else key for key in loading["mismatched_keys"]]
    wrong = sorted(key for key in [*loading["missing_keys"], *mismatched] if key.startswith(body) and "pooler" not in key)
    if wrong:
        raise UnipetError(
            f"model.path: {directory} holds no fitting weights for {len(wrong)} tensors of {type(loaded).__name__}, "
            f"such as {', '.join(wrong[:3])}: its config.json and weights do not belong together"
            + (", or it was saved without the output layer that this task.kind needs." if pretrained_head else ".")
        )


def check_tokenizer(tokenizer: Any, config: Any, directory: Path) -> None:
    """Give the tokenizer a padding token. Generating models often come without one; their end-of-sequence token then
    pads, masked as padding is. Raises `UnipetError` where it has neither, or knows more tokens than the model."""
    known = getattr(config, "vocab_size", None)  # a model that hashes characters has none
    if known is not None and len(tokenizer) > known:
        raise UnipetError(
            f"model.path: the tokenizer of {directory} knows {len(tokenizer)} tokens, the model only {known}: they do "
            "not belong together."
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UnipetError(
                f"model.path: the tokenizer of {directory} has neither a padding nor an end-of-sequence token."
            )
        tokenizer.pad_token = tokenizer.eos_token


def fit_tokenizer(tokenizer: Any, model: Any, directory: Path) -> None:
    """Give tokenizer and model one padding token, and check that each row ends where the head reads the answer.

    Raises `UnipetError` as `check_tokenizer`, and for a tokenizer that does not put the end-of-sequence token that an
    encoder-decoder's head looks for.
    """
    check_tokenizer(tokenizer, model.config, directory)
    read = names_in_forward(model)
    if model.config.pad_token_id is None or "pad_token_id" in read:  # the head finds the last token by it
        model.config.pad_token_id = tokenizer.pad_token_id
    if "eos_token_id" in read and tokenizer("a")["input_ids"].count(model.config.eos_token_id) != 1:
        raise UnipetError(
            f"model.path: {type(model).__name__} reads the answer at the end-of-sequence token {model.config.eos_token_id}, "
            f"which the tokenizer of {directory} does not put at the end of a text."
        )
