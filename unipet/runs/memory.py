"""Peak memory of a piece of work, measured where the system allows it; otherwise reported as unknown."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Measures from its construction until `read()`.

    On CUDA: the allocator's peak of reserved bytes on `device` minus the bytes reserved at the start ("cuda_reserved").
    On Linux without CUDA: the peak resident set of the whole process, including the interpreter and its libraries
    ("process_rss"). On other systems, or where the kernel does not allow the peak to be reset, all values are null.
    """

    def __init__(self, device: str) -> None:
        """`device`: "cpu", or a CUDA device such as "cuda:0"."""
        gc.collect()  # objects of an earlier run in this process may still be held by reference cycles
        self._device = device
        self._start = self._allocated = 0
        self._process_peak = False
        if device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()  # the allocator's cache may hold memory of an earlier run
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_reserved(device)
            self._allocated = torch.cuda.memory_allocated(device)
        else:
            _return_freed_memory()
            self._process_peak = _reset_process_peak()

    def read(self) -> dict[str, float | str | None]:
        """`{"peak_gib", "measured_by", "allocated_gib", "context_gib"}`; a value that was not measured is null.

        The last two exist only on CUDA. `allocated_gib` is the peak of allocated bytes, which `predicted_gib` of a record
        predicts; the rest of the peak is fragmentation. `context_gib` is the memory of the driver's context, outside the
        allocator.
        """
        found: dict[str, float | str | None] = dict.fromkeys(
            ("peak_gib", "measured_by", "allocated_gib", "context_gib")
        )
        if self._device.startswith("cuda"):
            import torch

            peak = torch.cuda.max_memory_reserved(self._device) - self._start
            allocated = torch.cuda.max_memory_allocated(self._device) - self._allocated
            free, total = torch.cuda.mem_get_info(self._device)
            context = total - free - torch.cuda.memory_reserved(self._device)
            found.update(peak_gib=peak / GIB, measured_by="cuda_reserved")
            found.update(allocated_gib=allocated / GIB, context_gib=context / GIB)
        elif self._process_peak:
            found.update(peak_gib=_process_peak_bytes() / GIB, measured_by="process_rss")
        return found


@contextmanager
def limited(device: str, gib: float | None) -> Iterator[None]:
    """On CUDA, limit this process's allocator to `gib` of `device` (None: no limit); beyond it, torch raises
    OutOfMemoryError. On other devices nothing is enforced."""
    if gib is None or not device.startswith("cuda"):
        yield
        return
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def out_of_memory(error: BaseException) -> str | None:
    """A one-line description if `error` means that memory ran out; None for any other error."""
    import torch

    on_cpu = isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
    if not (isinstance(error, torch.OutOfMemoryError) or on_cpu):
        return None
    return "out of memory: " + (str(error).splitlines() or ["no details"])[0]


def _return_freed_memory() -> None:
    """Return the memory that earlier runs freed to the system, if the C library can. It would count for this run."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _reset_process_peak() -> bool:
    """Reset the kernel's peak resident set of this process. False if that is not possible."""
    try:
        _CLEAR.write_text("5", encoding="ascii")  # 5 = reset VmHWM, see proc(5)
    except OSError:
        return False
    return _STATUS.is_file()


def _process_peak_bytes() -> int:
    match = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)
    if match is None:
        raise RuntimeError(f"{_STATUS} has no VmHWM line.")
    return int(match.group(1)) * 1024
