"""What training minimises: the task's loss, and regularisers that a method may add. One family of regularisers per file."""

from unipet.calculus.objectives.agreement import Consistency, RDrop
from unipet.calculus.objectives.balance import Balance
from unipet.calculus.objectives.distillation import Distillation
from unipet.calculus.objectives.objective import REGULARISERS, TASK, Objective, parse_objective, task_loss
from unipet.calculus.objectives.of_weights import L2ToInit, Orthogonality
from unipet.calculus.objectives.regulariser import (
    SCHEDULES,
    Answers,
    OfAnswers,
    OfRouting,
    OfWeights,
    Regulariser,
    Weights,
)

__all__ = [
    "REGULARISERS",
    "SCHEDULES",
    "TASK",
    "Answers",
    "Balance",
    "Consistency",
    "Distillation",
    "L2ToInit",
    "Objective",
    "OfAnswers",
    "OfRouting",
    "OfWeights",
    "Orthogonality",
    "RDrop",
    "Regulariser",
    "Weights",
    "parse_objective",
    "task_loss",
]
