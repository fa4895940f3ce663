"""Checks between several keys of a TaskConfig. The limits of single keys are in config.py."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.calculus.options import check_options
from unipet.config import TaskConfig
from unipet.errors import UnipetError, not_allowed, unknown
from unipet.output.files import file_name
from unipet.tasks.bleu_tokenizers import check_bleu_tokenizer
from unipet.tasks.class_weights import check_class_weights
from unipet.tasks.columns import MASK, answer_columns, columns, text_columns
from unipet.tasks.evaluation_sets import check_evaluation_sets, reported_split
from unipet.tasks.fewshot import check_shots
from unipet.tasks.kinds import KINDS, kind_of
from unipet.tasks.scoring import METRICS
from unipet.tasks.selection import LOSS, protocol, selection_metric
from unipet.tasks.stories import GENERATORS


def check_task(task: TaskConfig) -> None:
    """Raise UnipetError for the first value of `task` that is not allowed."""
    if not isinstance(task.name, str) or task.name.strip() in ("", "???"):
        raise UnipetError("task.name: missing. Choose a task (`unipet list tasks`), for example task=sst2.")
    check_options(TaskConfig, task, "task")
    kind = kind_of(task.kind)
    text = _names("task.text", task.text)
    _check_texts(task, text)
    for key in ("label", "target", "references"):
        column = getattr(task, key)
        if column in text_columns(task):
            raise UnipetError(
                f"task.{key}: {column!r} given; allowed: one column name other than those of task.text {text}."
            )
    _check_labels(task, kind.answer)
    check_class_weights(task)
    _names("task.drop", task.drop)
    _check_metrics(task)
    for key in ("train_split", "evaluation_split", "selection_split"):
        _check_split(f"task.{key}", getattr(task, key))
    check_evaluation_sets(task)
    _check_source(task, text)
    _check_selection(task)
    check_shots(task)
    _check_decoding(task)


def _names(key: str, texts: Sequence[str]) -> list[str]:
    """A list of distinct, non-empty strings."""
    names = list(texts)
    for name in names:
        if not name.strip():
            raise not_allowed(key, name, "names that are not empty")
    if len(set(names)) != len(names):
        raise UnipetError(f"{key}: {names} contains a name twice. Remove one.")
    return names


def _check_split(key: str, split: str) -> None:
    """Raise UnipetError unless the split's name is a valid file name; `subset/split` consists of two such names."""
    for part in split.split("/"):
        file_name(part, f"{key}={split!r}" if part != split else key)


def _check_texts(task: TaskConfig, text: list[str]) -> None:
    one = task.kind in (
        "seq2seq",
        "causal_generation",
        "masked_prompt",
        "causal_prompt",
        "token_classification",
        "multiple_choice",
    )
    if len(text) not in ((1,) if one else (1, 2)):
        allowed = "one column or template" if one else "one, or two for a sentence pair"
        raise UnipetError(f"task.text: {len(text)} columns given ({text}); allowed: {allowed}.")
    choices = _names("task.choices", task.choices)
    if (task.kind == "multiple_choice") != bool(choices) or len(choices) == 1:
        raise UnipetError(
            f"task.choices: {choices} given; allowed: two or more columns for task.kind=multiple_choice, [] otherwise."
        )
    for entry in [*text, *choices]:
        columns(entry)
    place = "{" + MASK + "}"
    if KINDS[task.kind].prompted and text[0].count(place) != 1:
        raise UnipetError(f"task.text: {text[0]!r} given; a prompt has {place} exactly once.")
    if task.kind == "causal_prompt" and not text[0].endswith(f" {place}"):
        raise UnipetError(
            f"task.text: {text[0]!r} given; a causal prompt ends with a space and {place}, because a decoder predicts the word "
            "after what it has read."
        )
    if task.kind == "token_classification" and "{" in text[0]:
        raise UnipetError(f"task.text: {text[0]!r} given; token_classification needs one column with a list of words.")


def _check_labels(task: TaskConfig, answer: str) -> None:
    labels = _names("task.labels", task.labels)
    if answer in ("number", "text") and labels:
        raise UnipetError(f"task.labels: {labels} given, but task.kind={task.kind} has none; use task.labels=[].")
    if task.kind == "multiple_choice" and labels and len(labels) != len(task.choices):
        raise UnipetError(f"task.labels: {labels} given; allowed: one name per choice ({len(task.choices)}).")
    if answer in ("index", "tags", "label_set") and len(labels) < 2:
        raise UnipetError(f"task.labels: {labels} given; {task.kind} needs at least two label names.")
    if task.label_columns and answer != "label_set":
        raise UnipetError(
            f"task.label_columns: true given, but an answer of task.kind={task.kind} is in one column. Use "
            "task.kind=multi_label, or task.label_columns=false."
        )
    if task.label_columns and (both := sorted(set(labels) & set(text_columns(task)))):
        raise UnipetError(f"task.label_columns: {both[0]!r} is a label and a column of task.text. Rename one.")
    words = _names("task.verbalizers", task.verbalizers)
    prompted = KINDS[task.kind].prompted
    if len(words) != (len(labels) if prompted else 0):
        raise UnipetError(
            f"task.verbalizers: {words} given; allowed: one word per label {labels} for task.kind=masked_prompt and "
            "causal_prompt, [] otherwise."
        )
    if task.demonstrations and not prompted:
        raise UnipetError(
            f"task.demonstrations: {task.demonstrations} given, but only a prompt has a context for them; task.kind is "
            f"{task.kind}. Use 0, or a task such as sst2_prompt."
        )


