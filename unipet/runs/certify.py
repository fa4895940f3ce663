"""The certificate of a run, made at its end from the trained model, the saved adapter and a few examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.adaptation.certificate import CHECKS, FAILED, NOT_RUN, PASSED, Certificate, Check, failed, hash_of, passed
from unipet.config import RunConfig
from unipet.output.stopwatch import phase
from unipet.runs.record import Comparable, Record
from unipet.runs.record_files import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unipet.tasks import Encoded, EncodedRows
    from unipet.training.invariance import Probe

EXAMPLES = "encoded examples"
#: Parts of `unipet/runs/comparable.py` that say what a score is of.
PARTS = ("label words", "template", "loss mask", "truncation", "splits", "selection")
FIRST = 32  # examples of each split


def frozen_marks(model: nn.Module) -> dict[str, int]:
    """A number for everything that a training must leave as it is, in the base model and in what the method adds; it differs
    where a value does. The tensors themselves are not kept: they may be cut into parts meanwhile. Weights of experts that data
    decide once training is over are none of these."""
    from unipet.adaptation.api import adaptation, frozen
    from unipet.training.movement import marks

    banks = [item.bank for item in adaptation(model).items]
    decided = {id(bank.home.parameter(name)) for bank in banks for name in bank.settled.values()}
    base = {
        name: tensor
        for name, tensor in model.named_parameters()
        if not tensor.requires_grad and id(tensor) not in decided
    }
    return marks({**base, **frozen(model)})


def _moved(model: nn.Module, before: Mapping[str, int]) -> list[str]:
    """What of that is no longer what it was, whether it trains by now or not."""
    from unipet.adaptation.api import frozen
    from unipet.training.movement import marks

    now = {**dict(model.named_parameters()), **frozen(model)}
    after = marks({name: now[name] for name in before if name in now})
    return [name for name, mark in before.items() if after.get(name) != mark]


def _in_parts(model: nn.Module) -> bool:
    """Whether no process has all of the base model's weights."""
    return any(hasattr(tensor, "to_local") for tensor in model.parameters())


@phase("certificate")
def certify(
    model: Any,
    config: RunConfig,
    encoded: Encoded,
    split: EncodedRows,
    tokenizer: Any,
    directory: Path,
    untrained: Sequence[str],
    before: Mapping[str, int],
) -> Certificate:
    """Everything that can be checked within the run. Whatever goes wrong here becomes a failed check, never a failed run. The
    model is taken apart and loaded again from the adapter in the run's `directory`; `untrained` are the tensors that training
    did not change, `before` is what was frozen then.
    """
    from unipet.adaptation.adapted import adaptation
    from unipet.adaptation.matched_sites import check_sites, matched_sites
    from unipet.adaptation.proofs import check_finite
    from unipet.training.invariance import check_cache, check_invariance
    from unipet.training.random_streams import RandomStreams

    streams = RandomStreams().state()
    made = Certificate("run", matched_sites(adaptation(model)), protocol={EXAMPLES: examples_hash(encoded)})
    made.checks["sites"] = check_sites(model, adaptation(model))
    made.checks["moved"] = check_moved(model, untrained)
    if _in_parts(model):
        unknown = Check(NOT_RUN, "no process has all of the base model's weights; `unipet verify` loads them")
        made.checks |= dict.fromkeys(("frozen", "merge", "round_trip"), unknown)
    else:
        changed = _moved(model, before)
        made.checks["frozen"] = failed(f"training changed {_named(changed)}, which is frozen") if changed else passed()
    probe = probe_of(config, split, tokenizer)
    together: list[Tensor] = []

    def invariance() -> dict[str, Check]:
        together.extend(probe.outputs(model))
        return check_invariance(model, probe, together)

    try_checks(made, ("finite",), lambda: {"finite": check_finite(model)})
    try_checks(made, ("padding", "batch_size", "row_order"), invariance)
    try_checks(
        made, ("generation_cache",), lambda: {"generation_cache": check_cache(model, probe, tokenizer, config.task)}
    )
    if "round_trip" not in made.checks:
        try_checks(made, ("merge", "round_trip"), lambda: files_again(model, directory / ADAPTER, probe, together))
    RandomStreams().resume(streams)  # what is loaded was drawn first
    return put_in_order(made, "unipet verify")


