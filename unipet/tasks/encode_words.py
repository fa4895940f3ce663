"""Encoding sentences that are given as words, with one labelled token per word."""

from __future__ import annotations

from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.encode_text import IGNORED
from unipet.tasks.encoded import EncodedRows
from unipet.tasks.rows import Row
from unipet.tasks.word_ids import plain_ids, word_ids


def encode_words(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode each sentence. The first token of a word has its label; all other tokens have -100.

    Every word, also the first one, has the ids that it has after a space within a sentence. `labelled` lists the word of
    each label. A word that the tokenizer turns into no tokens, such as a zero-width character, has no label and is listed
    in `wordless`. A word whose first token is truncated has no label either.
    """
    words = list(dict.fromkeys(word for row in rows for word in row["text"]))
    pieces = dict(zip(words, word_ids(tokenizer, words), strict=True))
    frame = _Frame(tokenizer, next((word for word in words if pieces[word][0]), "a"))
    room = max(task.max_length - frame.size, 0)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "token_type_ids": [], "labels": []}
    labelled, wordless, cut = [], [], 0
    for row in rows:
        tags = row.get("label", [0] * len(row["text"]))  # a hidden test set has none
        ids: list[int] = []
        places: list[int] = []  # for each token, the word whose label it has, or -1
        for at, word in enumerate(row["text"]):
            own, first = pieces[word]
            ids += own
            places += [at if k == first else -1 for k in range(len(own))]
        cut += len(ids) > room
        kept = slice(max(len(ids) - room, 0), None) if tokenizer.truncation_side == "left" else slice(0, room)
        ids, places = ids[kept], places[kept]
        columns["input_ids"].append([*frame.before, *ids, *frame.after])
        columns["token_type_ids"].append(frame.types(len(ids)))
        labels = [IGNORED if at < 0 else tags[at] for at in places]
        columns["labels"].append([*[IGNORED] * len(frame.before), *labels, *[IGNORED] * len(frame.after)])
        labelled.append([at for at in places if at >= 0])
        wordless.append([at for at, word in enumerate(row["text"]) if not pieces[word][0]])
    if not frame.typed:
        del columns["token_type_ids"]
    return EncodedRows({**columns, "labelled": labelled, "wordless": wordless}, None, cut / len(rows))


class _Frame:
    """The special tokens that this tokenizer puts around a text, with their token types."""

    def __init__(self, tokenizer: Any, word: str) -> None:
        made = tokenizer(word, return_attention_mask=False, verbose=False)
        whole, inner = list(made["input_ids"]), plain_ids(tokenizer, [word])[0]
        starts = [at for at in range(len(whole)) if whole[at : at + len(inner)] == inner]
        if not starts:
            raise UnipetError(
                "task.kind=token_classification: this base model's tokenizer changes the ids of a word next to special "
                "tokens, so its tokens cannot be assigned to words. Choose another model=..."
            )
        start, end = starts[0], starts[0] + len(inner)
        self.before, self.after = whole[:start], whole[end:]
        self.size = len(self.before) + len(self.after)
        self.typed = "token_type_ids" in made
        types = list(made["token_type_ids"]) if self.typed else [0] * len(whole)
        self._before, self._own, self._after = types[:start], types[start] if start < len(types) else 0, types[end:]

    def types(self, tokens: int) -> list[int]:
        """The token types of a text with this number of tokens between the special ones."""
        return [*self._before, *[self._own] * tokens, *self._after]
