"""Where what was computed once is kept: `<runs_dir>/.cache`, or what the environment variable UNIPET_CACHE names.

Nothing there is more than a way to save time, so deleting the directory is always allowed.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "UNIPET_CACHE"


def cache_directory(runs_dir: str | Path) -> Path | None:
    """The directory for runs below `runs_dir`; None when the user turned it off (UNIPET_CACHE=off)."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() in ("off", "none", "0"):
        return None
    return Path(os.path.expanduser(given)) if given else Path(runs_dir) / ".cache"
