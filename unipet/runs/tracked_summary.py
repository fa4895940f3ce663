"""What a tracker shows of a run: its name, its configuration with design keys, and a summary with fixed keys.

Everything is derived from the record and the resolved configuration, so a run that is uploaded later looks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.design import design, options, trained
from unipet.runs.identity import APART
from unipet.runs.labels import SEPARATOR, difference, labelled, leaves
from unipet.runs.record import Record

#: The keys of every tracked run's summary -> their values in a record. Dashboards may rely on them; null means unknown.
SUMMARY: dict[str, Callable[[Record], Any]] = {
    "score": lambda record: record.score,
    "metric": lambda record: record.metric,
    "stopped_by": lambda record: record.stopped_by,
    "flags": lambda record: ", ".join(flag.name for flag in record.flags or ()) or None,  # "one_answer, diverged"
    "params/trainable": lambda record: record.params.trainable,
    "params/pct": lambda record: record.params.percent,
    "params/stored": lambda record: record.params.stored,
    "params/merged": lambda record: record.params.merged,
    "mem/peak_gib": lambda record: record.memory.peak_gib,
    "mem/pred_gib": lambda record: record.memory.predicted_gib,
    "time/train_s": lambda record: record.time.train_s,
    "time/total_s": lambda record: record.time.total_s,
    "time/step_ms": lambda record: record.time.step_ms,
    "time/steps": lambda record: record.time.steps,
    "time/tokens_per_s": lambda record: record.time.tokens_per_s,
}

#: The user's own configuration directory (`--config-dir`) while a command runs.
_own: ContextVar[Path | None] = ContextVar("_own", default=None)

COMPARED = "compared"  # key of the configuration: the run's name in charts that show several tasks


@contextmanager
def own_files(directory: str | None) -> Iterator[None]:
    """Inside, method files of this configuration directory (`--config-dir`) also serve as reference for run names."""
    token = _own.set(Path(directory) if directory else None)
    try:
        yield
    finally:
        _own.reset(token)


def score_key(task: str) -> str:
    """The summary's key for the score on one task, so that charts can show several tasks side by side."""
    return f"score/{task}"


def flat_summary(record: Record) -> dict[str, Any]:
    """Every key of `SUMMARY`, `metrics/NAME` for each metric, and `score/TASK` if the record names its task."""
    summary = {key: value_of(record) for key, value_of in SUMMARY.items()}
    if record.task and record.score is not None:
        summary[score_key(record.task)] = record.score
    return summary | {f"metrics/{name}": value for name, value in record.metrics.items()}


@dataclass(frozen=True)
class Mirrored:
    """A run as a tracker shows it."""

    run_id: str
    name: str  # unique, for example "NAME · ffn site=attn · sst2 · minilm · seed 0 · 1a2b3c4d"
    tags: tuple[str, ...]
    config: dict[str, Any]


def mirrored(record: Record, resolved: Mapping[str, Any]) -> Mirrored:
    """The run as a tracker shows it. `record` may be that of a run that has just started.

    The result's `config` is the resolved configuration with the method as it was trained. It also has `design` (one key
    per dimension, and `design.INSERTION.OPTION`), `label`, `fitted`, `run_id`, `tags`, and `compared` (label, task, base
    model and budget as one text).
    """
    method = trained(record, resolved)
    recorded = {"method": record.method, "task": record.task, "model": record.model, "budget": record.budget}
    names = {part: name or _name(resolved, part) for part, name in recorded.items()}
    tags = tuple(f"{part}:{name}" for part, name in names.items())
    variant = label(names["method"], method, resolved)
    identity = str(record.run_id)
    where = [names["task"], names["model"], *([names["budget"]] if names["budget"] != "none" else [])]
    content = {
        **resolved,
        "method": method,
        "design": design(method) | options(method),
        "label": variant,
        "fitted": {"requested": record.fitted.requested, "sizes": record.fitted.sizes},
        "run_id": identity,
        "tags": list(tags),
        COMPARED: " | ".join([variant, *(names[part] for part in ("task", "model", "budget"))]),
    }
    return Mirrored(identity, SEPARATOR.join([variant, *where, f"seed {record.seed}", identity[:8]]), tags, content)


def _name(resolved: Mapping[str, Any], part: str) -> str:
    """The name in the configuration. A name in the record takes precedence, because `auto` stands for many base models."""
    chosen = resolved.get(part)
    return str(chosen.get("name", "?")) if isinstance(chosen, Mapping) else "?"


def label(name: str, method: Mapping[str, Any], resolved: Mapping[str, Any]) -> str:
    """A method's name, and the options in which this run differs from the method file of that name and the defaults."""
    flat = leaves({"method": method})
    settings = {key: value for key, value in resolved.items() if key not in UNLABELLED}
    usual = {key: value for key, value in leaves(asdict(RunConfig())).items() if key.split(".")[0] in settings}
    return labelled(name, difference({**flat, **leaves(settings)}, {**_reference(name, method), **usual}))


#: Groups of a configuration that a label leaves out: they are shown elsewhere, or they are paths and tracking.
UNLABELLED = ("method", "task", "model", "budget", "seed", "trial", *APART)


def _reference(name: str, method: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the method file of that name, flat. If the method has chosen another function, composition or scaling
    than the file, or there is no such file, the defaults of the method's choice instead."""
    from unipet.calculus.library import load_method
    from unipet.calculus.method_files import method_names

    directory = _own.get()
    mine = None if directory is None else directory / "method" / f"{name}.yaml"
    try:  # a shipped file takes precedence, as in Hydra
        base = leaves({"method": load_method(name if name in method_names() or mine is None else mine).to_dict()})
    except UnipetError:
        base = {}
    flat = leaves({"method": method})
    found = dict(base)
    for key, value in leaves({"method": _defaults(method)}).items():
        choice = ".".join(key.split(".")[:4]) + ".name"  # method.insertions.NAME.DIMENSION.name
        found[key] = base.get(key, value) if key == choice or base.get(choice) == flat.get(choice) else value
    return found


def _defaults(method: Mapping[str, Any]) -> dict[str, Any]:
    """The same choices with every option at its default. Sites and the choices themselves have no default."""
    from unipet.calculus.composition import COMPOSITIONS
    from unipet.calculus.functions import FUNCTIONS
    from unipet.calculus.method import Method
    from unipet.calculus.mixture import Mixture
    from unipet.calculus.scaling import SCALINGS
    from unipet.calculus.sites import Position

    tables: dict[str, Mapping[str, Any]] = {"function": FUNCTIONS, "composition": COMPOSITIONS, "scaling": SCALINGS}
    insertions = {}
    for name, given in (method.get("insertions") or {}).items():
        chosen = {part: table.get(str((given.get(part) or {}).get("name"))) for part, table in tables.items()}
        found: dict[str, Any] = {part: asdict(kind()) for part, kind in chosen.items() if kind is not None}
        found["position"] = {key: value for key, value in asdict(Position()).items() if key != "site"}
        found["composition"] = {"name": "add", **found.get("composition", {})}
        found["scaling"] = {"name": "constant", **found.get("scaling", {})}
        if given.get("mixture"):  # its number of experts, which has no default here, says that there is one
            found["mixture"] = {key: value for key, value in asdict(Mixture()).items() if key != "experts"}
        insertions[name] = found
    plain = Method("m").to_dict()
    return {"unfreeze": plain["unfreeze"], "objective": plain["objective"], "insertions": insertions}
