"""Peak memory of a stretch of work, measured where the machine lets us, and never guessed."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

GIB = 2**30
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Measures from its making until `read()`.

    On CUDA: the allocator's peak of reserved bytes on `device` minus what was reserved at the start ("cuda_reserved").
    On Linux without CUDA: the peak resident set of the whole process, the interpreter and its libraries included
    ("process_rss"). Elsewhere, or where the kernel forbids resetting the peak: nothing, said as nulls.
    """

    def __init__(self, device: str) -> None:
        """`device`: "cpu", or a CUDA device such as "cuda:0"."""
        gc.collect()  # an earlier run in this process may lie about in reference cycles
        self._device = device
        self._start = 0
        self._process_peak = False
        if device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()  # what an earlier run left in the allocator's cache is not this run's
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_reserved(device)
        else:
            _return_freed_memory()
            self._process_peak = _reset_process_peak()

    def read(self) -> dict[str, float | str | None]:
        """`{"peak_gib", "predicted_gib", "measured_by"}`; nothing predicts memory yet, so `predicted_gib` is null."""
        peak: float | None = None
        measured_by: str | None = None
        if self._device.startswith("cuda"):
            import torch

            peak = (torch.cuda.max_memory_reserved(self._device) - self._start) / GIB
            measured_by = "cuda_reserved"
        elif self._process_peak:
            peak = _process_peak_bytes() / GIB
            measured_by = "process_rss"
        return {"peak_gib": peak, "predicted_gib": None, "measured_by": measured_by}


def _return_freed_memory() -> None:
    """Give what earlier runs freed back to the system, where the C library can: it would count as this run's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _reset_process_peak() -> bool:
    """Make the kernel forget the process' peak resident set; False where it cannot."""
    try:
        _CLEAR.write_text("5")  # 5 = reset VmHWM, see proc(5)
    except OSError:
        return False
    return _STATUS.is_file()


def _process_peak_bytes() -> int:
    match = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), flags=re.MULTILINE)
    if match is None:
        raise RuntimeError(f"{_STATUS} has no VmHWM line.")
    return int(match.group(1)) * 1024
