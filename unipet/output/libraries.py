"""What other libraries say while a command runs: kept, not printed, but for their errors.

A command's output is what the user asked for. Libraries add to it in three ways: they log, they warn, they print. The
rule for all of them is who speaks, never what is said: text from a file of an installed library (or, for logs and
warnings, of Python's own) is kept; text of ours and of a user's own code is shown. A record of level ERROR is shown
whoever made it. Nothing here is in force but within `quiet`, which the command line enters and Python's users do not:
`import unipet` changes nobody's logging.
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
MOST = 1000  # lines; a library that says more says nothing new
SHOWN = 20  # of the last ones, when a command ends in an error of the program's own

_OURS = str(Path(__file__).resolve().parents[1])
_PYTHON = tuple({str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib")})
_PLACES = ("site-packages", "dist-packages")

_kept: dict[str, int] | None = None  # line -> how often; None while nobody asked for quiet
_speaking = False  # a library's own output is what was asked for


def library(file: str) -> bool:
    """Whether `file` belongs to an installed library."""
    return any(place in file for place in _PLACES) and not file.startswith(_OURS)


def _not_a_users(file: str) -> bool:
    return library(file) or file.startswith((_OURS, "<frozen", *_PYTHON)) or file == "<string>"


def hidden(text: str, depth: int) -> bool:
    """Whether a library writes this to the terminal; `depth` frames up is who calls. It is kept then."""
    if _kept is None or _speaking:
        return False
    try:
        frame = sys._getframe(depth)
    except ValueError:  # the interpreter itself, with no code of Python's running: the traceback of the program's end
        return False
    while frame.f_back is not None and frame.f_code.co_name.startswith("write"):
        frame = frame.f_back  # wandb puts a `write` of its own before the stream's
    file = frame.f_code.co_filename
    if not library(file):
        return False
    if "tqdm" not in file:  # a progress bar is no message
        _keep(text)
    return True


def _keep(text: str) -> None:
    assert _kept is not None
    for line in filter(None, (part.strip()[:2000] for part in text.splitlines())):
        if line in _kept or len(_kept) < MOST:
            _kept[line] = _kept.get(line, 0) + 1


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, keep what libraries print instead of showing it. Nested use changes nothing."""
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
        except Exception:  # a library's format string does not fit its values
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
                if _not_a_users(filename) and not sys.warnoptions:  # python -W ...: the user wants to see them
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
def speaking(asked: bool) -> Iterator[None]:
    """With `asked`, what a library prints is shown: it answers the command itself, as Hydra does for `--info`."""
    global _speaking
    before, _speaking = _speaking, _speaking or asked
    try:
        yield
    finally:
        _speaking = before


def print_last() -> None:
    """Print the last messages of libraries: they may explain an unexpected exception."""
    for text in list(_kept or ())[-SHOWN:]:
        print(f"said before by a library: {text}", file=sys.stderr)


def kept() -> str:
    """The messages of libraries since the last call, one line each; empty if there were none."""
    if not _kept:
        return ""
    lines = [f"{line} ({count} times)" if count > 1 else line for line, count in _kept.items()]
    _kept.clear()
    return "\n".join(lines) + "\n"
