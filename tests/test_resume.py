"""A run that was killed or interrupted goes on from its last resume point, and ends with the bytes of an undisturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resume_room import assert_same, config_in, finished, killed
from run_room import LOW_RANK, MIXTURE

ADAPTER = {
    "name": "tiny_bottleneck",
    "insertions": {
        "ffn": {"function": {"name": "bottleneck", "size": 4}, "position": {"site": "ffn", "form": "sequential"}}
    },
}
PREFIX = {
    "name": "tiny_prefix",
    "insertions": {
        "attention": {
            "function": {"name": "prefix", "size": 3},
            "position": {"site": "attn.heads"},
            "composition": "gated",
        }
    },
}
FULL: dict[str, Any] = {"name": "tiny_full", "insertions": {}, "unfreeze": ["all"]}
PER_EXAMPLE = {
    **MIXTURE,
    "name": "tiny_per_example",
    "insertions": {
        "ffn": {
            **MIXTURE["insertions"]["ffn"],
            "mixture": {"experts": 3, "router": "per_example", "reducer": "random_example"},
        }
    },
}
SELECTION = {"task__selection": "train_holdout", "task__selection_size": 8, "optim__epochs": 3}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (LOW_RANK, {}),
        (ADAPTER, SELECTION),
        (PREFIX, {"optim__schedule": "cosine"}),
        (MIXTURE, SELECTION),
        (PER_EXAMPLE, SELECTION),
        (FULL, SELECTION),
        (MIXTURE, {"budget__max_tokens": 500}),
        (LOW_RANK, {"precision": "bf16"}),
        (LOW_RANK, {"optim__lr_ratio": 4.0, "optim__epochs": 2.5, "seed": 3}),
    ],
    ids=lambda value: value["name"] if "name" in value else "-".join(map(str, value)) or "plain",
)
def test_a_run_killed_twice_ends_as_an_undisturbed_one(
    tmp_path: Path, method: dict[str, Any], changes: dict[str, Any]
) -> None:
    alone = config_in(tmp_path, method, "alone", None, **changes)
    config = config_in(tmp_path, method, "killed", "3 steps", **changes)
    whole = finished(alone)
    killed(config, 4)
    killed(config, 7)
    record = finished(config)
    assert record["resumed"] == [3, 6] and whole["resumed"] == []
    assert_same(alone, config)
