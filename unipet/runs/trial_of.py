"""What a run was in a search, as its record says it: a trial, or a final run, and the effort by which it was chosen."""

from __future__ import annotations

from dataclasses import dataclass

from unipet.output.json_object import JsonObject, added_later


@dataclass
class TrialOf(JsonObject):
    """What the run was in a search, and the effort that its configuration was chosen by."""

    scored_on: str = "evaluation"  # or "selection": the score is that of the selection split, and is not reported
    role: str = ""  # "trial", or "final": it was chosen among trials, and run again with seeds of its own
    until: float = 1.0  # the share of the training that was done
    after: float = added_later(0.0)  # the share at which an earlier rung had ended
    search: str = added_later("")  # the strategy
    study: str = added_later("")
    number: int | None = added_later(None)
    trials: int | None = added_later(None)  # of each study; so are the seeds of each trial and the budget
    seeds: int | None = added_later(None)
    budget: str | None = added_later(None)
    beside: str = added_later("")  # random search at the effort of this strategy, to be compared with it
    discarded: int | None = added_later(
        None
    )  # candidates of its design space that could not run, or were trials already

    @property
    def effort(self) -> str:
        """What was spent on choosing the configuration, in words; empty for a run that no search chose."""
        if self.role != "final":
            return ""
        said = (
            f"{self.beside or self.search}: {self.trials} trials of {self.seeds} seed{'s' if self.seeds != 1 else ''}"
        )
        return said + (f", at most {self.budget}" if self.budget else "")
