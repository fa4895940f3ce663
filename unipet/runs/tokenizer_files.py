"""Reading the tokenizer of a base model, and rejecting one that transformers would build without a vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError

#: Names of tokenizer files: every vocabulary of transformers' tokenizer classes, and the files that it converts.
PATTERNS = (
    "*.json",
    "*.txt",
    "*.model",
    "*.model.v*",
    "*.spm",
    "*.bpe",
    "*.codes",
    "*.tiktoken",
    "*.tokenizer",
)
#: JSON and text files beside a base model that do not belong to its tokenizer's vocabulary.
_OTHERS = (
    "config.json",
    "generation_config.json",
    "*_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.index.json",
    "*requirements*.txt",
    "README*",
    "LICENSE*",
)
#: Files that transformers reads instead of those that the tokenizer's class names.
_CONVERTED = ("tokenizer.json", "tokenizer.*.json", "tekken.json", "tokenizer.model*", "tiktoken.model")
_NEEDS = {"sentencepiece": ("*.model", "*.spm"), "tiktoken": ("*.tiktoken", "tiktoken.model", "tokenizer.model")}
_FEW = 2000  # tokens; a larger vocabulary certainly has words


def vocabulary_files(directory: Path) -> list[str]:
    """The names of the files in `directory` from which a tokenizer can be built."""
    names = sorted(path.name for path in directory.iterdir() if path.is_file())
    return [name for name in names if _any(name, PATTERNS) and not _any(name, _OTHERS)]


def read_tokenizer(directory: Path) -> Any:
    """The tokenizer in `directory`, as transformers reads it. Some tokenizer classes need no files.

    Raises `UnipetError` if it cannot be read, and if transformers would silently build an empty one, because the files
    that its class needs are missing or hold no words. No code from the directory is run.
    """
    from transformers import AutoTokenizer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some classes recommend packages that only normalise punctuation
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the tokenizer libraries raise many types for a broken or missing file
        raise UnipetError(_unreadable(directory, error)) from error
    needed = [name for name in tokenizer.vocab_files_names.values() if name and not _any(name, _OTHERS)]
    there = vocabulary_files(directory)
    if needed and not any(name in needed or _any(name, _CONVERTED) for name in there):
        wanted = ", ".join(dict.fromkeys([*needed, "tokenizer.json"]))
        raise UnipetError(
            f"model.path: {directory} has no tokenizer: a {type(tokenizer).__name__} is read from {wanted}; "
            f"files there: {', '.join(there) or 'none of them'}. Add the tokenizer's files to the directory."
        )
    if len(tokenizer) < _FEW and not _has_words(tokenizer):
        raise UnipetError(
            f"model.path: the tokenizer of {directory} has special tokens but no words (its files: {', '.join(there)}), so "
            "every text would become unknown tokens. Add the tokenizer's vocabulary to the directory."
        )
    return tokenizer


def _has_words(tokenizer: Any) -> bool:
    special = set(tokenizer.all_special_tokens)
    return any(token not in special and token.strip("▁Ġ#</w> ") for token in tokenizer.get_vocab())


def _unreadable(directory: Path, error: Exception) -> str:
    there = vocabulary_files(directory)
    if not there:
        return f"model.path: {directory} has no tokenizer (no file such as tokenizer.json, vocab.txt or spiece.model)."
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    lacking = [
        package
        for package, files in _NEEDS.items()
        if find_spec(package) is None and any(_any(name, files) for name in there)
    ]
    advice = f" It may need a package: pip install {' '.join(lacking)}." if lacking else ""
    if "snapshots" in directory.parts:  # the hub's cache
        advice += " If one of its files is missing, delete that directory; it is then downloaded again."
    return f"model.path: cannot load the tokenizer of {directory}: {said} (its files: {', '.join(there)}).{advice}"


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
