"""Evaluating a model's mixtures in another way than their method says, for comparisons: another reducer, or given weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.calculus.insertion import Insertion
from unipet.calculus.mixture import REDUCERS, Mixture


def mixtures(model: nn.Module) -> list[tuple[Insertion, Mixture]]:
    """The insertions of a model that have a mixture, each with it."""
    return [(item, item.parts.mixture) for item in adaptation(model).items if item.parts.mixture is not None]


def experts_of(model: nn.Module) -> int:
    """How many experts the largest of a model's mixtures has; 0 without any."""
    return max((mixture.experts for _, mixture in mixtures(model)), default=0)


@contextmanager
def reduced_by(model: nn.Module, reducer: str) -> Iterator[None]:
    """Inside, evaluation reduces every mixture with `reducer`; experts of different functions have no mean of weights, and take
    that of their outputs."""
    with _changed(model, reducer, None):
        yield


@contextmanager
def weighing(model: nn.Module, experts: Sequence[float]) -> Iterator[None]:
    """Inside, evaluation takes the mean of each slot's copies with these weights, one for each expert; of their outputs, where
    the experts are different functions. A mixture of fewer experts than others begins anew with its first one."""
    with _changed(model, "mean_of_weights", torch.tensor(experts)):
        yield


@contextmanager
def _changed(model: nn.Module, reducer: str, weights_M: Tensor | None) -> Iterator[None]:
    before = [(item, item.parts, item.bank.mixture) for item, _ in mixtures(model)]
    try:
        for item, mixture in mixtures(model):
            apart = item.bank.differ and REDUCERS[reducer].of_copies
            other = replace(mixture, reducer="mean_of_outputs" if apart else reducer)
            item.parts, item.bank.mixture = replace(item.parts, mixture=other), other
            item.bank.given = None if weights_M is None else _folded(weights_M, mixture.experts)
        yield
    finally:
        for item, parts, own in before:
            item.parts, item.bank.mixture, item.bank.given = parts, own, None


def _folded(weights_M: Tensor, experts: int) -> Tensor:
    """The weights of `experts` experts: those of the numbers that have the same remainder, added up and normalised."""
    found = torch.zeros(experts).index_add(0, torch.arange(len(weights_M)) % experts, weights_M.float())
    return found / found.sum()
