"""Sending a dashboard to wandb: the only part of the report that needs a network and a login."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from unipet.errors import UnipetError
from unipet.report.collect import Entry
from unipet.report.dashboard import build


def check_workspaces() -> None:
    """Raise `UnipetError` where wandb-workspaces is missing."""
    if find_spec("wandb_workspaces") is None:
        raise UnipetError(
            "unipet dashboard: the package wandb-workspaces is not installed. Install it: `pip install 'unipet[dashboard]'`."
        )


def default_entity() -> str:
    """The entity of whoever is logged in. Raises `UnipetError`, without asking anything, where nobody is."""
    import wandb

    stdin, sys.stdin = sys.stdin, io.StringIO()  # wandb would ask a terminal for a key, in the middle of a command
    try:
        return str(wandb.Api().default_entity or "")
    except Exception as error:
        raise UnipetError(
            f"--push: not logged in to wandb, or it is not reached ({_first(error)}). Run `wandb login`, or set "
            "WANDB_API_KEY; `--dry-run` writes the dashboard as JSON without either."
        ) from None
    finally:
        sys.stdin = stdin


def push(entries: Sequence[Entry], name: str, project: str, entity: str) -> list[str]:
    """Save the workspace and the report on wandb's server; their addresses.

    Raises `UnipetError` without a login, and for whatever the server refuses: then the message says what was saved.
    """
    known = default_entity()
    workspace, report = build(entries, name, project, entity or known)
    done: list[str] = []
    for what, part in (("report", report), ("workspace", workspace)):
        try:
            part.save()
        except Exception as error:
            saved = f" Saved before it: {', '.join(done)}." if done else ""
            raise UnipetError(f"--push: wandb did not take the {what} ({_first(error)}).{saved}") from None
        done.append(str(part.url))
    return done


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
