"""A corpus of nasty files: one logical table reads to the same rows in every format, and each format keeps its rules."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.files import FORMATS, parquet_of, task_for, write_both, write_file
from tests.support.tasks import refused, task_of
from unipet.errors import UnipetError
from unipet.tasks import load_task

#: Texts that every format can hold: no tab, no line feed.
TEXTS = {
    "quotes": 'she said "no" twice',
    "an open quote": '"hello there',
    "a quote at the end": 'fine film"',
    "a quoted beginning": '"Yes," he said',
    "one quote": '"',
    "two quotes": '""',
    "commas": "a, b,, c,",
    "spaces at both ends": "  a b  ",
    "line separator": "a\u2028b\u2029c",
    "control characters inside a word": "w\x01o\x0br\x0cd\x1c\x1d\x1e\x7f\x85s",
    "a carriage return inside": "a\rb",
    "a NUL": "a\0b",
    "a byte order mark inside": "a\ufeffb",
    "zero width": "a\u200bb\u200dc\u00ad",
    "Hindi": "यह फ़िल्म बहुत अच्छी है",
    "Chinese": "这部电影很好看。",
    "Arabic": "هذا الفيلم جيد جدًا",
    "Thai": "หนังเรื่องนี้ดีมาก",
    "combining": "u\u0308ber, e\u0301",
    "beyond 16 bits": "👩\u200d🚀 𝔘𝔫𝔦 🏴\U000e0067\U000e007f",
    "backslashes": 'a\\nb\\t\\"c\\',
    "not available": "NA",
    "null": "null",
    "true": "true",
    "a number": "007",
    "a float": "1e3",
    "a bracket": "[not a list",
    "a list": '["a", "b"]',
    "an object": '{"a": 1}',
    "a formula": "=1+1",
    "a comment": "# a",
    "140,000 characters": "long " * 28_000,
}
DAMAGE = [b'"', b"\t", b",", b"\n", b"\r", b"\0", b"\xff", b"\xed\xa0\x80", b"NaN", b"{", b"[", b"}", b"\xef\xbb\xbf"]
DAMAGE += [b"1e999", b"null", b"true", b"\\ud800", b"-1", b"", b" ", b'""', b"9" * 5000]
BREAKS = {"line feed": "two\nlines", "both": "two\r\nlines\n", "tab": "a\tb"}


def rows_of(texts: dict[str, str]) -> list[dict[str, Any]]:
    return [{"id": name, "sentence": text, "label": i % 2} for i, (name, text) in enumerate(texts.items())]


def expected(texts: dict[str, str]) -> list[dict[str, Any]]:
    return [{"id": row["id"], "text": [row["sentence"]], "label": row["label"]} for row in rows_of(texts)]


@pytest.mark.parametrize("mark", [False, True], ids=["", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_one_table_reads_to_the_same_rows_in_every_format(suffix: str, end: str, mark: bool, tmp_path: Path) -> None:
    data = load_task(task_for(write_both(tmp_path, suffix, rows_of(TEXTS), end=end, mark=mark)))
    assert data.train == data.evaluation == expected(TEXTS)
    same = load_task(task_for(write_both(tmp_path / "same", "jsonl", rows_of(TEXTS))))
    assert data.fingerprint == same.fingerprint, "the fingerprint is of the rows, not of how a file writes them"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_texts_with_line_breaks_and_tabs(suffix: str, tmp_path: Path) -> None:
    data = load_task(task_for(write_both(tmp_path, suffix, rows_of(BREAKS))))
    assert data.train == expected(BREAKS)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_the_last_line_needs_no_end(suffix: str, tmp_path: Path) -> None:
    write_both(tmp_path, suffix, rows_of(TEXTS))
    path = tmp_path / f"train.{suffix}"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert load_task(task_for(tmp_path)).train == expected(TEXTS)


def both(folder: Path, name: str, content: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (folder / f"{split}.{name}").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


# --- tab separated ------------------------------------------------------------------------------------------------


def test_tab_files_have_no_quoting(tmp_path: Path) -> None:
    content = 'sentence\tlabel\n"hello there\t0\nfine film"\t1\nplain\t0\n"Yes," he said\t1\n'
    data = load_task(task_for(both(tmp_path, "tsv", content)))
    assert [(row["text"], row["label"]) for row in data.train] == [
        (['"hello there'], 0),
        (['fine film"'], 1),
        (["plain"], 0),
        (['"Yes," he said'], 1),
    ]


def test_a_blank_line_is_a_row_only_in_a_table_of_one_column(tmp_path: Path) -> None:
    for suffix, content in {"tsv": "sentence\tlabel\n\na\t1\n\n", "csv": "sentence,label\n\na,1\n\n"}.items():
        assert len(load_task(task_for(both(tmp_path / suffix, suffix, content))).train) == 1
        folder = tmp_path / f"one_{suffix}"
        write_both(folder, suffix, [{"sentence": "a", "label": 1}])
        (folder / f"hidden.{suffix}").write_text("sentence\na\n\nb\n")
        from unipet.tasks import load_hidden

        with pytest.raises(UnipetError, match=rf"hidden\.{suffix}, line 3, field 'sentence': empty text.*hidden split"):
            load_hidden(task_for(folder), "hidden")


# --- comma separated ----------------------------------------------------------------------------------------------


def test_comma_files_are_read_as_python_writes_them(tmp_path: Path) -> None:
    rows = rows_of({**TEXTS, **BREAKS})
    with (tmp_path / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_file(tmp_path, "validation", "csv", rows)
    assert load_task(task_for(tmp_path)).train == expected({**TEXTS, **BREAKS})


def test_a_long_value_changes_no_setting_of_the_process(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "x" * 2_000_000
    data = load_task(task_for(both(tmp_path, "csv", f'sentence,label\n{long},1\n"{long}, {long}",0\n')))
    assert [row["text"][0] for row in data.train] == [long, f"{long}, {long}"]
    assert csv.field_size_limit() == limit


BROKEN: dict[str, tuple[str, str | bytes, list[str]]] = {
    "never closed": ("csv", 'sentence,label\na,1\n"b,1\nc,0\n', ["line 3, field 'sentence'", "never ends"]),
    "never closed after a line break": ("csv", 'sentence,label\n"a\nb",1\n"c,1\n', ["line 4", "never ends"]),
    "a quote inside": ("csv", 'sentence,label\na "b" c,1\n', ["line 2, field 'sentence'", "double the quote"]),
    "a quote at the end": ("csv", 'sentence,label\nfine film",1\n', ["line 2", "not quoted"]),
    "text behind a quote": ("csv", 'sentence,label\n"Yes," he said,1\n', ["line 2", "' ' after the closing quote"]),
    "a lone carriage return": ("csv", "sentence,label\na\rb,1\n", ["line 2, field 'sentence'", "carriage return"]),
    "too many values": ("csv", "sentence,label\na,1,2\n", ["line 2", "3 values", "2 columns"]),
    "too few values": ("tsv", "sentence\tlabel\nb\t0\na\n", ["line 3", "1 values", "2 columns"]),
    "a tab in a text": ("tsv", "sentence\tlabel\na\tb\t1\n", ["line 2", "3 values"]),
    "a column twice": ("tsv", "sentence\tlabel\tlabel\na\t1\t1\n", ["line 1", "'label' twice"]),
    "a quoted header": ("tsv", '"sentence"\t"label"\n"a"\t1\n', ["line 2", "no column 'sentence'", '"sentence"']),
    "old Macintosh lines": ("tsv", "sentence\tlabel\ra\t1\r", ["line 1", "carriage return"]),
    "UTF-16": ("csv", "sentence,label\na,1\n".encode("utf-16"), ["line 1", "UTF-16"]),
    "UTF-16 without a mark": ("csv", "sentence,label\na,1\n".encode("utf-16-le"), ["line 1", "NUL", "UTF-16"]),
    "UTF-16 lines": ("jsonl", '{"sentence": "a", "label": 1}\n'.encode("utf-16"), ["line 1", "UTF-16"]),
    "latin-1 in a tab file": (
        "tsv",
        "label\tsentence\n1\ta\n0\tcaf\u00e9\n".encode("latin-1"),
        ["line 3, field 'sentence'", "not UTF-8", "0xe9"],
    ),
    "latin-1 in a quoted value": (
        "csv",
        'label,sentence\n1,"a\nb"\n0,"x, caf\u00e9"\n'.encode("latin-1"),
        ["line 4, field 'sentence'", "not UTF-8"],
    ),
    "latin-1 in the header": ("csv", "sentence,\u00e9\na,1\n".encode("latin-1"), ["line 1", "not UTF-8"]),
    "half a character in UTF-8": ("tsv", b"sentence\tlabel\na\xed\xa0\x80\t1\n", ["line 2", "not UTF-8"]),
    "empty": ("csv", "", ["no rows", "empty"]),
    "only a mark": ("tsv", b"\xef\xbb\xbf", ["no rows", "empty"]),
    "only a header": ("tsv", "sentence\tlabel\n", ["no rows", "empty"]),
    "NaN": ("jsonl", '{"sentence": "a", "label": 1, "x": NaN}', ["line 1, field 'x'", "NaN"]),
    "NaN in a list": ("jsonl", '{"sentence": "a", "label": 1, "x": {"y": [1, [Infinity]]}}', ["field 'y'"]),
    "a number beyond floats": ("jsonl", '{"sentence": "a", "label": 1, "x": 1e999}', ["line 1, field 'x'"]),
    "a key twice inside": ("jsonl", '{"sentence": "a", "label": 1, "x": {"y": 1, "y": 1}}', ["'y'", "twice"]),
    "a raw NUL": ("jsonl", b'{"sentence": "a\0", "label": 1}', ["line 1, field 'sentence'", "malformed"]),
    "two objects a line": ("jsonl", '{"sentence": "a", "label": 1} {"sentence": "b"}', ["line 1", "malformed"]),
    "one list": ("jsonl", '[{"sentence": "a", "label": 1}]', ["line 1", "a JSON object is needed, list"]),
    "half a character in an id": ("jsonl", '{"id": "\\ud800", "sentence": "a", "label": 1}', ["'id'", "surrogate"]),
    "half a character in a name": ("jsonl", '{"sen\\ud800ence": 1, "label": 1}', ["no column 'sentence'", "\\ud800"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_error_with_file_and_line(case: str, tmp_path: Path) -> None:
    suffix, content, parts = BROKEN[case]
    with pytest.raises(UnipetError) as error:
        load_task(task_for(both(tmp_path, suffix, content)))
    message = str(error.value)
    assert f"train.{suffix}" in message and all(part in message for part in parts), message
    message.encode()  # whatever stands in the file, the message can be printed


def test_an_error_about_a_huge_row_is_short(tmp_path: Path) -> None:
    row = {f"column {i} {'x' * 1000}": i for i in range(2000)}
    for broken in (row, {"sentence": "a", "label": "x" * 10_000_000}, {"sentence": ["x" * 10**6], "label": 1}):
        with pytest.raises(UnipetError) as error:
            load_task(task_for(both(tmp_path, "jsonl", json.dumps(broken))))
        assert len(str(error.value)) < 2000


# --- lists in tables, numbers, ids --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_words_and_tags_in_every_format(suffix: str, tmp_path: Path) -> None:
    rows = [{"tokens": ['"', "a,b", "\u200b", "é", "[x"], "tags": ["O", "B-X", "O", "O", "B-X"]}]
    task = task_of("token_classification", tmp_path / "d")
    for split in ("train", "validation"):
        (tmp_path / "d" / f"{split}.jsonl").unlink()
    data = load_task(replace(task, data_dir=str(write_both(tmp_path / "d", suffix, rows))))
    assert data.train == [{"id": "train-0", "text": rows[0]["tokens"], "label": [0, 1, 0, 0, 1]}]


@pytest.mark.parametrize("suffix", FORMATS)
def test_references_in_every_format(suffix: str, tmp_path: Path) -> None:
    task = task_for(tmp_path, kind="seq2seq", labels=[], metrics=["bleu"])
    write_file(tmp_path, "train", suffix, [{"sentence": "a", "target": '["a", b'}])
    write_file(tmp_path, "validation", suffix, [{"sentence": "a", "references": ["b, c", '"d"', "e\u2028"]}])
    data = load_task(task)
    assert data.train[0]["target"] == '["a", b', "a target is a text as it stands"
    assert data.evaluation[0]["references"] == ["b, c", '"d"', "e\u2028"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_numbers_in_every_format(suffix: str, tmp_path: Path) -> None:
    numbers = [0.1, -2.5, 3.0, 1e-7, 123456.789]
    rows = [{"sentence": "a", "label": number} for number in numbers]
    task = task_for(write_both(tmp_path, suffix, rows), kind="regression", labels=[], metrics=["pearson"])
    assert [row["label"] for row in load_task(task).train] == numbers


@pytest.mark.parametrize("text", ["1_000", "0x10", "١", "nan", "inf", "1e999", "1,5", "one"])
def test_what_python_takes_for_a_number_and_a_file_does_not(text: str, tmp_path: Path) -> None:
    folder = both(tmp_path, "tsv", f"sentence\tlabel\na\t{text}\n")
    refused(task_for(folder, kind="regression", labels=[], metrics=["pearson"]), "line 2, field 'label'", "finite")


@pytest.mark.parametrize("suffix", FORMATS)
def test_ids_stay_as_written(suffix: str, tmp_path: Path) -> None:
    rows = [{"id": given, "sentence": "a", "label": 0} for given in ("007", "1.10", "yes", None, "1_000")]
    assert [row["id"] for row in load_task(task_for(write_both(tmp_path, suffix, rows))).train] == [
        "007",
        "1.10",
        "yes",
        "train-3",
        "1_000",
    ]


def test_an_id_that_looks_like_one_made_here(tmp_path: Path) -> None:
    rows = [{"id": "train-1", "sentence": "a", "label": 0}, {"id": None, "sentence": "b", "label": 0}]
    refused(task_for(write_both(tmp_path, "jsonl", rows)), "line 2", "'train-1' occurs again", "line 1")


# --- parquet ------------------------------------------------------------------------------------------------------


def test_parquet_types(tmp_path: Path) -> None:
    from decimal import Decimal

    import pyarrow as pa

    texts, labels = ["a", "é\n", "c"], [0, 1, 1]
    named = pa.array(["no", "yes", "yes"])
    kinds = {
        "large_string": (pa.array(texts, pa.large_string()), pa.array(labels, pa.int8())),
        "dictionary": (pa.array(texts).dictionary_encode(), named.dictionary_encode()),
        "view": (pa.array(texts, pa.string_view()), pa.array(labels, pa.uint64())),
        "decimal": (pa.array(texts), pa.array([Decimal(x) for x in labels], pa.decimal128(5, 2))),
        "bool": (pa.array(texts), pa.array([False, True, True])),
        "double": (pa.array(texts), pa.array(labels, pa.float64())),
        "half": (pa.array(texts), pa.array([0.0, 1.0, 1.0], pa.float32()).cast(pa.float16())),
    }
    for kind, (sentence, label) in kinds.items():
        folder = parquet_of(tmp_path / kind, {"sentence": sentence, "label": label})
        data = load_task(task_for(folder))
        assert [(row["text"][0], row["label"]) for row in data.train] == list(zip(texts, labels, strict=True)), kind


def test_parquet_decimals_are_numbers_exactly(tmp_path: Path) -> None:
    from decimal import Decimal

    import pyarrow as pa

    given = [Decimal("0.10"), Decimal("4.75"), Decimal("-3.33")]
    columns = {"sentence": ["a", "b", "c"], "label": pa.array(given, pa.decimal128(20, 2))}
    task = task_for(parquet_of(tmp_path, columns), kind="regression", labels=[], metrics=["pearson"])
    assert [row["label"] for row in load_task(task).train] == [0.1, 4.75, -3.33]
    third = task_for(parquet_of(tmp_path / "half", {"sentence": ["a"], "label": pa.array([Decimal("0.5")])}))
    refused(third, "train.parquet, row 0, field 'label'", "0.5", "no whole number")


def test_what_is_wrong_in_a_parquet_file_names_row_and_field(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    latin = pa.array([b"a", b"caf\xe9"], pa.binary()).view(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, latin.buffers())
    refused(
        task_for(parquet_of(tmp_path / "l", {"sentence": broken, "label": [0, 1]})), "row 1, field 'sentence'", "UTF-8"
    )
    for name, column in {"binary": latin, "null": pa.nulls(2), "struct": pa.array([{"a": 1}] * 2)}.items():
        refused(
            task_for(parquet_of(tmp_path / name, {"sentence": column, "label": [0, 1]})),
            "train.parquet, row 0, field 'sentence'",
            "a string is needed",
        )
    refused(task_for(parquet_of(tmp_path / "c", {"text": ["a"], "y": [1]})), "row 0", "Columns found: text, y")
    table = pa.Table.from_arrays([pa.array(["a"])] * 2, ["sentence", "sentence"])
    (tmp_path / "t").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "t" / "train.parquet")
    refused(task_for(tmp_path / "t"), "train.parquet", "two columns named 'sentence'")
    refused(task_for(parquet_of(tmp_path / "e", {"sentence": pa.array([], pa.string()), "label": []})), "no rows")


def test_a_column_that_the_task_does_not_read_may_hold_anything(tmp_path: Path) -> None:
    import pyarrow as pa

    latin = pa.array([b"caf\xe9"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 1, latin.buffers())
    columns = {"other": broken, "sentence": ["a"], "a.b": [1], "label": [1], "nested": [[{"x": b"\xff"}]]}
    assert load_task(task_for(parquet_of(tmp_path, columns))).train[0]["text"] == ["a"]


def test_a_folder_with_an_equals_sign_adds_no_column(tmp_path: Path) -> None:
    folder = parquet_of(tmp_path / "label=1", {"sentence": ["a", "b"], "label": [0, 1]})
    assert [row["label"] for row in load_task(task_for(folder)).train] == [0, 1]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_is_read_or_is_one_short_error(suffix: str, tmp_path: Path) -> None:
    rng = random.Random(suffix)
    write_both(tmp_path, suffix, rows_of({"one": 'a "b" é', "two": "c, d\u2028", "three": "x"}))
    path, found = tmp_path / f"train.{suffix}", {"read": 0, "refused": 0}
    whole = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(damaged) + 1)
            damaged[at : at + rng.randint(0, 2)] = rng.choice(DAMAGE)
        path.write_bytes(damaged)
        try:
            load_task(task_for(tmp_path, drop=rng.choice([[], ["empty", "unlabelled"]])))
            found["read"] += 1
        except UnipetError as error:
            assert len(str(error).encode()) < 2000 and path.name in str(error)
            found["refused"] += 1
    assert found["refused"] > 100
