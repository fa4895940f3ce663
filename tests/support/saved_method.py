"""Changing the method of a saved adapter, as somebody would who knows the format."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path


def change_method(adapter: Path, pattern: str, replacement: str) -> None:
    """Replace what matches `pattern` in method.yaml, which must be there, and bind it by its new checksum."""
    text, count = re.subn(pattern, replacement, (adapter / "method.yaml").read_text(encoding="utf-8"))
    assert count, f"{pattern} is not in the method"
    (adapter / "method.yaml").write_text(text, encoding="utf-8")
    description = json.loads((adapter / "adapter.json").read_text(encoding="utf-8"))
    description["method_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (adapter / "adapter.json").write_text(json.dumps(description), encoding="utf-8")
