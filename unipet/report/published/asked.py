"""What `--published` asks for: a shipped source or one of its tables, a YAML file of that form, or a CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from unipet.errors import UnipetError, unknown
from unipet.report.published.csv_file import read_csv
from unipet.report.published.number import Published
from unipet.report.published.source_file import read_source

SOURCES = Path(__file__).parent / "sources"
YAML = (".yaml", ".yml")


def source_names() -> list[str]:
    """The shipped sources."""
    return sorted(path.stem for path in SOURCES.glob("*.yaml"))


def read_published(asked: Sequence[str]) -> list[Published]:
    """The numbers that are asked for, in that order, each once. Raises `UnipetError`, naming what is there, for anything else."""
    return list(dict.fromkeys(number for text in asked for number in _read(text)))


def _read(text: str) -> list[Published]:
    name, _, table = text.partition(":")
    if text.lower().endswith(".csv"):
        return read_csv(Path(os.path.expanduser(text)))
    if name.lower().endswith(YAML):
        path, called = Path(os.path.expanduser(name)), Path(name).stem
    elif name in source_names():
        path, called = SOURCES / f"{name}.yaml", name
    else:
        raise UnipetError(
            f"{unknown('--published', name, source_names())} One of your own: FILE.yaml[:TABLE], or FILE.csv."
        )
    tables = read_source(path, called)
    if table and table not in tables:
        raise unknown(f"--published {name}:", table, tables)
    return tables[table] if table else [number for each in tables.values() for number in each]
