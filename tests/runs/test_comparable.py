"""What runs must have in common, in parts with a hash: which setting is in which part, and what a report does with it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted import planted
from unipet.config import RunConfig, TaskConfig
from unipet.report.collect import Entry
from unipet.report.comparing import Group, compare
from unipet.report.verdicts import verdicts_text
from unipet.runs import comparable as parts
from unipet.runs.comparable import comparable
from unipet.runs.record import Record
from unipet.runs.versions import Versions
from unipet.tasks.kinds import KINDS


def test_every_key_of_a_task_has_a_place() -> None:
    """A new key is compared, covered by the fingerprint of the data, or free to differ; never forgotten."""
    placed = [*(key for keys in parts.MEASURED.values() for key in keys), *parts.BY_FINGERPRINT, *parts.FREE]
    below = tuple(key for key in placed if key.endswith("."))
    for each in fields(TaskConfig):
        key = f"task.{each.name}"
        assert placed.count(key) + f"{key}.".startswith(below) == 1, key


def test_a_hash_says_whether_the_values_are_the_same() -> None:
    config = asdict(RunConfig())
    first, again = (comparable(config, Record(metric="accuracy")) for _ in range(2))
    assert {part: each.hash for part, each in first.items()} == {part: each.hash for part, each in again.items()}
    config["task"]["text"] = ["It was {sentence}"]
    changed = comparable(config, Record(metric="accuracy"))
    assert [part for part in first if first[part].hash != changed[part].hash] == ["template"]
    assert all(len(each.hash) == 8 for each in first.values())
    assert all(kind.supervised for kind in KINDS.values())


def group(first: dict[str, Any], second: dict[str, Any], anyway: bool = False, recorded: bool = True) -> Group:
    both = (("a", 0.5, first), ("b", 0.6, second))
    entries = [planted(score, name, seed, **more) for name, score, more in both for seed in (0, 1)]
    for entry in entries:
        if recorded:
            entry.record.comparable = comparable(entry.config, entry.record)
    (one,) = compare(entries, anyway)
    return one


@pytest.mark.parametrize("recorded", [True, False])
def test_runs_that_differ_in_the_template_are_not_ranked_and_the_diff_names_it(recorded: bool) -> None:
    texts = [["{sentence}"], ["It was {sentence}"]]
    different = [{"config": {"text": text, "kind": "masked_prompt"}} for text in texts]
    one = group(different[0], different[1], recorded=recorded)
    assert not one.ranked and not one.pairs
    assert one.differences == ('template: task.text differs: ["It was {sentence}"] (b); ["{sentence}"] (a)',)
    text = verdicts_text([one])
    assert "  not ranked: template: task.text differs:\n" in text and "--anyway ranks all the same" in text
    assert '      ["It was {sentence}"]  b\n      ["{sentence}"]         a\n' in text
    assert group(different[0], different[1], anyway=True).ranked


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("verbalizers", ["bad", "good"], "label words"),
        ("max_length", 64, "truncation"),
        ("decoding", {"num_beams": 4}, "decoding"),
        ("evaluation_split", "test", "splits"),
        ("selection_size", 9, "selection"),
        ("kind", "seq2seq", "loss mask"),
    ],
)
def test_what_changes_what_is_measured_prevents_a_ranking(key: str, value: object, part: str) -> None:
    usual = asdict(TaskConfig()) | {"name": "t"}
    one = group({"config": usual}, {"config": usual | {key: value}})
    assert not one.ranked and part in {each.part for each in one.diff}


def test_what_may_change_rounding_is_named_and_ranked() -> None:
    first = {"versions": Versions(torch="2.8.0"), "precision": "fp32"}
    one = group(first, {"versions": Versions(torch="2.9.0"), "precision": "bf16"})
    assert one.ranked and len(one.pairs) == 1 and not one.differences
    assert [text for text in one.warnings if "rounding" in text] == [
        'numbers may differ by rounding: numerics: precision differs: "bf16" (b); "fp32" (a)',
        'numbers may differ by rounding: versions: torch differs: "2.9.0" (b); "2.8.0" (a)',
    ]


def test_records_from_before_are_read_by_their_configurations() -> None:
    entries = [planted(0.5, "old"), planted(0.6, "new")]
    entries[1].record.comparable = comparable(entries[1].config, entries[1].record)
    (one,) = compare(entries)
    assert one.ranked and any("since the records do not have it: old" in text for text in one.warnings)


def test_a_record_keeps_it(tmp_path: Path) -> None:
    entry: Entry = planted(0.5)
    entry.record.comparable = comparable(entry.config, entry.record)
    again = Record.from_dict(json.loads(json.dumps(entry.record.to_dict())))
    assert again.comparable == entry.record.comparable and again.comparable["metric"].values["metric"] == "accuracy"
    assert "comparable" not in Record().to_dict()
