"""`python -m tests.support.matrix_report [-n 2]`: run the matrix and print architectures x methods, with the reason of each
refused pair and what each failing one did not do. Further arguments go to pytest.

The matrix is the behavioural suite for every pair. What else is asked of pairs (test_matrix_passes.py) is not part of it.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from typing import Any

import pytest

from tests.support.checkout import ROOT

MATRIX = ("test_behaviour.py", "test_matrix_refused.py")


class Tally:
    """Collects which pairs passed, and of each other one what did not hold."""

    def __init__(self) -> None:
        self.passed: set[tuple[str, str]] = set()
        self.failed: dict[tuple[str, str], set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest for each phase of each test, in the controlling process if there are several."""
        match = re.search(r"::(\w+)\[(\w+)-(\w+)", report.nodeid)
        if match and report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failed[match[2], match[3]].add(crash.message.splitlines()[0] if crash else match[1])
        elif match and report.when == "call" and report.passed:
            self.passed.add((match[2], match[3]))


def table(tally: Tally) -> str:
    """One row per architecture, one column per method: `ok`, a letter for the reason of a refusal, `FAIL`, or `?` for
    a pair that no test ran on."""
    from tests.support.architectures import ARCHS
    from tests.support.matrix import METHODS, REASONS

    letters = {why: chr(ord("a") + n) for n, why in enumerate(sorted({why for why in REASONS.values() if why}))}

    def cell(method: str, arch: str) -> str:
        if tally.failed.get((method, arch)):
            return "FAIL"
        if (method, arch) not in tally.passed:
            return "?"
        return letters.get(REASONS[method, arch] or "", "ok")

    cells = {(m, a): cell(m, a) for m in METHODS for a in ARCHS}
    numbers = {method: str(n + 1) for n, method in enumerate(METHODS)}
    lines = [" " * 17 + "".join(f"{n:>5}" for n in numbers.values())]
    lines += [f"{arch:17}" + "".join(f"{cells[method, arch]:>5}" for method in METHODS) for arch in ARCHS]
    lines += ["", "methods: " + ", ".join(f"{n} {method}" for method, n in numbers.items())]
    for why, letter in letters.items():
        pairs = [pair for pair, reason in REASONS.items() if reason == why]
        lines.append(
            f"{letter}: {why} ({len(pairs)} pairs: {', '.join(dict.fromkeys(m for m, _ in pairs))} on "
            f"{', '.join(dict.fromkeys(a for _, a in pairs))})"
        )
    lines += [f"FAIL {m} on {a}: {', '.join(sorted(tests))}" for (m, a), tests in tally.failed.items()]
    counts = {kind: sum(value in kinds for value in cells.values()) for kind, kinds in kinds_of(letters).items()}
    lines.append(
        f"\n{len(ARCHS)} architectures x {len(METHODS)} methods = {len(cells)} pairs: "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items())
    )
    return "\n".join(lines)


def kinds_of(letters: dict[str, str]) -> dict[str, set[str]]:
    """What a cell means."""
    return {"pass": {"ok"}, "refused with a reason": set(letters.values()), "failing": {"FAIL"}, "not run": {"?"}}


def main(arguments: list[str]) -> int:
    """Run and print; the exit status is pytest's."""
    tally, start = Tally(), time.monotonic()
    status = pytest.main(
        ["-q", "--no-header", "--tb=line", *(str(ROOT / "tests" / "adaptation" / name) for name in MATRIX), *arguments],
        [tally],
    )
    seconds = time.monotonic() - start  # of the tests alone: the table imports the whole library once more
    print(f"\n{table(tally)}, in {seconds:.0f} s")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
