"""The words that ROUGE, METEOR, NIST and CIDEr count, in every script. BLEU has its own tokenizers.

Texts are converted to Unicode's composed form (NFC) and lower-cased. A word is a sequence of letters, digits and their
combining marks (vowel signs of Hindi, separate accents). In scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer,
Burmese) every character with its marks is a word. Invisible characters inside a word (a soft hyphen, a zero-width joiner)
are removed. For ASCII texts, the words are those of rouge-score's own tokenizer, which supports no other letters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

WORDS_NOTE = (
    "words of Unicode letters, digits and marks, lower-cased; one per character in scripts without spaces; Porter stems "
    "of ASCII words"
)

#: First and last character of the ranges of scripts that are written without spaces.
_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u1950", "\u19df"),  # Tai Le, New Tai Lue
    ("\u1a20", "\u1aaf"),  # Tai Tham
    ("\u3005", "\u3007"),  # marks that stand for a Chinese character
    ("\u3021", "\u3029"),
    ("\u3031", "\u3035"),
    ("\u3038", "\u303c"),
    ("\u3040", "\u312f"),  # Japanese syllables, Bopomofo
    ("\u31a0", "\u31bf"),
    ("\u31f0", "\u31ff"),
    ("\u3400", "\u4dbf"),  # Chinese characters
    ("\u4e00", "\u9fff"),
    ("\ua9e0", "\ua9ff"),  # more Burmese
    ("\uaa60", "\uaa7f"),
    ("\uaa80", "\uaadf"),  # Tai Viet
    ("\uf900", "\ufaff"),
    ("\uff66", "\uff9f"),  # Japanese syllables of half width
    ("\U0001b000", "\U0001b16f"),
    ("\U00020000", "\U0003ffff"),
)
_WITHOUT_SPACES = "".join(f"{first}-{last}" for first, last in _UNSPACED)
_DROPPED = dict.fromkeys(map(ord, "\u00ad\u034f\u200c\u200d\u2060\ufeff"))


def words(text: str) -> list[str]:
    """The words of `text` without punctuation, for ROUGE."""
    found: list[str] = _patterns()[0].findall(normalised(text))
    return found


def tokens(text: str) -> list[str]:
    """The words of `text` and its single punctuation marks, for METEOR, NIST and CIDEr. A decimal number, or a name with an
    underscore, is one word."""
    found: list[str] = _patterns()[1].findall(normalised(text))
    return found


def spaced(text: str) -> str:
    """`text` with spaces around every character of a script that is written without spaces, for metrics that split at
    spaces."""
    return _patterns()[2].sub(r" \g<0> ", text)


def without_spaces(text: str) -> bool:
    """Whether `text` contains a character of a script that is written without spaces."""
    return _patterns()[2].search(text) is not None


def normalised(text: str) -> str:
    """`text` in lower case and composed form, without invisible characters."""
    return unicodedata.normalize("NFC", text.lower()).translate(_DROPPED)


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The Porter stem of an ASCII word; any other word unchanged, because the rules are for English."""
    found: str = _stemmer().stem(word) if word.isascii() else word
    return found


def stemmed(word: str) -> str:
    """Stem as rouge-score does: only words of more than three letters."""
    return stem(word) if len(word) > 3 else word


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Patterns of words, tokens, and characters of scripts without spaces. Python's `\\w` has no combining marks."""
    marks = f"[{_marks()}]"
    alone = rf"(?=[^\W_])[{_WITHOUT_SPACES}]{marks}*"
    letter = rf"(?![{_WITHOUT_SPACES}])[^\W_]"
    rest = rf"(?:{letter}|(?![{_WITHOUT_SPACES}]){marks}"
    word = rf"{letter}{rest})*"
    token = rf"(?:{letter}|_){rest}|_)*(?:[.,]\d+)*"
    return re.compile(f"{alone}|{word}"), re.compile(rf"{alone}|{token}|[^\w\s]{marks}*"), re.compile(alone)


def _marks() -> str:
    """All combining marks of Unicode, for use in a character class."""
    found: list[str] = []
    for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)):  # all combining marks are in these ranges
        if unicodedata.category(chr(code)).startswith("M"):
            if found and ord(found[-1][-1]) == code - 1:
                found[-1] = f"{found[-1][0]}-{chr(code)}"
            else:
                found.append(chr(code))
    return "".join(found)
