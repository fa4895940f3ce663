"""The random streams of this process (torch's on CPU and device, numpy's, Python's): their states, taken and put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from unipet.training.resume_point import State


class RandomStreams:
    """Where every random stream stands. Mixtures have streams of their own, which `adaptation/routing.py` keeps."""

    def state(self) -> State:
        """Every stream's state now."""
        version, numbers, gauss = random.getstate()
        numpy: dict[str, Any] = np.random.get_state(legacy=False)
        tensors = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        values = {
            "python": [version, list(numbers), gauss],
            "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        }
        return State(values, tensors)

    def resume(self, state: State) -> None:
        """Every stream goes on from `state`."""
        version, numbers, gauss = state.values["python"]
        random.setstate((version, tuple(numbers), gauss))
        numpy = state.values["numpy"]
        key = np.array(numpy["state"]["key"], dtype=np.uint32)
        np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
        torch.set_rng_state(state.tensors["cpu"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(state.tensors["cuda"])
