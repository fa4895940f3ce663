"""A checked method from whatever names it: a shipped method's name, a user's file, a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.calculus.method import Method, parse_method
from unipet.calculus.method_files import compose_file, emptied, is_file_name, listed, method_names
from unipet.calculus.plain_data import check_plain
from unipet.config import conf_dir
from unipet.errors import UnipetError, nearest


def load_method(method: str | Path | Mapping[str, Any] | Method) -> Method:
    """A checked method from its name, the path of a YAML file, a mapping, or a method.

    Raises UnipetError for an unknown name, an unreadable file, any mistake inside (with its full key), and a mapping
    that bears a shipped method's name but has none of the insertions that such a method is.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, Mapping):
        check_plain(method, "method")
        parsed = parse_method(method)
        if not parsed.insertions and parsed.name in method_names() and load_method(parsed.name).insertions:
            raise emptied(parsed.name)
        return parsed
    text = str(method)
    if isinstance(method, Path) or is_file_name(text):
        return parse_method(compose_file(Path(os.path.expanduser(method))))
    if text not in method_names():
        raise UnipetError(
            f"method: unknown {text!r}.{nearest(text, method_names())} Shipped: {listed()}. "
            "A file of your own is given by its path, for example 'mine.yaml'."
        )
    return parse_method(compose_file(conf_dir() / "method" / f"{text}.yaml"))
