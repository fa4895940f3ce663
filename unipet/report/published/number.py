"""A number of a paper, as a table of ours shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MODEL = "model.name"
SCALES = {"0-1": 1.0, "0-100": 100.0}


@dataclass(frozen=True)
class Published:
    """One number of a paper.

    `place` names the table that it is from, as `--published` asks for it; "" for a user's CSV. `settings` are what the paper
    states of its run, by our own keys and as texts; "" where it does not tell. `notes` say what no key says.
    """

    method: str
    task: str
    metric: str
    value: float
    std: float | None
    source: str
    top: float | None = None  # of the scale that the file names
    place: str = ""
    settings: Mapping[str, str] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.method, self.task, self.metric

    @property
    def model(self) -> str:
        """The base model by the name that it has here; "" where the file does not tell."""
        return next((text for key, text in self.settings.items() if key == MODEL), "")
