"""Where the shipped YAML is: the installed package unipet.conf, or a checkout's conf/."""

from __future__ import annotations

from pathlib import Path

from unipet.errors import UnipetError


def conf_dir() -> Path:
    """The directory of the shipped groups (method, task, model, ...). Raises UnipetError if it is not there."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise UnipetError(f"unipet's configuration is missing (looked in {package / 'conf'}). Reinstall unipet.")
