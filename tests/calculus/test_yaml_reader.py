"""The one reader of YAML: the core schema of 1.2, texts as written, one error for what it does not read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from unipet import UnipetError
from unipet.calculus.yaml_reader import parse_yaml, read_yaml, texts, values, write_yaml

SCALARS: dict[str, Any] = {
    "no": "no", "yes": "yes", "on": "on", "off": "off", "y": "y", "true": True, "FALSE": False, "tRUE": "tRUE",
    "null": None, "~": None, "": None, "010": 10, "-7": -7, "+5": 5, "0o10": 8, "0x1F": 31, "0b1": "0b1",
    "1e-3": 0.001, "1e3": 1000.0, "1.50": 1.5, "1.": 1.0, ".5": 0.5, "-.5": -0.5, ".inf": math.inf, "-.INF": -math.inf,
    "inf": "inf", "nan": "nan", "1_000": "1_000", "12:30": "12:30", "1.2.3": "1.2.3", "2020-01-01": "2020-01-01",
    "'1.10'": "1.10", '"no"': "no", "e5": "e5", "1e": "1e", "=": "=", "2e400": math.inf,
}  # fmt: skip


@pytest.mark.parametrize("written", SCALARS)
def test_a_scalar_is_what_yaml_1_2_says(written: str) -> None:
    tree = parse_yaml(f"a: {written}\nb: [{written or '~'}]", "file")
    expected = SCALARS[written]
    assert values(tree) == {"a": expected, "b": [expected]}
    assert type(values(tree)["a"]) is type(expected)
    assert texts(tree)["a"] == written.strip("'\""), "a text field gets what was written"


def test_keys_are_texts_as_written_and_merges_come_below_own_keys() -> None:
    tree = parse_yaml("no: &x {010: 1, b: 2}\n1.10: {<<: *x, b: 3}\n", "file")
    assert values(tree) == {"no": {"010": 1, "b": 2}, "1.10": {"010": 1, "b": 3}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml, line 3: the key 'a' stands twice"),
        ("a: {b: 1, 'b': 2}", "line 1: the key 'b' stands twice"),
        ("a: 1\nb: !!python/object:os.system x", "f.yaml, line 2: the tag .* is not read"),
        ("a: !!str 1", "tag"),
        ("a: &a [*a]", r"line 1: alias \*a"),
        ("a: *b", r"alias \*b has no anchor"),
        ("a: [1, 2", "f.yaml, line"),
        ("a: \x00", "f.yaml: not a readable"),
        ("a: 1\n---\nb: 2", "second document"),
        ("[1, 2]: x", "a key is a text"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("[" * 500 + "]" * 500, "levels deep"),
        (
            "a: &a [" + "x, " * 100 + "]\nb: &b [" + "*a, " * 100 + "]\nc: [" + "*b, " * 100 + "]",
            "more than 200,000 values",
        ),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_not_read_is_one_error_with_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(UnipetError, match=words) as caught:
        read_yaml(tmp_path / "f.yaml")
    assert len(str(caught.value)) < 2000


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(UnipetError, match=r"f\.yaml: not a readable YAML file: byte 3"):
        read_yaml(tmp_path / "f.yaml")
    (tmp_path / "empty.yaml").write_bytes(b"\xef\xbb\xbf# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") is None


def test_what_is_written_is_read_back_by_this_reader_and_by_others() -> None:
    hard = [
        *SCALARS,
        *(str(value) for value in SCALARS.values()),
        " a ",
        "a: b",
        "#",
        "- a",
        "\n",
        "é\u2028",
        "<<",
        "!x",
    ]
    given = {"texts": hard, "keys": dict.fromkeys(dict.fromkeys(hard), "no"), "numbers": [1e-3, 1e-5, 1e20, 2.0, 3, -4]}
    given["rest"] = [None, True, False, math.inf, {}, []]
    written = write_yaml(given)
    assert values(parse_yaml(written, "file")) == given
    assert yaml.safe_load(written) == given
