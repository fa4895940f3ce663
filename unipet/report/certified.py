"""Certificates in a report: which runs of a row are certified, what is missing of the others, and ranking the former alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unipet.errors import UnipetError
from unipet.report.numbers import GAP
from unipet.runs.record import Record

if TYPE_CHECKING:
    from unipet.report.collect import Entry

BADGE = "✓"  # of a configuration all of whose runs are certified


@dataclass(frozen=True)
class Certified:
    """Of a row's scored runs: how many are certified, and how many have a certificate at all."""

    count: int = 0
    judged: int = 0
    runs: int = 0

    @property
    def all(self) -> bool:
        """Whether every run is certified."""
        return 0 < self.runs == self.count

    @property
    def text(self) -> str:
        """`yes`, `2 of 3`, `no`; a gap where no run has a certificate."""
        if not self.judged:
            return GAP
        return "yes" if self.all else f"{self.count} of {self.runs}" if self.count else "no"


def certified(entries: Sequence[Entry]) -> Certified:
    """How it stands with these scored runs."""
    made = [entry.record.certificate for entry in entries]
    known = [certificate for certificate in made if certificate is not None]
    return Certified(sum(certificate.certified for certificate in known), len(known), len(entries))


def why_not(record: Record) -> str | None:
    """Why a finished run is not certified; None where it is."""
    if record.certificate is None:
        return "no certificate: it is from before there were any, and `unipet verify RUN` makes one"
    return None if record.certificate.certified else record.certificate.verdict


def only_certified(entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """The runs that may be ranked, those without a score among them; and for each other run, which it is and what is missing.
    Raises `UnipetError` where none is left."""
    kept, left_out = [], []
    for entry in entries:
        reason = why_not(entry.record) if entry.record.status == "ok" else None
        if reason is None:
            kept.append(entry)
        else:
            left_out.append(f"{entry.directory.name if entry.directory else entry.record.run_id}: {reason}")
    if not any(entry.record.status == "ok" for entry in kept):
        raise UnipetError(
            f"--certified: none of {len(left_out)} finished runs is certified. The first: {left_out[0] if left_out else 'none'}. "
            "Make certificates with `unipet verify RUN`, or leave --certified out."
        )
    return kept, left_out
