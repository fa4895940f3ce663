"""Importing the user's own modules, which register functions. Only the user names them: neither a finished run nor a saved
adapter can cause an import."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from unipet.errors import UnipetError


def import_modules(names: Sequence[str], key: str = "imports") -> None:
    """Import each module once. The working directory is searched last, so that a file in it cannot replace an installed
    package. Raises `UnipetError` for an invalid module name, and for an error inside a module."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UnipetError(f"{key}: {names!r} given; allowed: a list of modules, for example [my_package.my_module].")
    for name in names:
        if not name or not all(part.isidentifier() for part in name.split(".")):
            raise UnipetError(
                f"{key}: {name!r} is not a module's name. Write it as Python imports it, for example "
                "my_package.my_module, without .py and without a path."
            )
        _import(name, key)


def _import(name: str, key: str) -> None:
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise UnipetError(
                f"{key}: no module {missing!r} on Python's path or in {here}. Install it, or change to its directory."
            ) from error
        raise UnipetError(f"{key}: {name} cannot be imported: it needs {missing!r}, which is not installed.") from error
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise UnipetError(f"{key}: {name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
