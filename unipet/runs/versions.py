"""When a run was made and with what: the time, versions of software, the machine, the commit."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import unipet
from unipet.output.json_object import JsonObject


@dataclass
class Machine(JsonObject):
    """The device that trained, and how many processor cores and threads there were."""

    device: str | None = None
    cores: int | None = None
    threads: int | None = None


@dataclass
class Versions(JsonObject):
    """What a result depends on besides the configuration."""

    python: str | None = None
    torch: str | None = None
    transformers: str | None = None
    hydra: str | None = None
    unipet: str | None = None
    machine: Machine = field(default_factory=Machine)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> Versions:
    """Those of this process."""
    import torch

    import unipet

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return Versions(
        python=platform.python_version(),
        torch=_version("torch"),
        transformers=_version("transformers"),
        hydra=_version("hydra-core"),
        unipet=unipet.__version__,
        machine=Machine(device, os.cpu_count(), torch.get_num_threads()),
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        match = re.search(
            r"^model name\s*:\s*(.+)$",
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"),
            flags=re.MULTILINE,
        )
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.machine()


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from; None where it is installed or nothing is committed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"], capture_output=True, encoding="ascii", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


@functools.cache
def source_checksum() -> str:
    """A checksum of the package's own code."""
    package, digest = Path(unipet.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
