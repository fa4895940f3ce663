"""The table of the kinds of tasks: the base model that a kind needs, and the form of its answers."""

from __future__ import annotations

from dataclasses import dataclass

from unipet.config import TaskConfig
from unipet.errors import unknown


@dataclass(frozen=True)
class Kind:
    """`auto`: the transformers class that loads the base model. `answer`: the form of an example's answer (`index` of a
    label, `number`, `tags` of words, `label_set`: any number of labels, `text`). `base`: the suitable base models, in words
    for error messages."""

    auto: str
    answer: str
    base: str
    supervised: str  # what the loss is over, in words
    pretrained_head: bool = False  # the output layer belongs to the base model
    prompted: bool = False  # the answer is the word that the model predicts at `{mask}` in a template

    @property
    def generates(self) -> bool:
        """Whether evaluation generates text instead of choosing among answers."""
        return self.answer == "text"


KINDS: dict[str, Kind] = {
    "classification": Kind(
        "AutoModelForSequenceClassification", "index", "one with a sequence classifier", "the label"
    ),
    "multi_label": Kind(
        "AutoModelForSequenceClassification", "label_set", "one with a sequence classifier", "a yes or no to each label"
    ),
    "regression": Kind("AutoModelForSequenceClassification", "number", "one with a sequence classifier", "the number"),
    "multiple_choice": Kind("AutoModelForMultipleChoice", "index", "an encoder such as BERT or RoBERTa", "the choice"),
    "token_classification": Kind(
        "AutoModelForTokenClassification", "tags", "one with a token classifier", "the first token of each word"
    ),
    "masked_prompt": Kind(
        "AutoModelForMaskedLM",
        "index",
        "an encoder with a masked language model's head",
        "the word at the mask",
        True,
        True,
    ),
    "causal_prompt": Kind(
        "AutoModelForCausalLM", "index", "a decoder such as GPT-2 or Llama", "the word after the prompt", True, True
    ),
    "seq2seq": Kind(
        "AutoModelForSeq2SeqLM", "text", "an encoder-decoder such as BART or T5", "the target and its end", True
    ),
    "causal_generation": Kind(
        "AutoModelForCausalLM", "text", "a decoder such as GPT-2 or Llama", "the target and its end", True
    ),
}


def kind_of(name: str) -> Kind:
    """The kind with this name. Raises UnipetError, with the nearest name, for an unknown one."""
    if name not in KINDS:
        raise unknown("task.kind", name, KINDS)
    return KINDS[name]


def input_length(task: TaskConfig) -> int:
    """The most positions that an example may occupy in the stack that reads it."""
    kind = kind_of(task.kind)
    if not kind.generates:
        return task.max_length
    return task.max_source + (task.max_target if kind.auto == "AutoModelForCausalLM" else 0)
