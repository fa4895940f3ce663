"""Metrics of generated texts against one or more references, from the libraries that papers cite.

Every function takes predictions (n texts) and references (n lists of texts). It returns a value for the corpus, a value per
example (always oriented so that higher is better), and a note that makes the value reproducible.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unipet.tasks.bleu_tokenizers import DEFAULT, sentence_bleu
from unipet.tasks.text_tokens import WORDS_NOTE, spaced, stemmed, without_spaces, words

Texts = Sequence[str]
References = Sequence[Sequence[str]]


@dataclass(frozen=True)
class TextScore:
    """One metric of a corpus: its value, the values of all examples, and a note on the computation."""

    corpus: float
    per_example: list[float]
    note: str


def exact_match(predictions: Texts, references: References) -> TextScore:
    """The share of predictions that equal a reference, from 0 to 1. Spaces at both ends are ignored, and different Unicode
    forms of a character are equal."""
    hits = [
        float(_composed(prediction) in {_composed(text) for text in texts})
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return TextScore(sum(hits) / len(hits), hits, "equal to a reference, stripped; case counts")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


def bleu(predictions: Texts, references: References, tokenizer: str = DEFAULT) -> TextScore:
    """Corpus BLEU on detokenised text (Post 2018), 0 to 100, with one of sacrebleu's tokenizers; per example with
    effective order."""
    from sacrebleu.metrics import BLEU

    found = _sacre(BLEU(tokenize=tokenizer), sentence_bleu(tokenizer), predictions, references)
    if tokenizer != DEFAULT or not any(without_spaces(text) for texts in references for text in texts):
        return found
    advice = (
        "; 13a cuts at spaces, which these texts' script lacks: task.bleu_tokenizer=zh, ja-mecab or char counts words"
    )
    return TextScore(found.corpus, found.per_example, found.note + advice)


def chrf(predictions: Texts, references: References) -> TextScore:
    """Corpus chrF2, 0 to 100."""
    from sacrebleu.metrics import CHRF

    return _sacre(CHRF(), CHRF(), predictions, references)


def ter(predictions: Texts, references: References) -> TextScore:
    """Translation edit rate in percent of the references' length; lower is better, and the value per example is its
    negative. Words are separated by spaces; in scripts without spaces every character is a word."""
    from sacrebleu.metrics import TER

    cut = [spaced(text) for text in predictions], [[spaced(text) for text in texts] for texts in references]
    found = _sacre(TER(), TER(), *cut)
    note = f"{found.note}; one word per character in scripts without spaces"
    return TextScore(found.corpus, [-value for value in found.per_example], note)


def _sacre(corpus: object, sentence: object, predictions: Texts, references: References) -> TextScore:
    whole = corpus.corpus_score(list(predictions), _streams(references))  # type: ignore[attr-defined]
    each = [
        sentence.sentence_score(prediction, list(texts)).score  # type: ignore[attr-defined]
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return TextScore(float(whole.score), each, f"sacrebleu {corpus.get_signature()}")  # type: ignore[attr-defined]


def _streams(references: References) -> list[list[str | None]]:
    """References in sacrebleu's form: stream k has the k-th reference of every example, or None if there are fewer."""
    count = max(len(texts) for texts in references)
    return [[texts[k] if k < len(texts) else None for texts in references] for k in range(count)]


def rouge(predictions: Texts, references: References, kind: str) -> TextScore:
    """ROUGE F-measure x 100 with Porter stemming: the best reference per example, averaged over examples.

    `kind` is rouge1, rouge2, rougeL or rougeLsum, which compares sentence by sentence. Words are those of text_tokens.py,
    so that the values for ASCII texts equal those of rouge-score.
    """
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer([kind], tokenizer=_RougeWords())
    each = [
        100 * scorer.score_multi([sentences(text) for text in texts], sentences(prediction))[kind].fmeasure
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    note = f"rouge-score, best reference; {WORDS_NOTE}"
    note += "; sentences split after .!? and their like (no punkt model)" if kind == "rougeLsum" else ""
    return TextScore(sum(each) / len(each), each, note)


class _RougeWords:
    """The words of every script, with the interface of rouge-score's tokenizers."""

    def tokenize(self, text: str) -> list[str]:
        return [stemmed(word) for word in words(text)]


def sentences(text: str) -> str:
    """One sentence per line, for rougeLsum. Texts are split after . ! ? with a following space, and after the full stops
    of other scripts."""
    return re.sub(r"(?<=[.!?])\s+|(?<=[。！？｡।॥؟۔።။។])\s*", "\n", text.strip())


def _rouge(kind: str) -> Callable[[Texts, References], TextScore]:
    def metric(predictions: Texts, references: References) -> TextScore:
        return rouge(predictions, references, kind)

    return metric


TEXT_METRICS: dict[str, Callable[[Texts, References], TextScore]] = {
    "exact_match": exact_match,
    "bleu": bleu,
    "chrf": chrf,
    "ter": ter,
    "rouge1": _rouge("rouge1"),
    "rouge2": _rouge("rouge2"),
    "rougeL": _rouge("rougeL"),
    "rougeLsum": _rouge("rougeLsum"),
}
