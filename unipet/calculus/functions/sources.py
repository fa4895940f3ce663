"""The source of a function from outside the package, as one hash: its module, and the user's own modules that it imports."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Protocol


class UsesFunction(Protocol):
    """Anything that has a function, as an insertion has."""

    @property
    def function(self) -> Any: ...


class Sources(Protocol):
    """Anything that has insertions with functions, as a method has."""

    @property
    def insertions(self) -> Sequence[UsesFunction]: ...


def source_hash(cls: type) -> str:
    """SHA-256 over the files of the class's module and of every module of the user's own that it imports.

    Where there is no file (a notebook, an interpreter), over the class's own source, or else its byte code.
    """
    home = sys.modules.get(cls.__module__)
    files = {name: _file(module) for name, module in sorted(_kin(home).items())} if home else {}
    parts = [f"{name}\0".encode() + file.read_bytes() for name, file in files.items() if file is not None]
    if home is None or _file(home) is None:
        parts += [_text(base) for base in cls.__mro__ if base.__module__ == cls.__module__]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _kin(home: ModuleType) -> dict[str, ModuleType]:
    """`home` and the modules of a user's own that it imports as it loads, and those that these import."""
    found: dict[str, ModuleType] = {}
    waiting = [home]
    while waiting:
        module = waiting.pop()
        if module.__name__ not in found:
            found[module.__name__] = module
            others = (sys.modules.get(name) for name in _imported(module))
            waiting += [other for other in others if other is not None and _is_own(other, home)]
    return found


def _imported(module: ModuleType) -> Iterator[str]:
    """The names after `import` in a module's file; not those inside functions, which load at one time or another."""
    file = _file(module)
    if file is None:
        return
    waiting: list[ast.AST] = [ast.parse(file.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            for alias in node.names:  # `a.b` loads `a`, too
                parts = alias.name.split(".")
                yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
        elif isinstance(node, ast.ImportFrom):
            above = (module.__package__ or "").split(".")
            base = (
                [*above[: len(above) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module]
            )
            yield ".".join(filter(None, base))
            yield from (".".join(filter(None, [*base, alias.name])) for alias in node.names)


def _is_own(module: ModuleType, home: ModuleType) -> bool:
    """Whether a module is of the same package as `home`, or at least not of unipet, of Python or of an installed package."""
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
