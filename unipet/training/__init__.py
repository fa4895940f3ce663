"""The loss, the step, the trainer, evaluation, generation, and budgets."""
