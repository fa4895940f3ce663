"""Rows that the project makes itself, from a seed, with no network: always labelled synthetic."""

from __future__ import annotations

from random import Random

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.rows import Row
from unipet.tasks.stories import GENERATORS, Generator, Scene, Told

HELD_OUT = 5  # one scene in five is told in the evaluation split only
PATIENCE = 200  # tellings in a row that bring nothing new before a generator counts as exhausted


def generate(task: TaskConfig) -> tuple[list[Row], list[Row]]:
    """The training and evaluation rows of `task.generator`; the same for the same seed and sizes, on any machine.

    No scene (combination of content words) of the evaluation split occurs in training. Raises UnipetError when more
    rows are asked for than there are.
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
    """`count` distinct rows: twins together, so that an even count is balanced exactly, then shuffled."""
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
