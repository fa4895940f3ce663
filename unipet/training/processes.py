"""A run is started as one process, whatever a launcher of many processes has left in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from unipet.errors import UnipetError

#: Where launchers say how many processes there are: torchrun and accelerate, then three kinds of mpirun.
_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
#: What transformers and accelerate read of a launcher: who this process is, and settings that change what is computed
#: (precision, gradient accumulation, compilation, sharding).
_NAMES = (
    *_COUNTS, "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT", "FORK_LAUNCHED",
)  # fmt: skip
_STARTS = (
    "ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "TORCHELASTIC_", "OMPI_COMM_WORLD_", "PMI_",
    "MV2_COMM_WORLD_",
)  # fmt: skip


def check_one_process() -> None:
    """Raises `UnipetError` where a launcher started several processes: each would do the same run over again."""
    for name in _COUNTS:
        count = os.environ.get(name, "")
        if count.isdecimal() and int(count) > 1:
            raise UnipetError(
                f"{name}={count} in the environment: a launcher started {count} processes, and each would do the whole run. "
                f"Start `unipet train` by itself (env -u {name} unipet ...): with budget.gpus={count} one run starts a process "
                "for each of its devices. For several runs at a time set CUDA_VISIBLE_DEVICES to the device of each."
            )


@contextmanager
def one_process() -> Iterator[None]:
    """Inside, the environment names no launcher: the Trainer trains as it does where none was used."""
    hidden = {name: value for name, value in os.environ.items() if name in _NAMES or name.startswith(_STARTS)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
