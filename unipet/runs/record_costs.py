"""What a run cost, as its record has it: time, memory, compiling."""

from __future__ import annotations

from dataclasses import dataclass

from unipet.output.json_object import JsonObject, added_later


@dataclass
class Time(JsonObject):
    """Seconds of the whole run, of training and of every phase, and how fast training was."""

    total_s: float | None = None
    train_s: float | None = None
    step_ms: float | None = None
    steps: int | None = None
    tokens_per_s: float | None = None
    phases_s: dict[str, float] | None = None
    device_hours: float | None = added_later(None)  # of training, on all devices together


@dataclass
class Memory(JsonObject):
    """Peak memory, measured and predicted; see unipet/runs/memory.py."""

    peak_gib: float | None = None
    predicted_gib: float | None = None
    measured_by: str | None = None
    allocated_gib: float | None = None
    context_gib: float | None = None


@dataclass
class Compiled(JsonObject):
    """What `compile=true` compiled: graphs, the breaks between them, and the seconds it took, which count as training."""

    graphs: int | None = None
    graph_breaks: int | None = None
    seconds: float | None = None
