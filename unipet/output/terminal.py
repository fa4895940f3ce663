"""What reaches the terminal: every character in a form that it can show, and no control sequence out of a name.

Names, data and error messages hold any character. A terminal may know ASCII alone, take `ESC [` for a command, or be
gone (`unipet list | head`). None of that may end a command, so standard output and standard error stand behind a
`Screen` while a command runs. Files do not: they are UTF-8 everywhere.
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

HANDLER = "unipet"  # our error handler's name among those of codecs

#: How a symbol that we print is written where the terminal's encoding lacks it. Any other character becomes \uXXXX.
SPELLED = {
    "†": "!", "±": "+/-", "·": "*", "×": "x", "→": "->", "⇒": "=>", "…": "...", "–": "-", "—": "-", "−": "-", "≈": "~", "≤": "<=",
    "≠": "!=", "▁": "_",
    "≥": ">=",
    "“": '"', "”": '"', "‘": "'", "’": "'", "§": "sec. ", "½": "1/2", "′": "'", "‖": "||", "⊙": "(*)", "⊗": "(x)", "√": "sqrt ",
    "⋯": "...", "⌈": "ceil(", "⌉": ")", "Δ": "Delta", "Σ": "Sigma", "α": "alpha", "β": "beta", "γ": "gamma", "ε": "epsilon",
    "θ": "theta", "λ": "lambda", "σ": "sigma", "φ": "phi", "ᵀ": "^T", "ⁿ": "^n", "ⁱ": "^i", "⁻": "^-", "¹": "^1", "²": "^2",
    "³": "^3", "₀": "_0", "₁": "_1", "₂": "_2", "ₖ": "_k", "ₙ": "_n", "ᵢ": "_i", "ᵥ": "_v",
    "─": "-", "│": "|", "┆": ":", "┌": "+", "┐": "+", "└": "+", "┘": "+", "┤": "+", "├": "+", "┬": "+", "┴": "+", "┼": "+",
    "◄": "<", "►": ">", "▼": "v", "↓": "v", "↑": "^", "●": "*", "○": "o", "◆": "*", "◇": "o", "★": "*",
    "\N{NO-BREAK SPACE}": " ", "\N{REPLACEMENT CHARACTER}": "?",
}  # fmt: skip

# C0 but for tab and line feed, DEL, C1, the line ends of Unicode, and what turns the direction of writing around
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape(character: str) -> str:
    r"""As JSON writes it: `\u001b`; two of them beyond the basic plane. So JSON that is printed stays JSON."""
    return json.dumps(character)[1:-1] if ord(character) > 0x7E else f"\\u{ord(character):04x}"


def visible(text: str) -> str:
    """`text` with its control characters escaped; tabs and line ends stay."""
    return _CONTROL.sub(lambda found: escape(found[0]), text)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The codecs' error handler: what the encoding lacks, spelled out."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(SPELLED.get(one) or escape(one) for one in lacking), error.end


codecs.register_error(HANDLER, _spell)


def encodable(text: str, encoding: str) -> str:
    """`text` as `encoding` can write it."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, HANDLER).decode(encoding)
    return text


def plain(text: str) -> str:
    """`text` that anything can show: control characters escaped, and what UTF-8 lacks (half of a character)."""
    return visible(encodable(text, "utf-8"))


class Screen:
    """A standard stream that takes every text and never fails; whatever else is asked of it the stream itself answers.

    `hidden(text, depth)` says whether the caller `depth` frames up is one whose text is kept from the screen.
    `lost` is why the stream takes no more: the reader left, or the disk is full.
    """

    def __init__(self, stream: Any, hidden: Callable[[str, int], bool] = lambda text, depth: False) -> None:
        self.stream, self._hidden = stream, hidden
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Show `text`, its control characters escaped."""
        if not self._hidden(text, 2):
            self.draw(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Show some texts."""
        text = "".join(lines)
        if not self._hidden(text, 2):
            self.draw(visible(text))

    def draw(self, text: str) -> None:
        """Show `text` as it is, control characters included: for a progress bar of our own."""
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
                os.dup2(nowhere.fileno(), self.stream.fileno())  # else the interpreter tries again when it ends
        except ValueError:  # closed
            self.stream = None

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return bool(self.stream is not None and self.stream.isatty())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Canvas:
    """The same stream for a progress bar, which draws with control characters."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Draw."""
        getattr(self._stream, "draw", self._stream.write)(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def screens(hidden: Callable[[str, int], bool]) -> Iterator[tuple[Screen, Screen]]:
    """Inside, standard output and standard error are screens. Nested use changes nothing."""
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
    """Print a value as JSON that is the same value again, whatever characters the terminal has."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    print(json.dumps(value, indent=2, ensure_ascii=encoding not in ("utf8", "utf8sig"), allow_nan=False))
