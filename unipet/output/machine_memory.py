"""The main memory of this machine."""

from __future__ import annotations

from pathlib import Path


def available_gib() -> float:
    """Main memory that programs can still get; a lot where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 64.0
    kib = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)
    return kib / 2**20