def _check_metrics(task: TaskConfig) -> None:
    metrics = _names("task.metrics", task.metrics)
    known = {name for name, metric in METRICS.items() if metric.fits(task.kind)}
    if not metrics:
        raise UnipetError(f"task.metrics: empty; the first is the score. Allowed: {', '.join(sorted(known))}.")
    for name in metrics:
        if name not in known:
            raise unknown(f"task.metrics (task.kind={task.kind})", name, known)
    check_bleu_tokenizer(task.bleu_tokenizer)
    if "f1" in metrics and task.kind != "token_classification" and len(task.labels) != 2:
        raise UnipetError(
            f"task.metrics: f1 is that of label index 1 among two, but task.labels has {len(task.labels)}; use f1_macro."
        )


def _check_source(task: TaskConfig, text: list[str]) -> None:
    allowed = [*text_columns(task), *answer_columns(task, True)]
    for column in task.rename.values():
        if column not in allowed:
            raise unknown("task.rename", column, allowed)
    names = [file_name(name, "task.submission") for name in task.submission]
    if len({name.casefold() for name in names}) < len(names):
        raise UnipetError(
            f"task.submission: {names}: two names differ only in upper and lower case, which is the same file on some "
            "systems. Rename one."
        )
    for name, split in task.submission.items():
        _check_split(f"task.submission.{name}", split)
    _check_range(task)
    if task.hub is not None and task.generator is not None:
        raise UnipetError(
            f"task.hub={task.hub} and task.generator={task.generator}: a task has one source. Set the other to null."
        )
    if task.generator is not None:
        _check_generator(task, text)


def _check_range(task: TaskConfig) -> None:
    given, key = task.submission_range, "task.submission_range"
    if not given:
        return
    if len(given) != 2 or given[0] >= given[1]:
        raise UnipetError(f"{key}: {given!r} given; allowed: [lowest, highest], or [] for answers as they are.")
    if task.kind != "regression":
        raise UnipetError(f"{key}: {given!r} given, but the answers of task.kind={task.kind} are not numbers; use [].")


def _check_generator(task: TaskConfig, text: list[str]) -> None:
    if task.generator not in GENERATORS:
        raise unknown("task.generator", task.generator, GENERATORS)
    if not task.name.startswith("synthetic_"):
        raise UnipetError(
            f"task.name: {task.name!r} has task.generator={task.generator}; begin the name with 'synthetic_'."
        )
    made = GENERATORS[task.generator]
    given = {"kind": task.kind, "labels": list(task.labels), "text": len(text)}
    for key, allowed in {"kind": made.kind, "labels": list(made.labels), "text": made.texts}.items():
        if given[key] != allowed:
            what = "columns " if key == "text" else ""
            raise UnipetError(
                f"task.{key}: {given[key]} {what}given, but task.generator={task.generator} makes {allowed} {what}".strip()
                + "."
            )


def _check_selection(task: TaskConfig) -> None:
    metric = selection_metric(task)
    metrics = [name for name, row in METRICS.items() if row.fits(task.kind)] + [LOSS] * KINDS[task.kind].generates
    if metric not in metrics:
        raise unknown(f"task.selection_metric (task.kind={task.kind})", metric, metrics)
    if task.patience is not None and protocol(task) == "none":
        why = "task.selection=none" if task.selection == "none" else "few-shot training (task.shots) holds none out"
        raise UnipetError(
            f"task.patience: {task.patience} given, but no examples are there to score a checkpoint on: {why}. Use "
            f"{'task.selection=shots' if task.shots is not None else 'task.selection=train_holdout'}, or task.patience=null."
        )
    if task.selection != "validation":
        return
    if task.selection_split == reported_split(task):
        raise UnipetError(
            f"task.selection=validation: task.selection_split and task.evaluation_split are both "
            f"{reported_split(task)!r}: the checkpoint would be selected by the reported score. Use "
            "task.selection=train_holdout, or report another split (task.evaluation_split=test)."
        )
    if task.generator is not None and task.data_dir is None:
        raise UnipetError(
            "task.selection=validation: a synthetic task has no such split. Use task.selection=train_holdout."
        )


def _check_decoding(task: TaskConfig) -> None:
    decoding, key = task.decoding, "task.decoding"
    longest = decoding.max_new_tokens or task.max_target
    if decoding.min_new_tokens > longest:
        raise UnipetError(f"{key}.min_new_tokens: {decoding.min_new_tokens} given, more than the {longest} at most.")
    if task.kind == "causal_generation" and not task.separator:
        raise UnipetError(f"task.separator: {task.separator!r} given; a text between source and target is needed.")
    if len(_names("task.languages", task.languages)) not in (0, 2):
        raise UnipetError(f"task.languages: {list(task.languages)} given; allowed: [source, target], or [].")
