"""Scores of texts, against the libraries and against values counted by hand."""

from __future__ import annotations

import math
import random
import unicodedata
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.report.resampling import RESAMPLED, _bleu
from unipet.tasks import METRICS, check_task, score_tags, score_texts
from unipet.tasks.data_to_text import cider, meteor, nist
from unipet.tasks.metrics import f1_macro, span_f1, spans
from unipet.tasks.text_metrics import TEXT_METRICS, bleu, chrf, exact_match, rouge, sentences, ter
from unipet.tasks.text_tokens import tokens, words

WORDS = "the a cat dog sat runs running mat on quickly quick house near big cheap food".split()


def texts(count: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Random sentences with one to three references each, some of them close to the prediction."""
    rng = random.Random(seed)

    def sentence() -> list[str]:
        return [rng.choice(WORDS) for _ in range(rng.randint(3, 12))]

    predictions, references = [], []
    for _ in range(count):
        guess = sentence()
        near = [word if rng.random() < 0.7 else rng.choice(WORDS) for word in guess]
        predictions.append(" ".join(guess))
        references.append([" ".join(near), *(" ".join(sentence()) for _ in range(rng.randint(0, 2)))])
    return predictions, references


def streams(references: list[list[str]]) -> list[list[str | None]]:
    return [[row[k] if k < len(row) else None for row in references] for k in range(max(map(len, references)))]


@pytest.mark.parametrize("seed", range(3))
def test_sacrebleu_values_with_several_references(seed: int) -> None:
    guess, truth = texts(20, seed)
    assert bleu(guess, truth).corpus == pytest.approx(sacrebleu.corpus_bleu(guess, streams(truth)).score)
    assert chrf(guess, truth).corpus == pytest.approx(sacrebleu.corpus_chrf(guess, streams(truth)).score)
    assert ter(guess, truth).corpus == pytest.approx(sacrebleu.corpus_ter(guess, streams(truth)).score)
    assert bleu(guess, truth).note.startswith("sacrebleu nrefs:") and "tok:13a" in bleu(guess, truth).note
    for metric in (bleu, chrf, ter):
        assert len(metric(guess, truth).per_example) == 20


def test_per_example_is_higher_for_the_better_text_whatever_the_metric() -> None:
    truth = [["the cat sat on the mat near the house ."]] * 2
    guess = ["the cat sat on the mat near the house .", "a dog runs"]
    for name, metric in METRICS.items():
        if metric.answers == ("text",) and metric.compute is not None and name != "cider":
            good, bad = metric.compute(guess, truth).per_example
            assert good > bad, name
    assert ter(guess, truth).per_example[0] == 0.0 and not METRICS["ter"].higher_is_better


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_librarys_with_the_best_reference(kind: str) -> None:
    guess, truth = texts(15, 1)
    scorer = rouge_scorer.RougeScorer([kind], use_stemmer=True)
    each = [100 * max(scorer.score(t, g)[kind].fmeasure for t in row) for g, row in zip(guess, truth, strict=True)]
    found = rouge(guess, truth, kind)
    assert found.per_example == pytest.approx(each) and found.corpus == pytest.approx(np.mean(each))


def test_rouge_lsum_compares_sentence_by_sentence() -> None:
    guess, truth = ["The dog runs. The cat sat."], [["The cat sat. The dog runs."]]
    assert rouge(guess, truth, "rougeLsum").corpus == pytest.approx(100.0)
    assert rouge(guess, truth, "rougeL").corpus == pytest.approx(50.0)


def test_exact_match_counts_any_reference() -> None:
    assert exact_match(["a ", "b", "C"], [["x", "a"], ["c"], ["c"]]).per_example == [1.0, 0.0, 0.0]


class NoSynonyms:
    """A WordNet that knows nothing: nltk's METEOR with it has the exact and stem stages only."""

    def synsets(self, word: str) -> list[Any]:
        return []


@pytest.mark.parametrize("seed", range(3))
def test_meteor_is_nltks_without_wordnet(seed: int) -> None:
    from nltk.translate.meteor_score import meteor_score

    guess, truth = texts(25, seed)
    theirs = [
        100 * meteor_score([tokens(t) for t in row], tokens(g), wordnet=NoSynonyms())
        for g, row in zip(guess, truth, strict=True)
    ]
    assert meteor(guess, truth).per_example == pytest.approx(theirs)


def test_meteor_by_hand() -> None:
    # Five of six words match: P = R = F = 5/6. Each stage pairs from the end, so "the" goes with the last "the", which
    # makes three chunks ("the", "cat sat on", "mat"): penalty .5 (3/5)^3.
    found = meteor(["the cat sat on a mat"], [["the cat sat on the mat"]]).corpus
    assert found == pytest.approx(100 * 5 / 6 * (1 - 0.5 * (3 / 5) ** 3))


@pytest.mark.parametrize("seed", range(3))
def test_nist_is_nltks(seed: int) -> None:
    from nltk.translate.nist_score import corpus_nist

    guess, truth = texts(20, seed)
    truth = [row[:1] for row in truth]  # of several references nltk counts information in another way
    theirs = corpus_nist([[tokens(t) for t in row] for row in truth], [tokens(g) for g in guess], n=5)
    assert nist(guess, truth).corpus == pytest.approx(theirs)


def test_nist_by_hand() -> None:
    # References "a b" and "a c": info(a) = log2(4/2) = 1, info(b) = 2, info(a b) = log2(2/1) = 1; lengths agree.
    assert nist(["a b", "a c"], [["a b"], ["a c"]]).corpus == pytest.approx((1 + 2 + 1 + 2) / 4 + (1 + 1) / 2)


def test_cider_by_hand() -> None:
    # Two documents, one unigram of its own each ("b", "c"; "a" is in both, so it weighs nothing): both match whole.
    # Bigrams "a b" and "a c" match as well; of three and more words there are none. So 10 * (1 + 1 + 0 + 0) / 4.
    found = cider(["a b", "a c"], [["a b"], ["a c"]])
    assert found.per_example == pytest.approx([5.0, 5.0])
    assert cider(["a c", "a b"], [["a b"], ["a c"]]).corpus == 0.0
    # One word too many: the counts still clip at the reference's, and the length is penalised by exp(-1/72).
    longer = cider(["a b a", "a c"], [["a b"], ["a c"]]).per_example[0]
    unigram = math.exp(-1 / 72)
    assert longer == pytest.approx(10 * (unigram + unigram * math.log(2) / math.sqrt(2 * math.log(2) ** 2)) / 4)


def test_every_text_metric_takes_an_empty_prediction() -> None:
    for name in (*TEXT_METRICS, "meteor", "nist", "cider"):
        compute = METRICS[name].compute
        assert compute is not None
        found = compute(["", "the cat"], [["the cat sat"], ["the cat", "a cat"]])
        assert (
            math.isfinite(found.corpus) and len(found.per_example) == 2 and all(map(math.isfinite, found.per_example))
        )


def test_scores_of_texts_keep_notes_and_the_first_metrics_examples() -> None:
    task = TaskConfig(name="t", kind="seq2seq", text=["a"], metrics=["perplexity", "bleu"])
    scores = score_texts(task, ["a b", "c"], [["a b"], ["d"]], ([2.0, 1.0], [2, 1]))
    assert scores.score == pytest.approx(math.e) and scores.per_example == [-1.0, -1.0]
    assert set(scores.record()["notes"]) == {"perplexity", "bleu"} and scores.record()["higher_is_better"] is False


def test_spans_of_bio_tags() -> None:
    assert spans(["B-X", "I-X", "O", "B-Y", "B-Y"]) == {(0, 1, "X"), (3, 3, "Y"), (4, 4, "Y")}
    assert spans(["I-X", "I-Y", "I-Y"]) == {(0, 0, "X"), (1, 2, "Y")}
    assert span_f1([["B-X", "O"]], [["B-X", "B-Y"]]) == pytest.approx(2 / 3)
    assert span_f1([["O"]], [["O"]]) == 0.0


def test_tags_that_were_cut_count_as_wrong() -> None:
    task = TaskConfig(
        name="t", kind="token_classification", text=["w"], labels=["O", "B-X"], metrics=["accuracy", "f1"]
    )
    scores = score_tags(task, [[1, -1], [0]], [[1, 1], [0]])
    assert scores.score == pytest.approx(2 / 3) and scores.per_example == [0.5, 1.0]
    assert scores.metrics["f1"] == pytest.approx(2 / 3)


def test_macro_f1() -> None:
    # label 0: P 1/2, R 1; label 1: never predicted; label 2: P 1, R 1
    assert f1_macro(np.array([0, 0, 2]), np.array([0, 1, 2])) == pytest.approx((2 / 3 + 0 + 1) / 3)


SAME = {
    "hindi": "हमने आज जॉन स्मिथ को देखा।",
    "chinese": "我们今天看见了约翰。",
    "russian": "Мы сегодня видели Джона Смита.",
    "thai": "เราเห็นจอห์นวันนี้",
    "arabic": "رأينا جون سميث اليوم",
    "german": "Über alle Öfen fliegt die Möwe",
}
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_texts_of_every_script_equal_themselves_and_no_other(text: str) -> None:
    others = [other for other in SAME.values() if other != text]
    for kind in ROUGES:
        assert rouge([text], [[text]], kind).corpus == pytest.approx(100.0)
        assert rouge([text], [others], kind).corpus == 0.0
    for metric, best in ((meteor, 99.0), (nist, 0.5), (ter, 0.0)):
        assert metric([text], [[text]]).per_example[0] >= best
        assert metric([text], [[others[0]]]).per_example[0] < best / 10 or metric is ter
    assert meteor([text], [others]).corpus == 0.0 and nist([text], [others]).corpus == 0.0
    assert ter([text], [[text]]).corpus == 0.0 and ter([text], [[others[0]]]).corpus >= 50
    assert cider([text, others[0]], [[text], [others[0]]]).corpus == pytest.approx(10.0)
    assert exact_match([text], [[unicodedata.normalize("NFD", text)]]).corpus == 1.0


def test_letters_beside_a_to_z_are_letters() -> None:
    for kind in ROUGES:
        assert rouge(["\u00fcber"], [["\u00f6ber"]], kind).corpus == 0.0
    assert meteor(["\u00fcber"], [["\u00f6ber"]]).corpus == 0.0
    assert rouge(["\u00fcber alles"], [["u\u0308ber alles"]], "rouge2").corpus == pytest.approx(100.0)
    one_other = SAME["chinese"].replace("\u7ea6", "\u9a6c")  # one of ten characters; the full stop is no word
    assert rouge([one_other], [[SAME["chinese"]]], "rouge1").corpus == pytest.approx(100 * 8 / 9)
    assert ter([one_other], [[SAME["chinese"]]]).corpus == pytest.approx(10.0)


def test_the_words_of_every_script() -> None:
    assert words("\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902\u0964") == [
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u092e\u0947\u0902",
    ]
    assert words("2020\u5e74, A_b it\u2019s") == ["2020", "\u5e74", "a", "b", "it", "s"]
    assert words("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645") == words(
        "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645"
    ), "an invisible joiner joins"
    assert words("\u2764\ufe0f \ud55c\uad6d\uc5b4") == ["\ud55c\uad6d\uc5b4"], (
        "a mark alone is no word; Korean has spaces"
    )
    assert tokens("\u4f60\u597d\uff0c3.5 kg!") == ["\u4f60", "\u597d", "\uff0c", "3.5", "kg", "!"]
    assert (
        sentences("\u4f60\u597d\u3002\u518d\u89c1\uff01 Bye. See")
        == "\u4f60\u597d\u3002\n\u518d\u89c1\uff01\nBye.\nSee"
    )


def test_on_ascii_the_words_are_those_of_before() -> None:
    import re

    from rouge_score.tokenize import tokenize

    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(
            chr(rng.choice([rng.randrange(32, 127), 32, 9, 46, 44, 48, 95])) for _ in range(rng.randrange(30))
        )
        assert words(text) == tokenize(text, None)
        assert tokens(text) == re.findall(r"\w+(?:[.,]\d+)*|[^\w\s]", text.lower())


def test_published_values_for_english_stay() -> None:
    guess, truth = texts(30, 7)
    theirs = rouge_scorer.RougeScorer(ROUGES, use_stemmer=True)
    for kind in ROUGES:
        each = [100 * theirs.score_multi(row, g)[kind].fmeasure for g, row in zip(guess, truth, strict=True)]
        assert rouge(guess, truth, kind).per_example == each


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "zh", "char", "none"])
def test_bleu_is_sacrebleus_with_the_tasks_tokenizer(tokenizer: str) -> None:
    guess, truth = [SAME["chinese"], "the cat sat"], [[SAME["chinese"]], ["the cat sat on a mat"]]
    task = TaskConfig(name="t", kind="seq2seq", text=["a"], metrics=["bleu"], bleu_tokenizer=tokenizer)
    scores = score_texts(task, guess, truth)
    assert scores.score == pytest.approx(sacrebleu.corpus_bleu(guess, streams(truth), tokenize=tokenizer).score)
    note = scores.record()["notes"]["bleu"]
    assert f"tok:{tokenizer}|" in note and ("task.bleu_tokenizer=zh" in note) == (tokenizer == "13a")
    lines = [
        {"id": str(i), "prediction": p, "references": t, "score": s}
        for i, (p, t, s) in enumerate(zip(guess, truth, scores.per_example, strict=True))
    ]
    assert _bleu(lines, [], tokenizer)(np.ones((1, 2)))[0] == pytest.approx(scores.score)


