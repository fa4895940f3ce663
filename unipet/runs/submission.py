"""Predictions of a finished run on hidden test sets (splits without labels), as files for a submission server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.output.files import file_name
from unipet.runs import record_files as records


def submit(directory: Path, out: Path) -> list[Path]:
    """Write `<out>/<name>.tsv` for every entry of the run's `task.submission`, and return the paths.

    Raises `UnipetError` for a task without hidden splits, a run that has not finished, and a split that cannot be loaded.
    """
    import torch

    from unipet.adaptation.checkpoint import load
    from unipet.runs.base_model import load_base_model_of
    from unipet.tasks import cache_directory, check_task, collate, encode, load_hidden, readout
    from unipet.training.evaluation import predict

    record = records.read_record(directory / records.RESULT)
    config = records.run_config(directory, record)
    task = config.task
    if record.status != "ok":
        raise UnipetError(f"{directory}: the run's status is {record.status!r}, only finished runs can predict.")
    if not task.submission:
        raise UnipetError(
            f"{directory}: task {task.name} has no hidden test set. Name its files and splits in task.submission, for "
            "example +task.submission.MINE=test."
        )
    check_task(task)  # including its file names, because the configuration may come from somebody else
    hidden = {name: load_hidden(task, split) for name, split in task.submission.items()}  # before loading the model
    model, tokenizer = load_base_model_of(config, record)
    load(model, directory / records.ADAPTER)
    model.to("cuda:0" if torch.cuda.is_available() else "cpu")
    batch, read = collate(tokenizer), readout(task, tokenizer)
    written = []
    out.mkdir(parents=True, exist_ok=True)
    for name, data in hidden.items():
        rows = encode(data, tokenizer, task, cache_directory(config.runs_dir)).evaluation
        logits, _ = predict(model, rows, batch, config.optim.eval_batch_size, config.precision, read)
        if data.label_order and not task.submission_names:
            logits = logits[:, data.label_order]  # indices in the file follow the order of the hidden split
        lines = [f"{i}\t{_answer(task, row)}\n" for i, row in enumerate(logits)]
        path = out / f"{file_name(name, 'task.submission')}.tsv"
        records.write_text_atomic(path, "index\tprediction\n" + "".join(lines))
        written.append(path)
    return written


def _answer(task: TaskConfig, logits: Any) -> str:
    """The answer on one line: a number, clipped to `task.submission_range` if given, or a label's index or name."""
    if task.kind == "regression":
        return str(logits[0].clip(*task.submission_range) if task.submission_range else logits[0])
    best = int(logits.argmax())
    return task.labels[best] if task.submission_names else str(best)
