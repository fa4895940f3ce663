"""How a process ended, in words."""

from __future__ import annotations

import signal

#: What a signal usually means for a training job.
SIGNALS = {
    signal.SIGKILL: "by whoever watches memory (out of memory), or by hand",
    signal.SIGSEGV: "a segmentation fault: a library broke, not Python code",
    signal.SIGABRT: "a library gave up",
    signal.SIGBUS: "a file that was mapped into memory shrank, or the shared memory is full",
    signal.SIGTERM: "by whoever manages this machine, or by hand",
}


def how_it_ended(code: int) -> str:
    """The end of a process in words, from its exit code as `subprocess` has it."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code)
    except ValueError:
        return f"its process was ended by signal {-code}"
    said = SIGNALS.get(name)
    return f"its process was ended by {name.name}" + (f" ({said})" if said else "")
