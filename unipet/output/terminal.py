"""Printing safely: every character in a form that the terminal can show, and no control sequences from names or data.

Names, data and error messages may contain any character. A terminal may support only ASCII, interpret `ESC [` as a command,
or be closed (`unipet list | head`). None of this may end a command. So, while a command runs, a `Screen` wraps standard
output and standard error. Files are not affected: they are always UTF-8.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

HANDLER = "unipet"  # the name of the error handler in `codecs`

#: Symbol -> its replacement if the terminal's encoding lacks it. Any other character becomes \uXXXX.
SPELLED = {
    "†": "!", "±": "+/-", "·": "*", "×": "x", "→": "->", "⇒": "=>", "…": "...", "–": "-", "—": "-", "−": "-", "≈": "~", "≤": "<=",
    "≠": "!=", "▁": "_", "✓": "ok",
    "≥": ">=",
    "“": '"', "”": '"', "‘": "'", "’": "'", "§": "sec. ", "½": "1/2", "′": "'", "‖": "||", "⊙": "(*)", "⊗": "(x)", "√": "sqrt ",
    "⋯": "...", "⌈": "ceil(", "⌉": ")", "Δ": "Delta", "Σ": "Sigma", "α": "alpha", "β": "beta", "γ": "gamma", "ε": "epsilon",
    "θ": "theta", "λ": "lambda", "σ": "sigma", "φ": "phi", "ᵀ": "^T", "ⁿ": "^n", "ⁱ": "^i", "⁻": "^-", "¹": "^1", "²": "^2",
    "³": "^3", "₀": "_0", "₁": "_1", "₂": "_2", "ₖ": "_k", "ₙ": "_n", "ᵢ": "_i", "ᵥ": "_v",
    "∂": "d",
    "─": "-", "│": "|", "┆": ":", "┌": "+", "┐": "+", "└": "+", "┘": "+", "┤": "+", "├": "+", "┬": "+", "┴": "+", "┼": "+",
    "◄": "<", "►": ">", "▼": "v", "▲": "^", "↓": "v", "↑": "^", "●": "*", "○": "o", "◆": "*", "◇": "o", "★": "*",
    "\N{NO-BREAK SPACE}": " ", "\N{REPLACEMENT CHARACTER}": "?",
}  # fmt: skip

# C0 except tab and line feed, DEL, C1, Unicode's line ends, and characters that change the direction of writing
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape(character: str) -> str:
    r"""A character as JSON escapes it, such as `\u001b` (two escapes beyond the basic plane), so that JSON stays valid."""
    return json.dumps(character)[1:-1] if ord(character) > 0x7E else f"\\u{ord(character):04x}"


def visible(text: str) -> str:
    """`text` with control characters escaped, except tabs and line feeds."""
    return _CONTROL.sub(lambda found: escape(found[0]), text)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The error handler for `codecs`: replaces characters that the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(SPELLED.get(one) or escape(one) for one in lacking), error.end


codecs.register_error(HANDLER, _spell)


def encodable(text: str, encoding: str) -> str:
    """`text` with the characters replaced that `encoding` lacks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, HANDLER).decode(encoding)
    return text


def plain(text: str) -> str:
    """`text` with control characters and lone surrogates escaped."""
    return visible(encodable(text, "utf-8"))


class Screen:
    """Wraps a standard stream, so that writing any text never fails. Other attributes are those of the stream.

    `hidden(text, depth)` says whether the text is kept from the screen, because the caller `depth` frames up is a library.
    `lost` is the error after which the stream accepts no more text: the reader has closed it, or the disk is full.
    """

    def __init__(self, stream: Any, hidden: Callable[[str, int], bool] = lambda text, depth: False) -> None:
        self.stream, self._hidden = stream, hidden
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Show `text` with control characters escaped."""
        if not self._hidden(text, 2):
            self.draw(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Show several texts."""
        text = "".join(lines)
        if not self._hidden(text, 2):
            self.draw(visible(text))

    def draw(self, text: str) -> None:
        """Show `text` unchanged, including control characters, for unipet's own progress bars."""
        if self.stream is not None and self.lost is None:
            self._try(lambda: self.stream.write(encodable(text, getattr(self.stream, "encoding", None) or "utf-8")))

    def flush(self) -> None:
        """Flush the stream."""
        if self.stream is not None and self.lost is None:
            self._try(self.stream.flush)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except OSError as error:
            self.lost = error
            with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())  # otherwise the interpreter writes again at exit
        except ValueError:  # the stream is closed
            self.stream = None

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return bool(self.stream is not None and self.stream.isatty())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Canvas:
    """Wraps the same stream for a progress bar, which needs control characters."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Show `text` unchanged."""
        getattr(self._stream, "draw", self._stream.write)(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def screens(hidden: Callable[[str, int], bool]) -> Iterator[tuple[Screen, Screen]]:
    """Inside, standard output and standard error are screens. Nested use has no effect."""
    before = sys.stdout, sys.stderr
    out, err = (one if isinstance(one, Screen) else Screen(one, hidden) for one in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def print_json(value: Any) -> None:
    """Print a value as JSON that can be read back, whatever the terminal's encoding."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    print(json.dumps(value, indent=2, ensure_ascii=encoding not in ("utf8", "utf8sig"), allow_nan=False))
