"""The source of a function from outside the package, as one hash: its module and what that module takes from its kin."""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Protocol


class UsesFunction(Protocol):
    """An insertion, as far as its function goes."""

    @property
    def function(self) -> Any: ...


class Sources(Protocol):
    """A method, as far as its functions go."""

    @property
    def insertions(self) -> Sequence[UsesFunction]: ...


def source_hash(cls: type) -> str:
    """SHA-256 over the files of the class's module and of every user's module that can be reached from its globals.

    Where there is no file (a notebook, an interpreter), over the class's own source, or else its byte code.
    """
    home = sys.modules.get(cls.__module__)
    files = {name: _file(module) for name, module in sorted(_kin(home).items())} if home else {}
    parts = [f"{name}\0".encode() + file.read_bytes() for name, file in files.items() if file is not None]
    if home is None or _file(home) is None:
        parts += [_text(base) for base in cls.__mro__ if base.__module__ == cls.__module__]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _kin(home: ModuleType) -> dict[str, ModuleType]:
    """`home` and the modules of a user's own that it leads to by what it imported."""
    found: dict[str, ModuleType] = {}
    waiting = [home]
    while waiting:
        module = waiting.pop()
        if module.__name__ in found:
            continue
        found[module.__name__] = module
        for value in list(vars(module).values()):
            if type(value) not in (ModuleType, FunctionType) and not isinstance(value, type):
                continue
            other = sys.modules.get(value.__name__ if isinstance(value, ModuleType) else value.__module__)
            if other is not None and _is_own(other, home):
                waiting.append(other)
    return found


def _is_own(module: ModuleType, home: ModuleType) -> bool:
    """Of the same package as `home`, or neither this package's, Python's nor an installed one's."""
    top = module.__name__.split(".")[0]
    if top == "unipet":
        return False
    if top == home.__name__.split(".")[0]:
        return True
    file = _file(module)
    if file is None or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    return Path(sysconfig.get_path("stdlib")) not in file.parents


def _file(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    file = Path(name) if name else None
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


def _text(cls: type) -> bytes:
    try:
        return inspect.getsource(cls).encode()
    except (OSError, TypeError):
        members = [getattr(member, "fget", None) or member for member in vars(cls).values()]
        codes = [code for member in members if (code := getattr(member, "__code__", None)) is not None]
        return b"\0".join(_code(code) for code in codes)


def _code(code: CodeType) -> bytes:
    inner = [_code(one) if isinstance(one, CodeType) else repr(one).encode() for one in code.co_consts]
    return b"\0".join([code.co_name.encode(), code.co_code, repr(code.co_names).encode(), *inner])
