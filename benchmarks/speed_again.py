"""The rows of `make bench` that are slower than peft's, each measured again, alone: `python -m benchmarks.speed_again`.

Of eighty rows that are equally fast, two lie above by chance; a row that is slower lies above again. Writes its table to
benchmarks/results/speed_again.json and docs/performance.md. `make bench` runs it after the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import speed, speed_results

NAME = "speed_again"


def rows_again(rows: Sequence[Mapping[str, Any]], works: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """What `seconds` each say of the `rows` that are slower. `works`: the base models by name."""
    from benchmarks.speed_measuring import line, measure_alone
    from benchmarks.speed_pairs import PAIRS

    pairs = {pair.name: pair for pair in PAIRS}
    found = []
    for row in filter(speed_results.is_slower, rows):
        found.append(measure_alone(works[row["model"]], pairs[row["method"]], row["phase"], seconds))
        print(line(found[-1]))
    return found


def table(content: Mapping[str, Any]) -> str:
    """The rows measured again, as Markdown."""
    machine = content["versions"]["machine"]
    lines = [
        f"Rows that are slower, measured again by `{content['command']}` on {content['measured'][:10]}: {machine['device']}, "
        f"{machine['threads']} threads, load average {content['load_average_before'][0]:.1f} before, "
        f"{content['load_average_after'][0]:.1f} after.",
        "",
        "| base model | phase | method | rounds | ours / peer | still slower |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        words = [
            row["model"],
            row["phase"],
            row["method"],
            str(row["rounds"]),
            speed_results.ratio(row, "ours_peer", 3),
        ]
        lines.append("| " + " | ".join([*words, "yes" if speed_results.is_slower(row) else "no"]) + " |")
    return "\n".join(lines) if content["rows"] else "No row was slower."


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the tables, measure, write, print."""
    from benchmarks.speed_measuring import SEED, keep_freed_memory
    from benchmarks.speed_models import on_cpu

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=100.0, help="for each row")
    parser.add_argument("--batch", type=int, default=16, help="of the tables")
    asked = parser.parse_args(arguments)
    load = os.getloadavg()
    kept = keep_freed_memory()
    tables = json.loads((speed_results.RESULTS / f"{speed.NAME}.json").read_text(encoding="utf-8"))
    rows = rows_again(tables["rows"], {work.name: work for work in on_cpu(asked.batch)}, asked.seconds)
    command = f"python -m benchmarks.speed_again --seconds {asked.seconds:g} --batch {asked.batch}"
    content = {
        **speed_results.about(command, SEED, load),
        "freed_memory_kept": kept,
        "tables": tables["measured"],
        "rows": rows,
    }
    file = speed_results.RESULTS / f"{NAME}.json"
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    speed_results.put_into(speed_results.PAGE, NAME, table(content))


if __name__ == "__main__":
    sys.exit(main())
