"""Changed methods, task files, rows, command lines and records: each ends in something that works or in one error.

`make fuzz` tries far more of them. An input that fails is printed, made as small as can be: it becomes a test of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.support import fuzz_commands, fuzz_methods, fuzz_tasks
from tests.support.fuzz_trees import copied, nested
from tests.support.fuzzing import Fault, calm, explore

SEED = 7
OTHERS: dict[str, tuple[Any, Any]] = {
    "task": (fuzz_tasks.task_files, fuzz_tasks.task_outcome),
    "rows": (fuzz_tasks.data_files, fuzz_tasks.data_outcome),
    "overrides": (fuzz_commands.lines, fuzz_commands.line_outcome),
    "record": (fuzz_commands.records, fuzz_commands.record_outcome),
}


@pytest.mark.parametrize("part", range(5))
def test_changed_methods(part: int) -> None:
    batch = explore(fuzz_methods.mutants(), fuzz_methods.outcome, SEED + part, 100)
    assert not batch.failure, batch.failure
    assert batch.count == 100 and sum(n for word, n in batch.outcomes.items() if word.startswith("works")) >= 10


@pytest.mark.parametrize("name", sorted(fuzz_tasks.TREES))
def test_an_unchanged_task_file_works(name: str) -> None:
    """What is refused of changed ones is refused for its change."""
    assert fuzz_tasks.task_outcome(fuzz_tasks.unchanged(name)) == "works"


@pytest.mark.parametrize("kind", OTHERS)
def test_changed_inputs_of_other_kinds(kind: str) -> None:
    inputs, outcome = OTHERS[kind]
    batch = explore(inputs(), outcome, SEED, 50)
    assert not batch.failure, batch.failure
    assert batch.count == 50 and len(batch.outcomes) >= 2
    assert any(word.startswith("works") or word.endswith("exit code 0") for word in batch.outcomes)


def test_a_fault_is_found_and_made_small() -> None:
    """Otherwise the tests above would say nothing."""

    def outcome(number: int) -> str:
        if number >= 100:
            raise Fault("too large")
        return "works"

    batch = explore(st.integers(0, 10_000), outcome, SEED, 200)
    assert batch.failure == "Fault: too large\n\n100" and batch.outcomes["FAULT"] == 1


def test_the_same_seed_gives_the_same_inputs() -> None:
    seen: list[list[str]] = []
    for _ in range(2):
        seen.append([])
        explore(fuzz_methods.mutants(), lambda mutant: seen[-1].append(str(mutant)) or "", SEED, 20)
    assert seen[0] == seen[1] and len(Counter(seen[0])) > 10


def test_what_takes_too_long_or_too_much_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import fuzzing

    def endless(number: int) -> str:
        with calm():
            while True:
                pass

    monkeypatch.setattr(fuzzing, "CPU_SECONDS", 0.2)
    assert "HangError" in explore(st.just(1), endless, SEED, 1).failure

    def greedy(number: int) -> str:
        with calm():
            return str(len(bytearray(64 * 2**30)))

    assert "MemoryError" in explore(st.just(1), greedy, SEED, 1).failure


def test_a_copy_is_of_any_depth_and_keeps_what_is_the_same_object() -> None:
    deep = nested(20_000, "name")
    copy, depth = copied(deep), 0
    while isinstance(copy, dict):
        copy, deep, depth = copy["name"], deep["name"], depth + 1
        assert copy is not deep or not isinstance(copy, dict)
    assert (copy, depth) == (1, 20_000)
    tree: dict[str, Any] = {"a": [1, "x"]}
    tree |= {"b": tree["a"], "itself": tree}
    again = copied(tree)
    assert again["a"] == [1, "x"]
    assert again["a"] is not tree["a"]
    assert again["b"] is again["a"]
    assert again["itself"] is again
