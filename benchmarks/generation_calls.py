"""What one generated token costs beside the base model, counted instead of timed: calls of Python and C functions, and operators.

    python -m benchmarks.generation_calls [--write]

The tiny Llama of the speed table generates with a KV cache, bare, with each method, and with peft's of equal sites and sizes.
Counts are the same on every machine and under every load; on small batches they are what generation's time beside the floor is
made of. `--write` keeps them in benchmarks/results/generation_calls.json, with the functions that are called most, and in
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import speed_results
from benchmarks.operators import Operators
from benchmarks.speed_models import Workload, tiny
from benchmarks.speed_pairs import PAIRS, Pair
from benchmarks.speed_variants import Variant, floor, ours, peer

NAME = "generation_calls"
TOKENS = 8  # by which the two lengths differ whose difference is counted
MOST = 12  # functions that are listed


@dataclass
class Counts:
    """Of one generated token."""

    calls: float
    operators: float
    functions: Counter[str]


def counted(variant: Variant) -> Counts:
    """The counts of a token: what more tokens add, so that the pass over the prompt plays no part."""
    short, long = _generated(variant, 2), _generated(variant, 2 + TOKENS)
    functions = Counter({name: (long[0][name] - short[0][name]) / TOKENS for name in long[0]})
    return Counts(sum(functions.values()), (long[1] - short[1]) / TOKENS, functions)


def _generated(variant: Variant, count: int) -> tuple[Counter[str], int]:
    """Calls by function, and the number of operators, while `count` tokens are generated."""
    found: Counter[str] = Counter()
    half = {name: value[:, : variant.workload.length // 2] for name, value in variant.inputs.items()}

    def generate() -> None:
        variant.model.generate(**half, max_new_tokens=count, min_new_tokens=count, do_sample=False)

    def heard(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            found[f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_code.co_qualname}"] += 1
        elif event == "c_call":
            found[f"C {getattr(argument, '__qualname__', argument)}"] += 1

    variant.model.eval()
    with torch.no_grad():
        generate()  # what is made once
        sys.setprofile(heard)
        try:
            generate()
        finally:
            sys.setprofile(None)
        with Operators() as operators:
            generate()
    return found, sum(operators.counts.values())


def workload() -> Workload:
    """The model that generates."""
    return next(each for each in tiny() if "generation" in each.phases)


def pairs() -> list[Pair]:
    """The methods that are compared, those that peft has."""
    return [pair for pair in PAIRS if "decoder" in pair.models and pair.peft is not None]


def measure(pair: Pair) -> tuple[Counts, Counts, Counts]:
    """The base model's counts, ours and peft's."""
    where = workload()
    base = where.build()
    own = ours(base, pair, where, "cpu", False)
    other = peer(base, pair, own)
    assert other is not None
    return counted(floor(base, where, "cpu", False)), counted(own), counted(other)


def table(content: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    versions = content["versions"]
    lines = [
        f"Made by `{content['command']}` on {content['measured'][:10]}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}, peft {versions['peft']}: counts, not times.",
        "",
        "| method | calls | peft's | operators | peft's |",
        "|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        cells = [f"{row[key]:.0f}" for key in ("calls", "peft_calls", "operators", "peft_operators")]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Count and print the table; with --write, keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", metavar="NAME", help="the method whose name begins so, with the functions it calls")
    asked = parser.parse_args()
    rows = []
    print(f"{'method':24} {'calls':>8} {'peft':>8} {'operators':>10} {'peft':>8}    of a token beside the base model's")
    for pair in pairs():
        if asked.only and not pair.name.startswith(asked.only):
            continue
        bare, own, other = measure(pair)
        row: dict[str, Any] = {
            "method": pair.name,
            "calls": own.calls - bare.calls,
            "peft_calls": other.calls - bare.calls,
            "operators": own.operators - bare.operators,
            "peft_operators": other.operators - bare.operators,
        }
        row["most"] = dict((own.functions - bare.functions).most_common(MOST))
        rows.append(row)
        print(
            f"{pair.name:24} {row['calls']:8.1f} {row['peft_calls']:8.1f} {row['operators']:10.1f} {row['peft_operators']:8.1f}"
        )
        if asked.only:
            for name, count in (own.functions - bare.functions).most_common(60):
                print(f"    {count:8.1f}  {name}")
    if asked.write:
        about = speed_results.about("python -m benchmarks.generation_calls --write", 0, os.getloadavg())
        content = {**about, "rows": rows}
        (speed_results.RESULTS / f"{NAME}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        speed_results.put_into(speed_results.PAGE, NAME, table(content))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
