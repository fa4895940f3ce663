"""Why a method is slower or larger than peft's, whatever the machine: `python -m benchmarks.speed_profile`.

Writes benchmarks/results/speed_profile.json. For every pair of an encoder: the operators of a forward and backward pass on a
tiny BERT, those of which each side has more, and the peak memory of a training step on MiniLM, 4 x 64 tokens.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from typing import Any

from benchmarks import speed_results
from benchmarks.operators import Operators
from benchmarks.speed_measuring import SEED, peak_mib
from benchmarks.speed_models import on_cpu, tiny
from benchmarks.speed_pairs import PAIRS, Pair
from benchmarks.speed_variants import Variant, ours, peer

NAME = "speed_profile"


def counted(variant: Variant) -> Counter[str]:
    """The operators of a pass after the first."""
    variant.step()
    variant.model.zero_grad(set_to_none=True)
    with Operators() as operators:
        variant.gradients()
    return operators.counts


def row(pair: Pair, small: tuple[Any, Any], large: tuple[Any, Any]) -> dict[str, Any]:
    """One pair; `small` and `large`: a base model and its workload each."""
    own = ours(small[0], pair, small[1], "cpu", False)
    other = peer(small[0], pair, own)
    assert other is not None
    mine, theirs = counted(own), counted(other)
    made: dict[str, Any] = {"method": pair.name, "ours_operators": mine.total(), "peft_operators": theirs.total()}
    made |= {"more_in_ours": dict((mine - theirs).most_common()), "more_in_peft": dict((theirs - mine).most_common())}
    own = ours(large[0], pair, large[1], "cpu", False)
    other = peer(large[0], pair, own)
    assert other is not None
    for side in (own, other):
        side.step()
    return made | {"ours_mib": round(peak_mib(own), 1), "peft_mib": round(peak_mib(other), 1)}


def main() -> None:
    """Measure, print, write."""
    import torch

    torch.manual_seed(SEED)
    small, large = ((work.build(), work) for work in (tiny()[0], on_cpu(4)[0]))
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft
        for pair in PAIRS:
            if pair.peft is not None and "encoder" in pair.models:
                rows.append(row(pair, small, large))
                print({key: value for key, value in rows[-1].items() if not key.startswith("more")}, flush=True)
    about = speed_results.about("python -m benchmarks.speed_profile", SEED, (0.0, 0.0, 0.0))
    content = {key: about[key] for key in ("command", "seed", "measured", "versions")} | {"rows": rows}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (speed_results.RESULTS / f"{NAME}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
