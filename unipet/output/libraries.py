"""Collecting the messages of other libraries while a command runs, instead of printing them. Only their errors are shown.

Libraries produce output in three ways: they log, they warn and they print. Whether a text is collected depends on the file
that produces it, never on its content. Text from a file of an installed library (for logs and warnings, also of Python
itself) is collected. Text from unipet and from the user's own code is shown. A log record of level ERROR is always shown.
This applies only inside `quiet`, which the command line uses: `import unipet` does not change anybody's logging.
"""

from __future__ import annotations

import logging
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

FILE = "libraries.log"  # in a run's directory
MOST = 1000  # the most different lines that are collected
SHOWN = 20  # how many of the last lines are printed when a command ends with an unexpected exception

_OURS = str(Path(__file__).resolve().parents[1])
_PYTHON = tuple({str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib")})
_PLACES = ("site-packages", "dist-packages")

_kept: dict[str, int] | None = None  # line -> number of times; None outside `quiet`
_speaking = False  # whether the user asked for a library's own output


def library(file: str) -> bool:
    """Whether `file` belongs to an installed library."""
    return any(place in file for place in _PLACES) and not file.startswith(_OURS)


def _not_a_users(file: str) -> bool:
    return library(file) or file.startswith((_OURS, "<frozen", *_PYTHON)) or file == "<string>"


def hidden(text: str, depth: int) -> bool:
    """Whether a library writes this text to the terminal; if so, it is collected. The writer is `depth` frames up."""
    if _kept is None or _speaking:
        return False
    try:
        frame = sys._getframe(depth)
    except ValueError:  # the interpreter itself writes, such as the traceback at the end of the program
        return False
    while frame.f_back is not None and frame.f_code.co_name.startswith("write"):
        frame = frame.f_back  # wandb wraps the stream's `write` in its own
    file = frame.f_code.co_filename
    if not library(file):
        return False
    if "tqdm" not in file:  # progress bars are not messages
        _keep(text)
    return True


def _keep(text: str) -> None:
    assert _kept is not None
    for line in filter(None, (part.strip()[:2000] for part in text.splitlines())):
        if line in _kept or len(_kept) < MOST:
            _kept[line] = _kept.get(line, 0) + 1


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, collect what libraries print instead of showing it. Nested use has no effect."""
    global _kept
    if _kept is not None:
        yield
        return
    handle = logging.Logger.handle

    def kept_record(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not _not_a_users(record.pathname) or _kept is None:
            handle(logger, record)
            return
        if logger.disabled or not logger.filter(record):
            return
        try:
            message = record.getMessage()
        except Exception:  # a library's format string may not match its values
            message = str(record.msg)
        _keep(f"{record.levelname.lower()} {record.name}: {message}")
        if record.levelno >= logging.ERROR:
            print(f"warning: {record.name}: {' '.join(message.split())}", file=sys.stderr)

    _kept = {}
    try:
        with warnings.catch_warnings():
            warn = warnings.showwarning

            def kept_warning(
                message: Any,
                category: Any,
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if _not_a_users(filename) and not sys.warnoptions:  # with python -W ... the user wants to see warnings
                    _keep(f"{category.__name__} {filename}:{lineno}: {message}")
                else:
                    warn(message, category, filename, lineno, file, line)

            warnings.showwarning = kept_warning
            logging.Logger.handle = kept_record  # type: ignore[method-assign, assignment]
            yield
    finally:
        logging.Logger.handle = handle  # type: ignore[method-assign]
        _kept = None


@contextmanager
def speaking(enabled: bool) -> Iterator[None]:
    """With `enabled`, show what a library prints, because it is the command's own output, such as Hydra's for `--info`."""
    global _speaking
    before, _speaking = _speaking, _speaking or enabled
    try:
        yield
    finally:
        _speaking = before


def print_last() -> None:
    """Print the last messages of libraries, because they may explain an unexpected exception."""
    for text in list(_kept or ())[-SHOWN:]:
        print(f"earlier message of a library: {text}", file=sys.stderr)


def take_messages() -> str:
    """The messages of libraries since the last call, one per line; empty if there were none."""
    if not _kept:
        return ""
    lines = [f"{line} ({count} times)" if count > 1 else line for line, count in _kept.items()]
    _kept.clear()
    return "\n".join(lines) + "\n"
