"""The tokenizers of sacrebleu's BLEU, and the check whether one can be used on this machine."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from unipet.errors import UnipetError, unknown

DEFAULT = "13a"
_PATIENCE = 20  # seconds to wait for the server of a tokenizer's file


@lru_cache
def check_bleu_tokenizer(name: str) -> None:
    """Raise UnipetError for a name that sacrebleu does not know, and for a tokenizer whose package or file is missing. The
    check downloads the file of a tokenizer that needs one."""
    if name == DEFAULT:  # it always works, so sacrebleu need not be imported
        return
    from sacrebleu.metrics.bleu import BLEU

    if name not in BLEU.TOKENIZERS:
        raise unknown("task.bleu_tokenizer", name, BLEU.TOKENIZERS)
    try:
        with _patient():
            sentence_bleu(name).corpus_score(["a b"], [["a b"]])
    except (Exception, SystemExit) as error:  # many types: a missing package, no network, a damaged file
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UnipetError(
            f"task.bleu_tokenizer: sacrebleu cannot use {name!r} here: {' '.join(said) or type(error).__name__}. "
            f"{_advice(name)} Or choose a tokenizer that needs no package and no file: 13a, intl, zh, char, none."
        ) from None


def sentence_bleu(name: str) -> Any:
    """BLEU of single sentences, with effective order."""
    from sacrebleu.metrics import BLEU

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sacrebleu itself uses a deprecated name of a tokenizer
        return BLEU(effective_order=True, tokenize=name)


def _advice(name: str) -> str:
    language = name.partition("-")
    if language[2] == "mecab":
        return f"Run: pip install 'sacrebleu[{language[0]}]'."
    from sacrebleu.utils import SACREBLEU_DIR

    return f"It needs the package sentencepiece, and a file that sacrebleu downloads once to {SACREBLEU_DIR}/models."


@contextmanager
def _patient() -> Iterator[None]:
    """Set a time limit for sacrebleu's download, which has none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