def files_again(model: Any, adapter: Path, probe: Probe, together: Sequence[Tensor]) -> dict[str, Check]:
    """`merge` and `round_trip`, in which not only the outputs but every saved value must be what it was."""
    from unipet.adaptation.api import stored
    from unipet.adaptation.proofs import check_files
    from unipet.training.movement import marks

    before = marks(stored(model))
    checks = check_files(model, adapter, lambda: probe.outputs(model), together)
    trip = checks["round_trip"]
    if trip.largest is not None or trip.status == PASSED:  # it was loaded
        after = marks(stored(model))
        if wrong := [name for name, mark in before.items() if after.get(name) != mark]:
            trip.status, trip.text = FAILED, f"{_named(wrong)} came back with other values than were saved"
    return checks


def put_in_order(made: Certificate, reason: str) -> Certificate:
    """The certificate with all checks; those that were not made say `reason`."""
    made.checks = {name: made.checks.get(name) or Check(NOT_RUN, reason) for name in CHECKS}
    return made


def protocol_of(parts: Mapping[str, Comparable]) -> dict[str, str]:
    """The hashes of what a score is of, out of what a record says that it can be compared with."""
    return {name: parts[name].hash for name in PARTS if name in parts}


def examples_hash(encoded: Encoded) -> str:
    """A hash of the first examples of each split as the model reads them: ids, and which of them have a label."""
    splits = [rows for rows in (encoded.train, encoded.evaluation, encoded.selection) if rows is not None]
    first = [rows[index] for rows in splits for index in range(min(FIRST, len(rows)))]
    return hash_of(f"{one['input_ids']} {one['labels']}" for one in first)


def put_beside(adapter: Path, record: Record) -> None:
    """Complete the certificate of a record, and write it and which run it was into the description of the saved adapter."""
    from unipet.adaptation.checkpoint import annotate
    from unipet.adaptation.description import Training

    training = Training(
        run_id=record.run_id,
        task=record.task,
        data=record.data.fingerprint,
        seed=record.seed,
        steps=record.time.steps,
        stopped_by=record.stopped_by,
        metric=record.metric,
        score=record.score,
        unipet=record.versions.unipet,
    )
    assert record.certificate is not None
    record.certificate.protocol |= protocol_of(record.comparable)
    annotate(adapter, training, record.certificate)


def probe_of(config: RunConfig, split: EncodedRows, tokenizer: Any) -> Probe:
    """The examples of a split that are looked at closely."""
    from unipet.tasks import collate, readout
    from unipet.training.invariance import Probe

    return Probe.of(split, collate(tokenizer), readout(config.task, tokenizer), tokenizer.pad_token_id)


def check_moved(model: nn.Module, untrained: Sequence[str]) -> Check:
    """Whether everything trained that the method says trains, the head included."""
    from unipet.adaptation.api import parameters

    owned = parameters(model, head=True)
    if not owned:
        return passed("the method trains nothing")
    held = [name for name, tensor in owned.items() if not tensor.requires_grad]
    if held:
        return failed(f"frozen, although the method trains it: {_named(held)}")
    if untrained:
        return failed(f"training did not change {_named(untrained)}")
    return passed(f"all {len(owned)} trainable tensors")


def _named(names: Sequence[str]) -> str:
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


def try_checks(made: Certificate, names: tuple[str, ...], check: Callable[[], dict[str, Check]]) -> None:
    """Make some checks. One that cannot be made has failed, and says why."""
    try:
        made.checks |= check()
    except Exception as error:  # whatever happens to the checks, the run is finished and its score stands
        text = f"the check broke off: {type(error).__name__}: {str(error)[:300]}"
        made.checks |= dict.fromkeys(names, Check(FAILED, text))
