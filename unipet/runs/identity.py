"""A run's identity: its settings, and the contents of the files and functions that determine its result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unipet.config import RunConfig
from unipet.runs.record import Identity
from unipet.runs.record_files import canonical_json

if TYPE_CHECKING:
    from unipet.calculus.method import Method
    from unipet.calculus.sites import Architecture

#: The version of what a run computes. Raise it with every change of the package that can change a result: a result of
#: older numerics is then never reused for a new run.
NUMERICS = 4

#: Keys of a configuration that say how a run is watched and where it is done, and change no result.
APART = ("tracking", "checkpoint", "launcher", "search", "runs_dir", "rerun")

# Settings that change no result: paths, tracking, and names of presets.
_NOT_IDENTITY: dict[str, tuple[str, ...]] = {
    "": (*APART, "imports"),
    # Where the examples come from and which of them are used: the fingerprint of the data covers this.
    "task": (
        *("data_dir", "hub", "subset", "revision", "rename", "generator", "generator_seed"),
        *("generated_train", "generated_evaluation", "max_train", "max_evaluation"),
    ),
    # Where the base model comes from: the checksums of its files cover this.
    # How its weights are shared among processes: the losses of each process stay the same to the bit.
    "model": ("path", "revision", "package", "sha256", "sites", "shard"),
    # Which part of a search asked for the run. A rung that goes on from another one ends with the bytes of a straight run.
    "trial": ("after", "role", "search", "study", "number", "trials", "seeds", "budget", "beside", "discarded"),
    "optim": ("name",),
    "budget": ("name",),
}


def content_of(config: RunConfig, method: Method, sites: Architecture | None, data: str) -> Identity:
    """Read the contents that `config` names. `method` is the method before fitting to a budget, `sites` the user's own site
    table, `data` the fingerprint of the examples.

    Raises UnipetError for a base model, and for a teacher, that cannot be read.
    """
    from unipet.calculus.functions import function_sources
    from unipet.calculus.sites import table_data
    from unipet.runs.model_files import contents
    from unipet.runs.teachers import teacher_contents
    from unipet.tasks import KINDS, cache_directory

    cache = cache_directory(config.runs_dir)
    return Identity(
        data=data,
        base_model=contents(config.model, None if cache is None else cache / "checksums"),
        sites=None if sites is None else table_data(sites),
        functions=function_sources(method),
        numerics=NUMERICS,
        teachers=teacher_contents(method, KINDS[config.task.kind].pretrained_head),
    )


def run_id(resolved: Mapping[str, Any], content: Identity) -> str:
    """A hash, in 16 hex characters, of everything that determines a run's result and of nothing else.

    `resolved` is the whole configuration as plain values, with every option of the method.
    """
    settings = {
        key: {name: each for name, each in value.items() if name not in _NOT_IDENTITY.get(key, ())}
        if isinstance(value, Mapping)
        else value
        for key, value in resolved.items()
        if key not in _NOT_IDENTITY[""]
    }
    insertions = settings["method"]["insertions"]
    rules = {name: dict(rule) for name, rule in settings["method"]["objective"].items()}
    for rule in rules.values():
        rule.pop("run", None)  # a path: the contents cover what it leads to
    settings["method"]["objective"] = rules
    settings["method"]["insertions"] = [
        [name, _without_paths(insertions[name])] for name in insertions
    ]  # their order matters
    return hashlib.sha256(canonical_json([settings, content.to_dict()]).encode()).hexdigest()[:16]


def _without_paths(insertion: Mapping[str, Any]) -> dict[str, Any]:
    """An insertion without the places of saved adapters that it takes experts from: `frozen` says what they hold."""
    mixture = insertion.get("mixture")
    if not mixture:
        return dict(insertion)
    own = {key: value for key, value in mixture.items() if key != "adapters"}
    if isinstance(experts := own["experts"], Mapping):  # functions, whose order decides which tensors belong to which
        own["experts"] = [[name, experts[name]] for name in experts]
    elif own["router"] == "soft" and own["reducer"] == "mean_of_outputs":
        own["trains"] = "outputs"  # before, such a mixture was trained as the mean of weights
    return {**insertion, "mixture": own}
