"""What the process of another device does in a run on several: `python -m unipet.runs.device_process`.

`other_devices.py` starts it; people need not. It reads its task from standard input, trains along and writes nothing but a line
of JSON when it is ready, and one when it fails. Where standard input ends, the run's own process wants no more of it or is gone.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import sys
import threading
import traceback
from typing import IO, Any

from unipet.compose.imports import import_modules
from unipet.errors import UnipetError
from unipet.runs.device_share import LOST_OTHERS, READY, Share, no_such_class
from unipet.training.stopping import ENDING


def main() -> int:
    """0 after training, 1 after an error, `LOST_OTHERS` where another process ended."""
    say = _speaker()
    for asked in ENDING:  # for the run's own process, which ends this one when its step is over
        signal.signal(asked, signal.SIG_IGN)
    from unipet.training.ranks import Disconnected

    try:
        share = receive(sys.stdin.buffer)
        threading.Thread(target=_end_with_input, daemon=True).start()
        take_part(share, lambda: say(READY))
    except Disconnected:
        return LOST_OTHERS
    except Exception as error:
        say(_report(error))
        return 1
    return 0


def receive(file: IO[bytes]) -> Share:
    """The task of this process. Raises `UnipetError` for a class that no module has, as those of a notebook."""
    import_modules(pickle.load(file))
    try:
        share: Share = pickle.load(file)
    except (AttributeError, ImportError) as error:
        raise no_such_class(error) from error
    return share


def take_part(share: Share, ready: Any) -> None:
    """Load the base model, adapt it, and do this device's part of the training. `ready` is called before training begins."""
    import torch

    from unipet.adaptation.api import adapt
    from unipet.runs.base_model import load_base_model
    from unipet.runs.memory import limited
    from unipet.runs.teachers import load_teachers
    from unipet.tasks import collate, readout
    from unipet.training.loop import seed_everything
    from unipet.training.ranks import joined
    from unipet.training.trainer import train

    config, count = share.config, share.config.budget.gpus
    torch.set_num_threads(share.threads)
    seed_everything(config.seed)
    model, tokenizer = load_base_model(config.model, share.labels, share.regression, config.task.kind)
    teachers = load_teachers(share.method, model)
    adapt(model, share.method, share.sites)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    ready()
    with limited(device, config.budget.peak_memory_gib), joined(share.rank, count, share.meeting) as ranks:
        train(
            *(model, share.method.objective, share.examples, collate(tokenizer), share.regression, config),
            *(share.meeting.parent / "output", io.StringIO(), lambda values, step: None),
            read=readout(config.task, tokenizer),
            micro_batch=share.micro_batch,
            checkpointing=share.checkpointing,
            begin=share.begin,
            ranks=ranks,
            teachers=teachers,
            class_weights=share.class_weights,
        )


def _speaker() -> Any:
    """A function that writes one line of JSON to standard output, where from now on nothing else can write."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(content: dict[str, Any]) -> None:
        own.write(json.dumps(content) + "\n")
        own.flush()

    return say


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(LOST_OTHERS)


def _report(error: Exception) -> dict[str, Any]:
    from unipet.runs.memory import out_of_memory
    from unipet.training.objective_trainer import Diverged

    kind = "UnipetError" if isinstance(error, UnipetError) else type(error).__name__
    kind = "Diverged" if isinstance(error, Diverged) else kind
    message = str(error)
    if (reason := out_of_memory(error)) is not None:
        kind, message = "OutOfMemoryError", reason.removeprefix("out of memory: ")
    return {"kind": kind, "message": message, "traceback": "".join(traceback.format_exception(error))}


if __name__ == "__main__":
    sys.exit(main())
