"""Describing a method on a base model without its weights: everything is built on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipet.adaptation import CONTAINER
from unipet.library import load_method
from unipet.method import Method
from unipet.plan import build
from unipet.report_table import AdaptReport, report_of


def skeleton(config: Any) -> nn.Module:
    """A sequence-classification model of this configuration without storage for its weights."""
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return model


def describe(method: str | Path | Mapping[str, Any] | Method, config_or_model: Any) -> AdaptReport:
    """What `adapt` would insert: sites, shapes, parameters, and whether each insertion folds.

    `config_or_model` is a transformers configuration or a model; a model is left untouched. Raises the errors that
    `adapt` would raise.
    """
    model = config_or_model if isinstance(config_or_model, nn.Module) else skeleton(config_or_model)
    if hasattr(model, CONTAINER):
        model = skeleton(model.config)
    with torch.device("meta"):
        return report_of(model, build(model, load_method(method)))
