"""Pieces of work in threads of their own, of which one runs at a time: each until it pauses, and each with its own random
streams."""

from __future__ import annotations

import contextvars
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class Streams:
    """A set of this process' random streams (torch's on CPU and device, numpy's, Python's), in use inside `in_use` alone."""

    def __init__(self, seed: int | None = None) -> None:
        """They begin where the process' own now are, or are a function of `seed`."""
        self._now = _current()
        if seed is not None:
            before = self._now
            torch.manual_seed(seed)
            self._now = (*_current()[:2], *before[2:])
            _put(before)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, random numbers come from these streams."""
        before = _current()
        _put(self._now)
        try:
            yield
        finally:
            self._now = _current()
            _put(before)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """The same for torch's streams alone, which takes less time."""
        before = _torch()
        _put_torch(self._now[:2])
        try:
            yield
        finally:
            self._now = (*_torch(), *self._now[2:])
            _put_torch(before)

    def mark(self) -> Any:
        """Where they are."""
        return self._now

    def back_to(self, mark: Any) -> None:
        """Go on from where they were."""
        self._now = mark


class Turn:
    """One piece of work. `go_on` runs it until it calls `pause`, or ends."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.over = False
        self.error: BaseException | None = None  # what ended it
        self.streams = Streams()
        self._work, self._context = work, contextvars.copy_context()
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def go_on(self) -> None:
        """Let the work go on, and wait until it pauses or ends."""
        with self.streams.in_use():
            if self._thread.ident is None:
                self._thread.start()
            self._go.release()
            self._back.acquire()
        if self.over:
            self._thread.join()

    def pause(self) -> None:
        """Called by the work itself: wait until it may go on."""
        self._back.release()
        self._go.acquire()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._context.run(self._work)
        except BaseException as error:  # whoever let it go on looks at it
            self.error = error
        finally:
            self.over = True
            self._back.release()


def _torch() -> tuple[Any, Any]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _put_torch(state: tuple[Any, ...]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


def _current() -> tuple[Any, ...]:
    return (*_torch(), np.random.get_state(), random.getstate())


def _put(state: tuple[Any, ...]) -> None:
    _put_torch(state)
    np.random.set_state(state[2])
    random.setstate(state[3])
