"""What a search came to, for the end of a sweep: of every study the chosen trials, by which score, and what the others did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unipet.output.text_table import text_table
from unipet.sweeps.job_files import read_job_file
from unipet.sweeps.search.advancing import states
from unipet.sweeps.search.candidates import Discarded
from unipet.sweeps.search.description import Search, read_search
from unipet.sweeps.search.stage_files import FINAL, SEARCH, Stage, Verdict, read_stages, trial_path
from unipet.sweeps.search.study import Study


@dataclass(frozen=True)
class Summary:
    """A search as its directory tells it."""

    directory: Path
    search: Search
    stages: list[Stage]
    studies: list[Study]

    @property
    def chosen(self) -> list[Verdict]:
        """The trials that are run again."""
        return [verdict for stage in self.stages for verdict in stage.verdicts if verdict.kind == "chosen"]

    @property
    def undecided(self) -> list[int]:
        """Studies that are over and have no trial with a score; all, as long as nothing is chosen."""
        if self.stages[-1].role != FINAL:
            return []
        return sorted({study.number for study in self.studies} - {verdict.study for verdict in self.chosen})

    def text(self) -> str:
        """For the terminal."""
        config = self.search.config
        lines = [
            f"search={config.name}: chosen by the mean over seeds {config.seeds} on the selection split, "
            f"run again with seeds {config.final_seeds}"
        ]
        rows = []
        for study in self.studies:
            scored = sum(trial.score(1.0, config.seeds) is not None for trial in study.trials)
            steps = sum(trial.spent(lambda record: record.time.steps) for trial in study.trials)
            effort = [f"{len(study.begun)}", f"{scored}", f"{steps:,.0f}"]
            mine = [verdict for verdict in self.chosen if verdict.study == study.number]
            for verdict in mine:
                rows.append(
                    [study.label or "-", " ".join(self._choice(study, verdict)), _number(verdict.score), *effort]
                )
            if not mine:
                rows.append(
                    [
                        study.label or "-",
                        "none yet" if study.number not in self.undecided else "none: no trial has a score",
                        "-",
                        *effort,
                    ]
                )
        lines += [text_table(["study", "chosen", "selection", "trials", "finished", "steps"], rows)]
        for study, text in zip(self.studies, self.search.studies, strict=True):
            if (left := self.discarded(study.number)).total:
                reasons = "; ".join(f"{kind}: {because}" for kind, because in left.because.items())
                lines += [f"{text.label or 'candidates'} left out before they ran: {left.text} ({reasons})"]
        stopped = [verdict for stage in self.stages for verdict in stage.verdicts if verdict.kind != "chosen"]
        lines += [f"{self.studies[each.study].label} trial {each.trial}: {each.text}".lstrip() for each in stopped]
        return "\n".join([*lines, ""])

    def discarded(self, study: int) -> Discarded:
        """The candidates of a study that did not become trials."""
        every = Discarded()
        every.join(self.search.studies[study].discarded)
        for stage in self.stages:
            if str(study) in stage.discarded:
                every.join(stage.discarded[str(study)])
        return every

    def _choice(self, study: Study, verdict: Verdict) -> list[str]:
        job = read_job_file(trial_path(self.directory, study.number, verdict.trial))
        return job.differing[len(self.search.studies[study.number].differing) :]


def _number(score: float | None) -> str:
    return "-" if score is None else f"{abs(score):.4f}"


def search_summary(directory: Path) -> Summary | None:
    """The search of the sweep in `directory`; None where it has none."""
    if not (directory / SEARCH).is_file():
        return None
    search, stages = read_search(directory), read_stages(directory)
    return Summary(directory, search, stages, states(directory, search, stages))
