"""The examples in the help texts. They are data (conf/examples.yaml), as every method's name is."""

from __future__ import annotations

from unipet.calculus.yaml_reader import read_yaml
from unipet.config import conf_dir

COLUMN = 54  # a longer command has its explanation on the next line


def examples(*commands: str) -> str:
    """`examples:` and one line per example of these commands; of all of them when none is given."""
    known = read_yaml(conf_dir() / "examples.yaml")
    lines = ["examples:"]
    for command in commands or known:
        for line, what in known[command]:
            gap = line.ljust(COLUMN) if len(line) < COLUMN else f"{line}\n  {'':{COLUMN}}"
            lines.append(f"  {gap}{what}")
    return "\n".join(lines)
