"""Checks that a method's reducers and a task belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipet.config import TaskConfig
from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.calculus.method import Method


def check_reducers(method: Method, task: TaskConfig) -> None:
    """Raise `UnipetError` for a reducer that cannot evaluate this task, or not without what the task lacks."""
    from unipet.tasks import kind_of

    for spec in method.insertions:
        key = f"method.insertions.{spec.name}.mixture.reducer"
        reducer = None if spec.mixture is None else spec.mixture.reducer
        if reducer == "greedy_soup" and task.selection == "none":
            raise UnipetError(
                f"{key}: 'greedy_soup' chooses experts by the score of the selection split, and task.selection is 'none'. Set "
                "task.selection=train_holdout; the split that is reported never chooses."
            )
        if reducer == "ensemble_logits" and kind_of(task.kind).generates:
            raise UnipetError(
                f"{key}: 'ensemble_logits' averages logits of whole passes, and task.kind={task.kind} generates texts with "
                "a cache. Use mean_of_weights or mean_of_outputs."
            )
