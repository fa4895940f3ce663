"""The name of a sweep: what is swept, and a hash of what its jobs compute, so that the same command finds it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from unipet.calculus.yaml_reader import Plain
from unipet.output.files import as_file_name
from unipet.runs.identity import APART
from unipet.sweeps.directory import Job


def sweep_name(jobs: Sequence[Job], swept: Sequence[str], own: str = "") -> str:
    """`<what is swept>-<12 hex characters over what the jobs compute>`; `own` tells it from every other sweep."""
    digest = hashlib.sha256(own.encode())
    for job in jobs:
        said = {key: value for key, value in job.values.items() if key not in APART}
        digest.update(repr((_plain(said), job.mistake)).encode())
    keys = "+".join(key.rpartition(".")[2] for key in swept) or "one"
    return f"{as_file_name(keys)[:60]}-{digest.hexdigest()[:12]}"


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return sorted((str(key), _plain(value)) for key, value in tree.items())
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    return (type(tree) is Plain, str(tree)) if isinstance(tree, str) else tree
