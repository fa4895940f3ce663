"""Carve a tuning set out of SST-2's training split, so that no learning rate is chosen on the reported split.

    python experiments/first_light/make_holdout.py ../shared/data/sst2 runs/first_light/holdout

Rows 0-3,999 of a fixed shuffle become train.jsonl and rows 4,000-4,999 validation.jsonl.
"""

import random
import sys
from pathlib import Path

source, target = Path(sys.argv[1]), Path(sys.argv[2])
lines = (source / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
random.Random(0).shuffle(lines)
target.mkdir(parents=True, exist_ok=True)
(target / "train.jsonl").write_text("".join(lines[:4000]), encoding="utf-8")
(target / "validation.jsonl").write_text("".join(lines[4000:5000]), encoding="utf-8")
