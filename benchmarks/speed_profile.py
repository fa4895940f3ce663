"""Why a method is slower or larger than the floor or peft's, whatever the machine: `python -m benchmarks.speed_profile`.

Writes benchmarks/results/speed_profile.json and its table in docs/performance.md. For every pair of an encoder: the peak
memory and the floating-point operations of a training step on MiniLM, 4 x 64 tokens (operations without the optimiser's),
the operators of a forward and backward pass on a tiny BERT, and those of which each side has more. The operations divided
by the floor's are what a method cannot go below with the products that it takes, if an operation takes as long as one of the
floor's.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import speed_results
from benchmarks.operators import Operators
from benchmarks.speed_measuring import SEED, peak_mib
from benchmarks.speed_models import on_cpu, tiny
from benchmarks.speed_pairs import PAIRS, Pair
from benchmarks.speed_variants import Variant, floor, ours, peer
from unipet.runs.versions import now

NAME = "speed_profile"
BATCH = 4
#: The time of a step that is wanted, divided by the floor's.
TARGETS = {
    "LoRA, q and v": 1.03,
    "LoRA, all linears": 1.15,
    "DoRA": 1.07,
    "(IA)³": 1.03,
    "BitFit": 1.03,
    "VeRA": 1.15,
    "sequential adapter": 1.03,
    "parallel adapter": 1.03,
    "Houlsby adapter": 1.06,
    "prefix, 30 tokens": 1.08,
    "MAM": 1.09,
    "UniPELT": 1.12,
    "Compacter": 1.05,
    "AdaMix without consistency": 1.04,
    "AdaMix": 2.06,
}


def operators(variant: Variant) -> Counter[str]:
    """The operators of a pass after the first."""
    variant.step()
    variant.model.zero_grad(set_to_none=True)
    with Operators() as counted:
        variant.gradients()
    return counted.counts


def operations(variant: Variant) -> int:
    """The floating-point operations of the products of a pass; attention is written out, so that its own are counted."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        variant.gradients()
    return counted.get_total_flops()


def row(
    pair: Pair, small: tuple[Any, Any], large: tuple[Any, Any], eager: tuple[Any, Any], least: int
) -> dict[str, Any]:
    """One pair. `small`, `large`, `eager`: a base model and its workload each; `least`: the operations of the floor."""

    def sides(base: Any, work: Any) -> dict[str, Variant]:
        own = ours(base, pair, work, "cpu", False)
        other = peer(base, pair, own)
        return {"ours": own} if other is None else {"ours": own, "peer": other}

    made: dict[str, Any] = {"method": pair.name, "peer": pair.peer, "target": TARGETS.get(pair.name), "measured": now()}
    counts = {side: operators(variant) for side, variant in sides(*small).items()}
    made |= {f"{side}_operators": count.total() for side, count in counts.items()}
    if "peer" in counts:
        made["more_in_ours"] = dict((counts["ours"] - counts["peer"]).most_common())
        made["more_in_peer"] = dict((counts["peer"] - counts["ours"]).most_common())
    for side, variant in sides(*eager).items():
        made[f"{side}_operations"] = round(operations(variant) / least, 3)
    for side, variant in sides(*large).items():
        variant.step()
        made[f"{side}_mib"] = round(peak_mib(variant), 1)
    return made


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| method | target | products, ours / floor | peer / floor | MiB, ours | MiB, peer | operators, ours | peer | peer |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        numbers = [
            each["target"],
            *(each.get(f"{side}_{what}") for what in ("operations", "mib", "operators") for side in ("ours", "peer")),
        ]
        cells = [each["method"], *("-" if number is None else f"{number}" for number in numbers), each["peer"] or "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="measure these rows alone, by their names, and keep the others")
    only = parser.parse_args(arguments).methods
    file = speed_results.RESULTS / f"{NAME}.json"
    before = json.loads(file.read_text(encoding="utf-8")) if only else {"rows": []}
    known = {each["method"]: {"measured": before["measured"], **each} for each in before["rows"]}
    torch.manual_seed(SEED)
    small, large, eager = ((work.build(), work) for work in (tiny()[0], on_cpu(BATCH)[0], on_cpu(BATCH)[0]))
    eager[0].set_attn_implementation("eager")
    rows, least = [], operations(floor(*eager, "cpu", False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft
        for pair in PAIRS:
            if "encoder" not in pair.models:
                continue
            if only and pair.name not in only:
                rows.append(known[pair.name])
            else:
                rows.append(row(pair, small, large, eager, least))
                print({key: value for key, value in rows[-1].items() if not key.startswith("more")}, flush=True)
    about = speed_results.about("python -m benchmarks.speed_profile", SEED, (0.0, 0.0, 0.0))
    content = {key: about[key] for key in ("command", "seed", "measured", "versions")} | {"rows": rows}
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    speed_results.put_into(speed_results.PAGE, NAME, table(rows))


if __name__ == "__main__":
    main()