def test_a_tokenizer_that_cannot_be_used_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TaskConfig(name="t", kind="seq2seq", text=["a"], metrics=["bleu"])
    for name in ("13a", "zh", "char", "intl", "none"):
        check_task(replace(task, bleu_tokenizer=name))
    with pytest.raises(
        UnipetError, match=r"task\.bleu_tokenizer: unknown 'ja_mecab'.*flores200.*Did you mean 'ja-mecab'"
    ):
        check_task(replace(task, bleu_tokenizer="ja_mecab"))
    if find_spec("MeCab") is None:
        with pytest.raises(UnipetError, match=r"task\.bleu_tokenizer: .*'ja-mecab'.*pip install 'sacrebleu\[ja\]'"):
            check_task(replace(task, bleu_tokenizer="ja-mecab"))

    def no_network(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.download_file", no_network)
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", "nowhere")
    with pytest.raises(UnipetError, match=r"task\.bleu_tokenizer: .*'flores200'.*no network.*downloads once.*13a"):
        check_task(replace(task, bleu_tokenizer="flores200"))


def test_the_notes_say_which_words_are_counted() -> None:
    task = TaskConfig(name="t", kind="seq2seq", text=["a"], metrics=["rougeL", "meteor", "nist", "cider"])
    notes = score_texts(task, ["a b"], [["a b"]]).record()["notes"]
    assert all("Unicode letters, digits and marks" in note for note in notes.values())
    assert all(("punctuation" in note) == (name != "rougeL") for name, note in notes.items())


def test_resampled_statistics_cut_texts_as_the_score_does() -> None:
    guess, truth = [SAME["chinese"].replace("约", "马"), "a b"], [[SAME["chinese"]], ["a c"]]
    scores = ter(guess, truth)
    lines = [
        {"id": str(i), "prediction": p, "references": t} for i, (p, t) in enumerate(zip(guess, truth, strict=True))
    ]
    assert RESAMPLED["ter"](lines, [])(np.ones((1, 2)))[0] == pytest.approx(scores.corpus)
    assert scores.corpus == pytest.approx(100 * 2 / 12), "one edit in ten characters, one in two words"
