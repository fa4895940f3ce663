"""A file appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write all of `content` or leave `path` as it was; no temporary file survives a failure. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
