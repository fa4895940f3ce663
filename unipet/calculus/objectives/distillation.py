"""A teacher's answers as targets beside the task's own.

Shapes: N answers, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.objectives.agreement import kl
from unipet.calculus.objectives.regulariser import Answers, OfAnswers
from unipet.calculus.options import option


@dataclass(frozen=True)
class Distillation(OfAnswers):
    """T² · KL(teacher ‖ model), both softmaxes at temperature T (Hinton et al. 2015), on the first view.

    The teacher does not train and has no dropout. It is the run in the directory `run` (or a saved adapter), on the same base
    model; null means the base model itself, for tasks whose output layer is pretrained. For regression, and with `mse`, the
    mean squared error of the logits takes the place of the divergence; with several labels, see `kl`.
    """

    run: str | None = option(None, filled=True, words="the directory of a run or of a saved adapter")
    temperature: float = option(1.0, low=1e-3, high=1e3)
    divergence: str = option("kl", choices=("kl", "mse"))

    def term(self, seen: Answers) -> Tensor:
        assert seen.teacher is not None
        student_NC, teacher_NC = seen.views[0], seen.teacher.detach()
        if seen.regression or self.divergence == "mse":
            return F.mse_loss(student_NC, teacher_NC)
        loss: Tensor = self.temperature**2 * kl(
            teacher_NC / self.temperature, student_NC / self.temperature, seen.several
        )
        return loss
