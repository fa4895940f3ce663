"""Readers of local files, one per format, each with the format's own rules (docs/data.md)."""

from collections.abc import Callable, Collection
from pathlib import Path

from unipet.tasks.formats.comma import read_comma
from unipet.tasks.formats.json_lines import read_json_lines
from unipet.tasks.formats.parquet import read_parquet
from unipet.tasks.formats.source import Source
from unipet.tasks.formats.tab import read_tab

#: File extension -> reader. A reader gets the path, and the columns that the task reads.
READERS: dict[str, Callable[[Path, Collection[str]], Source]] = {
    ".jsonl": lambda path, wanted: read_json_lines(path),
    ".csv": lambda path, wanted: read_comma(path),
    ".tsv": lambda path, wanted: read_tab(path),
    ".parquet": read_parquet,
}
