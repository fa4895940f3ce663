"""Making the certificate of a finished run again, from its files alone: a fresh base model, the saved adapter, its examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.adaptation.certificate import (
    NOT_RUN,
    PASSED,
    Certificate,
    Check,
    compared,
    failed,
    passed,
)  # fmt: skip
from unipet.config import RunConfig, plain_values
from unipet.errors import UnipetError
from unipet.runs import record_files as records
from unipet.runs.certify import (
    EXAMPLES,
    check_moved,
    examples_hash,
    files_again,
    probe_of,
    protocol_of,
    put_in_order,
    try_checks,
)
from unipet.runs.comparable import comparable
from unipet.runs.prediction_lines import read_lines
from unipet.runs.record import Record

if TYPE_CHECKING:
    from unipet.tasks import Encoded, EncodedRows, TaskData
    from unipet.training.invariance import Probe


@dataclass(frozen=True)
class Again:
    """A finished run, loaded again."""

    directory: Path
    record: Record
    config: RunConfig
    data: TaskData
    encoded: Encoded
    model: Any
    tokenizer: Any

    @property
    def rows(self) -> list[Any]:
        """The examples that were scored."""
        rows: list[Any] = getattr(self.data, self.config.trial.scored_on)
        return rows

    @property
    def split(self) -> EncodedRows:
        """The same, tokenised."""
        split: EncodedRows = getattr(self.encoded, self.config.trial.scored_on)
        return split

    @property
    def adapter(self) -> Path:
        """The directory of the saved adapter."""
        return self.directory / records.ADAPTER


def verify(directory: Path, record: Record, deep: bool = False) -> Certificate:
    """The certificate of the finished run in `directory`, made again in this process, and written into its record.

    With `deep`, the whole evaluation is repeated, and merging is compared in each number format. Raises `UnipetError` for a run
    whose data or base model cannot be read; whatever else is wrong is a failed check.
    """
    import torch

    from unipet.runs.base_model import load_base_model_of
    from unipet.tasks import cache_directory, encode, load_task

    config = records.run_config(directory, record)
    data = load_task(config.task)
    model, tokenizer = load_base_model_of(config, record)
    model.to("cuda:0" if torch.cuda.is_available() else "cpu")
    encoded = encode(data, tokenizer, config.task, cache_directory(config.runs_dir))
    again = Again(directory, record, config, data, encoded, model, tokenizer)
    made = _certificate(again, deep)
    record.certificate = made
    records.write_record(directory / records.RESULT, record)
    return made


def _certificate(again: Again, deep: bool) -> Certificate:
    from unipet.adaptation.adapted import adaptation
    from unipet.adaptation.checkpoint import load
    from unipet.adaptation.matched_sites import check_sites, matched_sites
    from unipet.adaptation.proofs import check_finite
    from unipet.training.invariance import check_cache, check_invariance

    earlier, model = again.record.certificate or Certificate(), again.model
    now = {EXAMPLES: examples_hash(again.encoded), **protocol_of(comparable(plain_values(again.config), again.record))}
    made = Certificate("verify --deep" if deep else "verify", protocol=earlier.protocol or now)
    made.checks["encoding"] = _encoding(again, now)
    try:
        load(model, again.adapter)
    except UnipetError as error:
        made.checks["round_trip"] = failed(f"the saved adapter cannot be loaded: {error}")
        return put_in_order(made, "the adapter cannot be loaded")
    made.sites = matched_sites(adaptation(model))
    made.checks["sites"] = check_sites(model, adaptation(model))
    if earlier.sites and earlier.sites != made.sites:
        made.checks["sites"] = failed("the sites are others than when the run was trained")
    untrained = [name for row in again.record.insertions for name in row.untrained or []]
    made.checks["moved"] = earlier.checks.get("moved") or check_moved(model, untrained)
    # `load` has compared the fingerprint of this fresh base model with that of the trained one.
    made.checks["frozen"] = earlier.checks.get("frozen") or passed(
        "the base model is the one that was loaded for training"
    )
    probe = probe_of(again.config, again.split, again.tokenizer)
    together: list[Any] = []

    def invariance() -> dict[str, Check]:
        together.extend(probe.outputs(model))
        return check_invariance(model, probe, together)

    try_checks(made, ("finite",), lambda: {"finite": check_finite(model)})
    try_checks(made, ("padding", "batch_size", "row_order"), invariance)
    cache = lambda: {"generation_cache": check_cache(model, probe, again.tokenizer, again.config.task)}  # noqa: E731
    try_checks(made, ("generation_cache",), cache)
    lines = read_lines(again.directory / records.PREDICTIONS)
    try_checks(made, ("score", "round_trip"), lambda: _recorded(again, probe, lines, deep))
    recorded = made.checks["round_trip"]
    try_checks(made, ("merge", "round_trip"), lambda: files_again(model, again.adapter, probe, together))
    if made.checks["round_trip"].status == PASSED:
        made.checks["round_trip"] = recorded
    if deep:
        try_checks(made, ("merge",), lambda: {"merge": _merged_everywhere(again, made.checks["merge"], probe)})
    return put_in_order(made, "unipet verify --deep")


def _encoding(again: Again, now: dict[str, str]) -> Check:
    """Whether what the model reads now is what it read in the run. `now` has a hash of each part."""
    earlier, record = again.record.certificate, again.record
    differing = []
    if again.data.fingerprint != record.data.fingerprint:
        differing.append(f"the data ({again.data.fingerprint}, and {record.data.fingerprint} then)")
    if earlier is not None:
        differing += [name for name, mark in earlier.protocol.items() if now.get(name) != mark]
    return failed(f"other than in the run: {', '.join(differing)}") if differing else passed()


def _recorded(again: Again, probe: Probe, lines: Sequence[dict[str, Any]], deep: bool) -> dict[str, Check]:
    """`round_trip` and `score`: what the model says here against what the run, in another process, has recorded."""
    from unipet.training.evaluation import score_split

    if len(lines) != len(again.rows):
        text = f"the record has predictions for {len(lines):,} examples, there are {len(again.rows):,}"
        return {"round_trip": failed(text), "score": failed(text)}
    if not deep:
        chosen = list(probe.chosen)
        found = _answers(again, probe)
        return {
            "round_trip": _same(again, found, [lines[index] for index in chosen]),
            "score": Check(NOT_RUN, "unipet verify --deep"),
        }
    scores, rows = score_split(again.config, again.model, again.rows, again.split, again.tokenizer)
    apart = abs(scores.score - (again.record.score or 0.0))
    text = f"{scores.metric} is {scores.score:.6f} now, and was recorded as {again.record.score}"
    key = "logits" if rows and "logits" in rows[0] else "prediction"
    return {
        "round_trip": _same(again, [row[key] for row in rows], lines),
        "score": passed(f"{len(rows):,} examples") if apart < 5e-7 else failed(text),
    }


def _answers(again: Again, probe: Probe) -> list[Any]:
    """The logits of the examples that are looked at closely, or their predictions where none are recorded."""
    from unipet.tasks import kind_of
    from unipet.training.evaluation import predict_tags
    from unipet.training.generation import generate_texts
    from unipet.training.invariance import Some

    config, kind = again.config, kind_of(again.config.task.kind)
    some: Any = Some(probe.examples, probe.chosen)
    size, precision = config.optim.eval_batch_size, config.precision
    if kind.generates:
        return list(generate_texts(again.model, some, again.tokenizer, probe.collate, config.task, size, precision))
    if kind.answer == "tags":
        rows = [again.rows[index] for index in probe.chosen]
        return list(predict_tags(again.model, rows, some, probe.collate, size, precision))
    return [rows[0].tolist() for rows in probe.outputs(again.model)]


def _same(again: Again, found: Sequence[Any], lines: Sequence[dict[str, Any]]) -> Check:
    """Whether these answers are the recorded ones."""
    import torch

    from unipet.adaptation.proofs import ROUNDING, difference

    if lines and "logits" in lines[0]:
        here, there = ([torch.tensor(row) for row in rows] for rows in (found, [line["logits"] for line in lines]))
        exact = again.config.precision == "fp32" and again.config.model.dtype == "fp32"
        scale = max(1.0, *(float(row.abs().max()) for row in there))
        limit = scale * ROUNDING[torch.float32 if exact else torch.bfloat16]
        return compared(difference(here, there), limit, "a fresh process gives other logits than were recorded")
    wrong = [line["id"] for line, answer in zip(lines, found, strict=True) if line["prediction"] != answer]
    return (
        failed(f"a fresh process answers {len(wrong)} of {len(lines)} examples otherwise, {wrong[0]} first")
        if wrong
        else passed()
    )


def _merged_everywhere(again: Again, check: Check, probe: Probe) -> Check:
    """The same check, with the differences in every number format in which the model can be computed here."""
    import torch

    from unipet.adaptation.checkpoint import load
    from unipet.adaptation.merging import merge
    from unipet.adaptation.proofs import difference, name_of_dtype
    from unipet.runs.base_model import load_base_model_of

    if check.largest is None or again.config.model.quantization is not None:
        return check
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if name_of_dtype(dtype) in check.dtypes:
            continue
        model, _ = load_base_model_of(again.config, again.record)
        model.to(again.model.device)
        load(model, again.adapter)
        model.to(dtype)
        try:
            before = probe.outputs(model)
            merge(model, partial=True)
            check.dtypes[name_of_dtype(dtype)] = difference(before, probe.outputs(model))
        except (RuntimeError, UnipetError) as error:  # an operator that this device has not in this format
            check.text = (
                f"{check.text}; {name_of_dtype(dtype)} cannot be computed here: {str(error)[:80]}".removeprefix("; ")
            )
    return check
