"""Generating the rows of synthetic tasks from a seed, without a network. Their tasks are always labelled as synthetic."""

from __future__ import annotations

from random import Random

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.rows import Row
from unipet.tasks.stories import GENERATORS, Generator, Scene, Told

HELD_OUT = 5  # one scene in five occurs only in the evaluation split
PATIENCE = 200  # consecutive attempts without a new row, after which a generator counts as exhausted


def generate(task: TaskConfig) -> tuple[list[Row], list[Row]]:
    """The training and evaluation rows of `task.generator`. The same seed and sizes give the same rows on any machine.

    No scene (combination of content words) of the evaluation split occurs in training. Raises UnipetError if more rows are
    requested than exist.
    """
    generator = GENERATORS[str(task.generator)]
    scenes = generator.scenes()
    Random(f"{task.generator} scenes {task.generator_seed}").shuffle(scenes)
    held_out = len(scenes) // HELD_OUT
    return (
        _tell(task, generator, scenes[held_out:], "train", task.generated_train),
        _tell(task, generator, scenes[:held_out], "evaluation", task.generated_evaluation),
    )


def _tell(task: TaskConfig, generator: Generator, scenes: list[Scene], split: str, count: int) -> list[Row]:
    """`count` distinct rows, shuffled. Twins are added together, so that an even count is exactly balanced."""
    rng = Random(f"{task.generator} {split} {task.generator_seed}")
    told: dict[tuple[str, ...], Told] = {}
    waited = 0
    while len(told) < count:
        twins = generator.tell(rng.choice(scenes), rng)
        if any(texts in told for texts, _ in twins):
            waited += 1
            if waited == PATIENCE:
                raise UnipetError(
                    f"task.generated_{split}: {count} rows asked for, but task.generator={task.generator} has only "
                    f"about {len(told)} different ones. Ask for fewer."
                )
            continue
        waited = 0
        told.update((telling[0], telling) for telling in twins)
    chosen = list(told.values())[:count]
    rng.shuffle(chosen)
    return [{"id": f"{split}-{i}", "text": list(texts), "label": label} for i, (texts, label) in enumerate(chosen)]
