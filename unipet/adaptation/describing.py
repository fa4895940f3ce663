"""Describing a method on a base model without its weights: everything is built on the meta device."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.build import build
from unipet.adaptation.report import AdaptReport, report_of
from unipet.adaptation.several import standing
from unipet.adaptation.unlearnable import check_learns
from unipet.adaptation.unwrapping import unwrapped
from unipet.calculus.bank import Bank
from unipet.calculus.library import load_method
from unipet.calculus.method import Method
from unipet.calculus.site_files import Sites, sites_for
from unipet.calculus.sites import Architecture
from unipet.errors import UnipetError


def skeleton(config: Any) -> nn.Module:
    """A model of this configuration without storage for its weights: of the class that `config.architectures` names, or
    else a sequence classifier. Raises UnipetError where transformers has neither for it.
    """
    from transformers import AutoModelForSequenceClassification

    named = _class_of(config)
    with torch.device("meta"):
        if named is not None:
            model: nn.Module = named(copy.deepcopy(config))
            return model
        try:
            model = AutoModelForSequenceClassification.from_config(config)
        except ValueError as error:
            raise UnipetError(
                f"{type(config).__name__} names no model class and transformers has no sequence classifier for it. Set "
                'config.architectures = ["..."] to the class that you will adapt, or describe a model of that class.'
            ) from error
    return model


def _class_of(config: Any) -> Any:
    """The transformers class that a configuration names as its own, or None."""
    import transformers

    for name in getattr(config, "architectures", None) or ():
        named: Any = getattr(transformers, name, None)
        if isinstance(getattr(named, "config_class", None), type) and isinstance(config, named.config_class):
            return named
    return None


@dataclass(frozen=True)
class _Asked:
    """A configuration that is compared by its contents, so that several methods described on it share one skeleton."""

    kind: type
    says: str
    attention: str | None
    config: Any = field(compare=False)

    @classmethod
    def of(cls, config: Any) -> _Asked:
        return cls(type(config), config.to_json_string(use_diff=False), config._attn_implementation, config)


@functools.lru_cache(maxsize=4)
def _kept(asked: _Asked) -> nn.Module:
    """The skeleton of a configuration, kept for the next call. Callers must not change it."""
    return skeleton(asked.config)


@dataclass(frozen=True)
class Draft:
    """A method built for `model` without storage, and not attached to it."""

    model: nn.Module
    inserted: Adaptation
    report: AdaptReport

    def on(self, other: nn.Module) -> Adaptation:
        """The same insertions for `other`, a model on the meta device with the same modules: copied, not built again."""
        there = dict(other.named_modules(remove_duplicate=False))
        memo: dict[int, Any] = {id(own): there[name] for name, own in self.model.named_modules() if name in there}
        insertions, shared = copy.deepcopy(
            (self.inserted.items, cast(dict[str, Bank], dict(self.inserted.shared.items()))), memo
        )
        copied = Adaptation(self.inserted.method, insertions, shared, self.inserted.entries)
        copied.head, copied.unfrozen = self.inserted.head, dict(self.inserted.unfrozen)
        return copied


def draft(method: Method, model: nn.Module, sites: Architecture | None = None) -> Draft:
    """`method` built for `model`, which is left untouched. Raises the errors that `adapt` would raise."""
    inserted = build(model, method, sites, torch.device("meta"))
    check_learns(model, inserted, sites)
    return Draft(model, inserted, report_of(model, inserted))


def describe(method: str | Path | Mapping[str, Any] | Method, config_or_model: Any, sites: Sites = None) -> AdaptReport:
    """What `adapt` would insert: sites, shapes, parameters, and whether each insertion folds.

    `config_or_model` is a transformers configuration or a model; a model is left untouched. A configuration stands for
    a model of the class that it names, or else for a sequence classifier. `sites` is a site table of your own, as for
    `adapt`. Raises the errors that `adapt` would raise.
    """
    given = config_or_model if isinstance(config_or_model, nn.Module) else _kept(_Asked.of(config_or_model))
    with unwrapped(given) as model:
        if standing(model).carried:
            with torch.device("meta"):
                model = type(model)(copy.deepcopy(model.config))
        return draft(load_method(method), model, sites_for(model, sites)).report
