"""A run is started as one process, whatever variables a multi-process launcher has set in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from unipet.errors import UnipetError

#: The variables for the number of processes: of torchrun and accelerate, then of three kinds of mpirun.
_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
#: A launcher's variables that transformers and accelerate read: the process's rank, and settings that change the
#: computation (precision, gradient accumulation, compilation, sharding).
_NAMES = (
    *_COUNTS, "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT", "FORK_LAUNCHED",
)  # fmt: skip
_STARTS = (
    "ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "TORCHELASTIC_", "OMPI_COMM_WORLD_", "PMI_",
    "MV2_COMM_WORLD_",
)  # fmt: skip


def check_one_process() -> None:
    """Raises `UnipetError` if a launcher has started several processes, because each would do the same run."""
    for name in _COUNTS:
        count = os.environ.get(name, "")
        if count.isdecimal() and int(count) > 1:
            raise UnipetError(
                f"{name}={count} in the environment: a launcher started {count} processes, and each would do the whole run. "
                f"Start `unipet train` without the launcher (env -u {name} unipet ...). With budget.gpus={count}, one run "
                "starts a process for each of its devices. To do several runs at the same time, give each its own "
                "CUDA_VISIBLE_DEVICES."
            )


@contextmanager
def one_process() -> Iterator[None]:
    """Remove a launcher's variables from the environment inside, so that the Trainer ignores them."""
    hidden = {name: value for name, value in os.environ.items() if name in _NAMES or name.startswith(_STARTS)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
