"""Processes of this machine: in which space their numbers count, and which of them live."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path


@functools.cache
def visible_processes() -> str:
    """Which processes this one can see: equal names, equal process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()}"


def is_alive(pid: int) -> bool:
    """Whether a process that this one can see has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked for its exit code yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return bool(state) and state[0] == "Z"
