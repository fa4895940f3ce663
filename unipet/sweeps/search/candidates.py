"""From draws to trials: those of a design space that cannot run, or that are a trial already, are counted and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from unipet.errors import UnipetError
from unipet.output.json_object import JsonObject
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.judging import EQUAL, Refused

TRIED = 60  # candidates for each trial that is wanted, before a search gives up
#: A choice -> a text that equal choices have in common. Raises `Refused` where it cannot run.
Key = Callable[[Choice], str]


def every_choice(choice: Choice) -> str:
    """The key of a space in which different choices are different trials, and each can run."""
    return repr(choice)


@dataclass
class Discarded(JsonObject):
    """How many candidates of a study did not become trials, by kind, and of each kind one with its reason."""

    counts: dict[str, int] = field(default_factory=dict)
    because: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        """Count one more."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.because.setdefault(kind, text)

    def join(self, other: Discarded) -> None:
        """Count all of another one as well."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            self.because.setdefault(kind, other.because[kind])

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def text(self) -> str:
        """`12 budget, 3 equal`; empty where there are none."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))


@dataclass
class Candidates:
    """The trials of a study so far, by key, and what was left out."""

    key: Key = every_choice
    keys: dict[str, Choice] = field(default_factory=dict)
    discarded: Discarded = field(default_factory=Discarded)

    def takes(self, choice: Choice) -> bool:
        """Whether a choice becomes a further trial; where it does not, it is counted."""
        try:
            key = self.key(choice)
        except Refused as refused:
            self.discarded.add(refused.kind, refused.text)
            return False
        if key in self.keys:
            self.discarded.add(EQUAL, f"{' '.join(map(str, choice))} is {' '.join(map(str, self.keys[key]))}")
            return False
        self.keys[key] = choice
        return True

    def first(self, choices: Iterable[Choice], wanted: int | None) -> list[Choice]:
        """The first `wanted` that become trials, or all. Raises `UnipetError` where none does, or too few of many."""
        taken: list[Choice] = []
        tried = 0
        for choice in choices:
            if wanted is not None and (len(taken) == wanted or tried == wanted * TRIED):
                break
            tried += 1
            if self.takes(choice):
                taken.append(choice)
        if not taken or (wanted is not None and len(taken) < wanted):
            reasons = "; ".join(f"{kind}, such as: {text}" for kind, text in self.discarded.because.items())
            asked = "" if wanted is None else f"search.trials: {wanted} given, but "
            raise UnipetError(
                f"{asked}{len(taken)} of {tried} different combinations of the space are different methods that can run "
                f"({self.discarded.text} left out). {reasons}"
            )
        return taken
