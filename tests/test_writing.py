"""A file appears whole or not at all, whatever fails on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from unipet.writing import write_bytes_atomic


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes_atomic(path, b"before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_bytes_atomic(path, b"after")
    assert [one.name for one in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"before"
