"""A run's record: the content of its `result.json`, with a type for every key."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from unipet.adaptation.certificate import Certificate
from unipet.config import ModelConfig, RunConfig
from unipet.output.json_object import JsonObject, added_later
from unipet.runs.budget_label import budget_label, set_limits
from unipet.runs.expert_report import ExpertReport
from unipet.runs.record_costs import Compiled as Compiled
from unipet.runs.record_costs import Memory as Memory
from unipet.runs.record_costs import Time as Time
from unipet.runs.record_data import Data as Data
from unipet.runs.record_data import EvaluationSet as EvaluationSet
from unipet.runs.record_data import Scoring as Scoring
from unipet.runs.record_data import Selection as Selection
from unipet.runs.trial_of import TrialOf as TrialOf
from unipet.runs.versions import Versions, git_commit, now, versions


@dataclass
class Identity(JsonObject):
    """The contents that a run computes with, and `run_id` covers. Paths do not matter: equal contents are the same."""

    data: str | None = None  # fingerprint of labels and rows
    base_model: dict[str, str] = field(default_factory=dict)  # checksum of every file that loading may read
    sites: dict[str, Any] | None = None  # a site table of the user's own
    functions: dict[str, str] = field(default_factory=dict)  # checksum of the source of every registered function used
    numerics: int | None = None  # of the package, see unipet/runs/identity.py
    teachers: dict[str, str] = added_later(factory=dict)  # checksum of every saved run that an objective learns from


@dataclass
class Params(JsonObject):
    """Counts of parameters, as the report of `adapt` has them; `percent` is trainable over base."""

    base: int | None = None
    trainable: int | None = None
    head: int | None = None
    stored: int | None = None
    merged: int | None = None
    formula: int | None = None
    percent: float | None = None


@dataclass
class Fitted(JsonObject):
    """What was solved for the budget: sizes for its parameters, and a micro-batch for its memory."""

    parameter_limit: int | None = None
    requested: dict[str, int] = field(default_factory=dict)  # method.insertions.NAME.function.OPTION -> size asked for
    sizes: dict[str, int] = field(default_factory=dict)  # the same keys -> size that the budget leaves
    larger_trains: int | None = None
    micro_batch: int | None = added_later(None)
    accumulation: int | None = added_later(None)
    checkpointing: bool | None = added_later(None)
    predicted_parts_gib: dict[str, float] | None = added_later(None)


@dataclass
class Flag(JsonObject):
    """What makes the score worth less than it looks: one name of unipet/runs/flags.py, and what was seen."""

    name: str = ""
    text: str = ""


@dataclass
class Frozen(JsonObject):
    """Outputs of frozen layers that training kept (`cache_frozen`)."""

    layers: dict[str, int] = field(default_factory=dict)  # stack -> how many of its first layers
    gib: float | None = None
    why_not: str | None = None


@dataclass
class InsertionRow(JsonObject):
    """One insertion on the base model, as the report of `adapt` has it."""

    name: str | None = None
    function: str | None = None
    sites: list[str] = field(default_factory=list)
    form: str | None = None
    composition: str | None = None
    scaling: str | None = None
    modules: list[str] = field(default_factory=list)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    parameters: int | None = None
    percent: float | None = None
    foldable: bool | None = None
    why_not: str | None = None
    identity_at_start: bool | None = None
    experts: dict[str, dict[str, int]] = added_later(factory=dict)  # of the base model: routed, shared -> what is there
    untrained: list[str] | None = added_later(None)  # tensors that training did not change

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """As any object; a text is a row's name alone, which is all that a digest of records may keep of it."""
        return cls(name=content) if isinstance(content, str) else super().from_dict(content)


@dataclass
class Comparable(JsonObject):
    """One part of what runs must have in common to be ranked: its settings, and a hash of them (comparable.py)."""

    hash: str = ""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class ErrorOf(JsonObject):
    """The error that ended a failed run."""

    type: str = ""
    message: str = ""


@dataclass
class Record(JsonObject):
    """One run. Every key is there from the start; what is not known, or not yet, is null or empty."""

    status: str = "running"  # then ok | failed | exceeded | skipped | interrupted
    phase: str | None = None  # of a run that has not ended well: what it was doing
    run_id: str | None = None  # None: it failed before it had one
    identity: Identity = field(default_factory=Identity)
    imported: str | None = added_later(None)  # the project whose result it is; None: a run of this package
    method: str | None = None
    task: str | None = None
    model: str | None = None
    budget: str | None = None
    comparable: dict[str, Comparable] = added_later(
        factory=dict
    )  # part of the protocol -> what must agree in a ranking
    limits: dict[str, Any] = field(default_factory=dict)  # what the budget says apart from the defaults
    seed: int | None = None
    trial: TrialOf = added_later(factory=TrialOf)
    score: float | None = None
    metric: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    evaluation_sets: dict[str, EvaluationSet] = added_later(factory=dict)  # by name; {}: there is one set alone
    params: Params = field(default_factory=Params)
    composition: dict[str, Any] | None = None  # the method as it is trained, with the sizes that the budget solved
    fitted: Fitted = field(default_factory=Fitted)
    flags: list[Flag] | None = added_later(None)  # None: from before there were flags
    certificate: Certificate | None = added_later(None)  # None: not finished, or from before there were certificates
    time: Time = field(default_factory=Time)
    memory: Memory = field(default_factory=Memory)
    precision: str | None = added_later(None)  # of forward passes; for precision=auto, what the device has
    compiled: Compiled | None = added_later(None)  # None: not compiled
    frozen: Frozen = added_later(factory=Frozen)
    insertions: list[InsertionRow] = field(default_factory=list)
    mixture: ExpertReport | None = added_later(None)  # None: no insertion has one
    stopped_by: str | None = None
    packed: int | None = added_later(
        None
    )  # how many runs trained in one process with it: their time and memory are common
    alone: str | None = added_later(None)  # why a run of a packed sweep trained alone
    resumed: list[int] = field(default_factory=list)  # the steps after which it went on, one for each interruption
    reason: str | None = None  # why a run was skipped, exceeded its budget or was interrupted
    error: ErrorOf | None = None
    files: dict[str, str] = field(default_factory=dict)  # of a finished run: path -> checksum of all that belongs to it
    folder: str | None = None  # what relative paths of the configuration begin at, as seen from the run's directory
    versions: Versions = field(default_factory=Versions)
    git_commit: str | None = None
    data: Data = field(default_factory=Data)
    started: str | None = None
    finished: str | None = None

    @property
    def own_train_s(self) -> float | None:
        """Seconds of training that may be compared with another run's: not those of a pack, which are common."""
        return None if self.packed else self.time.train_s

    @property
    def own_peak_gib(self) -> float | None:
        """Peak memory that may be compared with another run's; as above."""
        return None if self.packed else self.memory.peak_gib


def model_label(model: ModelConfig) -> str:
    """What reports call the base model: its configuration's name, or for `model=auto` the hub or directory name."""
    if model.name != "auto":
        return model.name
    return Path(model.path).resolve().name if Path(model.path).is_dir() else model.path


def blank_record(config: RunConfig, method: str, run_id: str) -> Record:
    """The record of a run that begins now."""
    return Record(
        run_id=run_id,
        method=method,
        task=config.task.name,
        model=model_label(config.model),
        budget=budget_label(asdict(config.budget)),
        limits=set_limits(asdict(config.budget)),
        seed=config.seed,
        precision=config.precision,
        trial=TrialOf.from_dict(asdict(config.trial)),
        flags=[],
        versions=versions(),
        git_commit=git_commit(),
        started=now(),
    )
