"""METEOR, NIST and CIDEr for data-to-text without Java: own implementations, with their deviations stated.

The published scripts (E2E, WebNLG) need Java. Values computed here are close to theirs, but not equal: use them to compare
methods with each other. The record has a note about this for every score. All three count the tokens of text_tokens.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from unipet.tasks.text_metrics import References, Texts, TextScore
from unipet.tasks.text_tokens import WORDS_NOTE, stem, tokens

Gram = tuple[str, ...]
_TOKENS_NOTE = f"{WORDS_NOTE}, and punctuation marks"


def grams(words: Sequence[str], size: int) -> Counter[Gram]:
    """How often each n-gram of `size` words occurs."""
    return Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))


# --- METEOR ---------------------------------------------------------------------------------------------------------

_ALPHA, _BETA, _GAMMA = 0.9, 3.0, 0.5


def meteor(predictions: Texts, references: References) -> TextScore:
    """METEOR (Banerjee and Lavie 2005; alpha .9, beta 3, gamma .5) x 100 with its exact and stem stages only.

    Deviations: words are paired greedily from the end (as nltk does), not with the fewest chunks; no WordNet synonyms,
    no paraphrases, no function-word weights (the jar of METEOR 1.5 has them and other parameters). Of several references
    the best counts; the corpus value is the mean.
    """
    each = [
        100 * max(_meteor(tokens(prediction), tokens(text)) for text in texts)
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    note = "own METEOR 2005, exact+stem stages (no WordNet), greedy pairing, best reference, mean; not METEOR 1.5"
    note += f"; {_TOKENS_NOTE}"
    return TextScore(sum(each) / len(each), each, note)


def _meteor(guess: list[str], truth: list[str]) -> float:
    pairs = _align(guess, truth)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(guess), len(pairs) / len(truth)
    mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
    chunks = 1 + sum(b != (a[0] + 1, a[1] + 1) for a, b in pairwise(pairs))
    return mean * (1 - _GAMMA * (chunks / len(pairs)) ** _BETA)


def _align(guess: list[str], truth: list[str]) -> list[tuple[int, int]]:
    """Matched positions, sorted: equal words first, then equal stems; each stage pairs from the end, as nltk does."""
    left, right = dict(enumerate(guess)), dict(enumerate(truth))
    pairs: list[tuple[int, int]] = []
    for form in (str, stem):
        by_form: dict[str, list[int]] = {}
        for j in sorted(right):
            by_form.setdefault(form(right[j]), []).append(j)
        for i in sorted(left, reverse=True):
            places = by_form.get(form(left[i]))
            if places:
                j = places.pop()
                pairs.append((i, j))
                del left[i], right[j]
    return sorted(pairs)


# --- NIST -----------------------------------------------------------------------------------------------------------

_NIST_ORDER = 5


def nist(predictions: Texts, references: References) -> TextScore:
    """NIST-5 (Doddington 2002): n-gram matches weighted by how rare they are among the references.

    Deviations from mteval-v13a: this module's own tokeniser. Per example: the same with the corpus's weights.
    """
    guesses, truths = [tokens(p) for p in predictions], [[tokens(t) for t in texts] for texts in references]
    counts: Counter[Gram] = Counter()
    words = 0
    for texts in truths:
        for text in texts:
            words += len(text)
            for size in range(1, _NIST_ORDER + 1):
                counts.update(grams(text, size))  # += would copy the whole counter each time

    def information(gram: Gram) -> float:
        return math.log2((counts[gram[:-1]] if len(gram) > 1 else words) / counts[gram])

    def value(pairs: Sequence[tuple[list[str], list[list[str]]]]) -> float:
        total = 0.0
        for size in range(1, _NIST_ORDER + 1):
            gained, there = 0.0, 0
            for guess, texts in pairs:
                most: Counter[Gram] = Counter()
                for text in texts:
                    most |= grams(text, size)
                found = grams(guess, size)
                there += sum(found.values())
                gained += sum(information(gram) * n for gram, n in (found & most).items())
            total += gained / there if there else 0.0
        length = sum(len(guess) for guess, _ in pairs)
        mean = sum(sum(map(len, texts)) / len(texts) for _, texts in pairs)
        ratio = min(length / mean, 1.0) if mean else 0.0
        beta = math.log(0.5) / math.log(1.5) ** 2
        return total * math.exp(beta * math.log(ratio) ** 2) if ratio else 0.0

    pairs = list(zip(guesses, truths, strict=True))
    note = f"own NIST-5, mean reference length, not mteval; {_TOKENS_NOTE}"
    return TextScore(value(pairs), [value([pair]) for pair in pairs], note)


# --- CIDEr ----------------------------------------------------------------------------------------------------------

_CIDER_ORDER, _SIGMA = 4, 6.0


def cider(predictions: Texts, references: References) -> TextScore:
    """CIDEr-D (Vedantam et al. 2015) as the COCO caption scorer computes it: n up to 4, sigma 6, x 10.

    Document frequencies come from the references of this corpus. Deviation: this module's own tokeniser instead of the
    PTB tokeniser's jar.
    """
    truths = [[tokens(text) for text in texts] for texts in references]
    frequency: Counter[Gram] = Counter()
    for texts in truths:
        frequency.update({gram for text in texts for n in range(1, _CIDER_ORDER + 1) for gram in grams(text, n)})
    documents = math.log(max(len(truths), 1))

    def vector(text: list[str], size: int) -> dict[Gram, float]:
        return {g: n * (documents - math.log(max(1.0, frequency[g]))) for g, n in grams(text, size).items()}

    def similarity(guess: list[str], truth: list[str], size: int) -> float:
        a, b = vector(guess, size), vector(truth, size)
        norms = math.sqrt(sum(v * v for v in a.values())) * math.sqrt(sum(v * v for v in b.values()))
        product = sum(min(v, b[gram]) * b[gram] for gram, v in a.items() if gram in b)
        # the scorer's length is that of its bigram counts, one less per text: the difference is the same
        penalty = math.exp(-((len(guess) - len(truth)) ** 2) / (2 * _SIGMA**2))
        return product / norms * penalty if norms else 0.0

    each = []
    for prediction, texts in zip(predictions, truths, strict=True):
        guess = tokens(prediction)
        sums = [
            sum(similarity(guess, text, size) for text in texts) / len(texts) for size in range(1, _CIDER_ORDER + 1)
        ]
        each.append(10 * sum(sums) / _CIDER_ORDER)
    note = f"own CIDEr-D (n 1-4, sigma 6), document frequencies of this corpus; {_TOKENS_NOTE} (not PTB)"
    return TextScore(sum(each) / len(each), each, note)
