"""The certificate of a run or of a saved adapter: what was checked, what came out, and what could not be checked.

It proves nothing about how good a method is, only that the score is of what it says: that everything that should train did, that
the saved files hold it, and that no padding, batch or cache had a part in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from unipet.output.json_object import JsonObject, added_later

PASSED, FAILED = "passed", "failed"
NOT_APPLICABLE = "not_applicable"  # there is nothing of the kind to check
NOT_RUN = "not_run"  # there is, and it was left out: `text` says why

#: Check -> what it says where it has passed. A certificate has all of them.
CHECKS = {
    "sites": "every role of every insertion was found in every layer that its position asks for",
    "moved": "training changed every trainable tensor",
    "frozen": "training changed nothing that is frozen",
    "finite": "every saved value is a finite number",
    "round_trip": "the saved adapter, loaded into the base model, gives the same outputs",
    "merge": "the merged model gives the same outputs as the unmerged one",
    "padding": "padding changes no output",
    "batch_size": "the size of a batch changes no output",
    "row_order": "the order of rows changes no output",
    "generation_cache": "generated texts are the same with and without the cache",
    "encoding": "labels, template, loss mask, splits and selection are those of the run",
    "score": "the whole evaluation gives the recorded score again",
}
#: What only `unipet verify` can check, from outside of the run.
AFTERWARDS = frozenset({"encoding", "score"})


@dataclass
class Check(JsonObject):
    """One check: `status`, and in words what was found."""

    status: str = NOT_RUN
    text: str = ""
    largest: float | None = added_later(None)  # difference of two outputs, in units of the outputs
    tolerance: float | None = added_later(None)  # the largest difference that passes
    dtypes: dict[str, float] = added_later(factory=dict)  # number format -> largest difference


@dataclass
class Matched(JsonObject):
    """The sites of one insertion: how many, and a hash of their names in order."""

    count: int = 0
    names: str = ""


@dataclass
class Certificate(JsonObject):
    """What was checked of a run or of a saved adapter."""

    by: str = "run"  # run | verify | verify --deep | save
    sites: dict[str, Matched] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    #: Hashes of what makes two scores comparable: labels, template, loss mask, splits, selection.
    protocol: dict[str, str] = added_later(factory=dict)

    @property
    def failed(self) -> list[str]:
        """The checks that something is wrong with."""
        return [name for name, check in self.checks.items() if check.status == FAILED]

    @property
    def missing(self) -> list[str]:
        """The checks that there should be, and whose outcome is not known."""
        known = {name for name, check in self.checks.items() if check.status != NOT_RUN}
        return [name for name in CHECKS if name not in known and name not in AFTERWARDS]

    @property
    def certified(self) -> bool:
        """Whether every check was made, and none failed."""
        return not self.failed and not self.missing

    @property
    def verdict(self) -> str:
        """`certified`, or what failed and what is not known."""
        if self.certified:
            return "certified"
        parts = [("failed", self.failed), ("not known", self.missing)]
        return "not certified: " + "; ".join(f"{word}: {', '.join(names)}" for word, names in parts if names)


def passed(text: str = "") -> Check:
    """A check that found nothing wrong."""
    return Check(PASSED, text)


def failed(text: str) -> Check:
    """A check that found something wrong; `text` names it."""
    return Check(FAILED, text)


def compared(largest: float, tolerance: float, text: str) -> Check:
    """A check of two outputs; `text` says which, and what it means if they differ. Not a number differs."""
    if largest <= tolerance:
        return Check(PASSED, "", largest, tolerance)
    shown = largest if abs(largest) < float("inf") else None  # JSON has no infinity
    return Check(FAILED, f"{text}: outputs differ by up to {largest:.3g}", shown, tolerance)


def hash_of(texts: Iterable[str]) -> str:
    """Sixteen hexadecimal digits for a list of texts."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "backslashreplace")).hexdigest()[:16]
