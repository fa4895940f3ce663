"""A run's identity: its settings, and the contents of everything else that decides its result."""

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

#: Of what a run computes. Raise it with every change of the package that can change a run's result: results of the
#: numerics before are then never taken for those of now.
NUMERICS = 2

# Settings that say where something lies, how a run is watched or what a choice is called, not what is computed.
_NOT_IDENTITY: dict[str, tuple[str, ...]] = {
    "": ("tracking", "checkpoint", "launcher", "runs_dir", "rerun", "imports"),
    # Where the examples come from and which of them are taken: the fingerprint of the data covers what was read.
    "task": (
        *("data_dir", "hub", "subset", "revision", "rename", "generator", "generator_seed"),
        *("generated_train", "generated_evaluation", "max_train", "max_evaluation"),
    ),
    # Where the base model comes from: its files' checksums are there.
    "model": ("path", "revision", "package", "sha256", "sites"),
    "optim": ("name",),
    "budget": ("name",),
}


def content_of(config: RunConfig, method: Method, sites: Architecture | None, data: str) -> Identity:
    """The contents that `config` names, read once; `method` and `sites` are as they were asked for, `data` is the fingerprint
    of the examples.

    Raises UnipetError for a base model that cannot be read.
    """
    from unipet.calculus.functions import function_sources
    from unipet.calculus.sites import table_data
    from unipet.runs.model_files import contents
    from unipet.tasks import cache_directory

    cache = cache_directory(config.runs_dir)
    kept = None if cache is None else cache / "checksums"
    return Identity(
        data=data,
        base_model=contents(config.model, kept),
        sites=None if sites is None else table_data(sites),
        functions=function_sources(method),
        numerics=NUMERICS,
    )


def run_id(resolved: Mapping[str, Any], content: Identity) -> str:
    """16 hex characters over everything that decides a run's result, and nothing else.

    `resolved` is the whole configuration as plain values, the method spelled out in full.
    """
    said = {
        key: {name: each for name, each in value.items() if name not in _NOT_IDENTITY.get(key, ())}
        if isinstance(value, Mapping)
        else value
        for key, value in resolved.items()
        if key not in _NOT_IDENTITY[""]
    }
    insertions = said["method"]["insertions"]
    said["method"]["insertions"] = [[name, insertions[name]] for name in insertions]  # their order matters
    return hashlib.sha256(canonical_json([said, content.to_dict()]).encode()).hexdigest()[:16]
