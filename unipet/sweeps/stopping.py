"""The wish that a sweep ends early: a file that workers look for before they take a job."""

from __future__ import annotations

from pathlib import Path

STOP = "stop"  # a file; its text says why


def stop(sweep: Path, why: str) -> None:
    """Let workers take no further job. The first reason stays."""
    if not stopped(sweep):
        (sweep / STOP).write_text(f"{why}\n", encoding="utf-8")


def stopped(sweep: Path) -> str | None:
    """Why workers take no further job; None where nobody wished it."""
    try:
        return (sweep / STOP).read_text(encoding="utf-8").strip() or "no reason given"
    except FileNotFoundError:
        return None


def go_on(sweep: Path) -> None:
    """Let workers take jobs again."""
    (sweep / STOP).unlink(missing_ok=True)
