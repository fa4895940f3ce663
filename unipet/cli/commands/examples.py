"""The examples in help texts, read from conf/examples.yaml."""

from __future__ import annotations

from unipet.calculus.yaml_reader import read_yaml
from unipet.config import conf_dir

COLUMN = 54  # the explanation of a longer command is on the next line


def examples(*commands: str) -> str:
    """`examples:` and one line per example of these commands, or of all commands if none is given."""
    known = read_yaml(conf_dir() / "examples.yaml")
    lines = ["examples:"]
    for command in commands or known:
        for line, what in known[command]:
            gap = line.ljust(COLUMN) if len(line) < COLUMN else f"{line}\n  {'':{COLUMN}}"
            lines.append(f"  {gap}{what}")
    return "\n".join(lines)
