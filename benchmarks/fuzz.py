"""Changed methods, task files, rows, command lines and records, by the thousand: what became of each, counted.

    python -m benchmarks.fuzz [--methods 20000] [--others 5000] [--seed 0] [--kinds method,task,...] [--out FILE]

The same seed gives the same inputs. What has been tried is kept in runs/fuzz/, so that the command given again goes on. An input
that fails is made as small as can be and printed; the rest goes on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import speed_results
from tests.support.fuzz_commands import line_outcome, lines, record_outcome, records
from tests.support.fuzz_methods import mutants, outcome
from tests.support.fuzz_tasks import data_files, data_outcome, task_files, task_outcome
from tests.support.fuzzing import Batch, explore

BATCH = 250
#: kind -> (inputs, what comes of one, its share of the others)
KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], str], float]] = {
    "method": (mutants, outcome, 0.0),
    "task": (task_files, task_outcome, 0.2),
    "rows": (data_files, data_outcome, 0.3),
    "overrides": (lines, line_outcome, 0.3),
    "record": (records, record_outcome, 0.2),
}


def main() -> int:
    """0 where every input ended as it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=int, default=20_000)
    parser.add_argument("--others", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no batch after this time")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    asked = parser.parse_args()
    began, load = time.time(), os.getloadavg()
    wanted = {
        kind: asked.methods if kind == "method" else round(asked.others * KINDS[kind][2])
        for kind in asked.kinds.split(",")
    }
    going = {kind: batches(kind, count, asked.seed) for kind, count in wanted.items()}
    tried: dict[str, list[dict[str, Any]]] = {kind: [] for kind in wanted}
    while going and time.time() - began < 60 * asked.minutes:
        kind = min(going, key=lambda kind: count_of(tried[kind]) / max(wanted[kind], 1))  # all kinds get on alike
        if (batch := next(going[kind], None)) is None:
            del going[kind]
        else:
            tried[kind].append(batch)
    found = {kind: summary(tried[kind], count) for kind, count in wanted.items()}
    command = f"python -m benchmarks.fuzz {' '.join(sys.argv[1:])}".strip()
    content = {
        **speed_results.about(command, asked.seed, load),
        "minutes": round((time.time() - began) / 60, 1),
        **found,
    }
    content["cpus"] = os.cpu_count()
    print(json.dumps(found, indent=1))
    if asked.out is not None:
        asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if any(each["faults"] or each["count"] < each["wanted"] for each in found.values()) else 0


def batches(kind: str, wanted: int, seed: int) -> Iterator[dict[str, Any]]:
    """The batches of one kind, until there are as many inputs as wanted; those of earlier calls first."""
    path = speed_results.ROOT / "runs" / "fuzz" / f"{kind}-{seed}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    count = number = 0
    inputs, came, _ = KINDS[kind]
    while count < wanted:
        size = min(BATCH if kind == "method" else BATCH // 5, wanted - count)
        if number < len(known):
            batch = known[number]
        else:
            started = time.monotonic()
            new: Batch = explore(inputs(), came, seed * 1_000_000 + number, size)
            batch = {"outcomes": dict(new.outcomes), "failure": new.failure, "seconds": time.monotonic() - started}
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(batch) + "\n")
        count += max(1, sum(batch["outcomes"].values()))
        number += 1
        print(f"{kind}: {count:,} of {wanted:,}, {batch['seconds']:.0f} s: {batch['outcomes']}", flush=True)
        if batch["failure"]:
            print(f"\n{batch['failure']}\n", flush=True)
        yield batch


def count_of(every: list[dict[str, Any]]) -> int:
    """How many inputs these batches tried."""
    return sum(sum(batch["outcomes"].values()) for batch in every)


def summary(every: list[dict[str, Any]], wanted: int) -> dict[str, Any]:
    """All batches of a kind in one."""
    outcomes = Counter[str]()
    for batch in every:
        outcomes.update(batch["outcomes"])
    return {
        "wanted": wanted,
        "count": count_of(every),
        "outcomes": dict(sorted(outcomes.items())),
        "faults": [batch["failure"] for batch in every if batch["failure"]],
        "seconds": round(sum(batch["seconds"] for batch in every)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
