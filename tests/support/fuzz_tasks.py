"""Task files and rows of data with something done to them: they load and encode, or one error names what is wrong."""

from __future__ import annotations

import contextlib
import copy
import csv
import functools
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.support.fuzz_trees import ODD, Changer, Draw, changed_text, written
from tests.support.fuzzing import calm, refused
from tests.support.tasks import TASKS, rows_of, tokenizer
from unipet.compose.composer import composer
from unipet.compose.overrides import plan
from unipet.config import TaskConfig, conf_dir
from unipet.errors import UnipetError
from unipet.tasks import encode, load_task

FILES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((conf_dir() / "task").glob("*.yaml"))}
TREES: dict[str, Any] = {name: yaml.safe_load(text) for name, text in FILES.items()}
CHANGER = Changer(TREES)
#: What stands in a column, whatever it is called.
CELLS: dict[str, Any] = {
    "label": [0, 1],
    "references": [["w1 w2", "w3"]],
    "target": ["w3 w4"],
    "idx": [3, 4],
    "score": [0.5, 3.0],
    "stars": [1.0, 4.5],
}
#: What stands in a column of a task of another kind than most.
OF_KIND: dict[tuple[str, str], Any] = {("multi_label", "label"): [["food"], []]}


@dataclass(frozen=True)
class TaskFile:
    """The text of a task's file, beside data that fit what it was changed from."""

    name: str
    text: str
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"task file, from {self.name}: {', '.join(self.changes)}\n{self.text}"


def unchanged(name: str) -> TaskFile:
    """A shipped task's file as it is."""
    return TaskFile(name, FILES[name], ())


@st.composite
def task_files(draw: Draw) -> TaskFile:
    name, changes = draw(st.sampled_from(sorted(TREES))), []
    tree = copy.deepcopy(TREES[name])
    for _ in range(draw(st.integers(1, 2))):
        changes.append(CHANGER.change(draw, tree, python=False))
    text = written(tree)
    if draw(st.integers(0, 2)) == 0:
        text, change = changed_text(draw, text)
        changes.append(change)
    return TaskFile(name, text, tuple(changes))


def task_outcome(given: TaskFile) -> str:
    """What came of a task's file when a command line names it and its data are read."""
    with calm(), tempfile.TemporaryDirectory() as place:
        mine = Path(place) / "conf" / "task" / "mine.yaml"
        mine.parent.mkdir(parents=True)
        mine.write_text(given.text, encoding="utf-8", errors="surrogatepass")
        _write_data(Path(place) / "data", given.name)
        words = ["task=mine", f"task.data_dir={place}/data", "task.max_train=20", "task.generated_train=40"]
        try:
            with composer(str(Path(place) / "conf")) as composing:
                config = plan([*words, "task.generated_evaluation=10"], False, composing).config
        except UnipetError as error:
            return refused("composed", error)
        config.task.hub = None  # there is no network here
        return _encoded(config.task, Path(place))


@functools.cache
def _columns(name: str) -> tuple[str, ...]:
    """The columns of a shipped task."""
    from unipet.tasks.columns import answer_columns, text_columns

    with composer(None) as composing:
        task = plan([f"task={name}"], False, composing).config.task
    return tuple(dict.fromkeys([*text_columns(task), *answer_columns(task, False), *answer_columns(task, True)]))


def _write_data(place: Path, name: str) -> None:
    """Rows enough to hold some out, in every split that a shipped task names."""
    place.mkdir()
    tree = TREES[name]
    rows = []
    for n in range(30):
        cells = {
            column: [f"w1 w{n}"] for column in _columns(name)
        }  # what is held out may share no text with what is left
        cells |= {column: own for column, own in CELLS.items() if column in cells}
        cells |= {
            column: own for (kind, column), own in OF_KIND.items() if kind == tree.get("kind") and column in cells
        }
        rows.append({column: own[n % len(own)] for column, own in cells.items()})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    splits = {
        "train",
        "validation",
        "test",
        tree.get("train_split"),
        tree.get("evaluation_split"),
        tree.get("selection_split"),
    }
    for split in splits:
        if isinstance(split, str):
            (place / f"{split}.jsonl").write_text(text)


@functools.cache
def _tokenizer() -> Any:
    from tokenizers import pre_tokenizers

    long = copy.deepcopy(tokenizer())
    long.model_max_length = 2048  # shipped tasks ask for up to 1,024 tokens
    long.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(
        " ", "removed"
    )  # and some for a line break as a separator
    return long


def _encoded(task: TaskConfig, place: Path) -> str:
    try:
        data = load_task(task)
    except UnipetError as error:
        return refused("read", error)
    try:
        encoded = encode(data, _tokenizer(), task, place / "cache")
    except UnipetError as error:
        return refused("encoded", error)
    assert len(encoded.train) == len(data.train) and len(encoded.evaluation) == len(data.evaluation)
    return "works"


# -- rows --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """The training file of a task of one kind."""

    kind: str
    name: str
    content: bytes
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"data of {self.kind}, {self.name}: {', '.join(self.changes)}\n{self.content[:3000]!r}"


@st.composite
def data_files(draw: Draw) -> Data:
    kind, changes = draw(st.sampled_from(sorted(TASKS))), []
    rows: list[Any] = rows_of(kind, 4)
    changer = Changer({"rows": rows_of(kind, 3), "odd": [{"sentence": each} for each in ODD]})
    for _ in range(draw(st.integers(1, 2))):
        changes.append(changer.change(draw, rows, python=False))
    form = draw(st.sampled_from(["jsonl", "jsonl", "csv", "tsv"]))
    content = _lines(rows) if form == "jsonl" else _table(rows, "\t" if form == "tsv" else ",")
    if draw(st.integers(0, 2)) == 0:
        content, change = changed_text(draw, content)
        changes.append(change)
    data = content.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(data)))
        data = (
            data[:at]
            + draw(st.sampled_from([b"\xff", b"\x00", b"\xef\xbb\xbf", b"\r", b'"', b"\n\n", b"PAR1"]))
            + data[at:]
        )
        changes.append("byte")
    return Data(kind, f"train.{form}", data, tuple(changes))


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows]))


def _table(rows: Any, delimiter: str) -> str:
    mappings = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    columns = list(dict.fromkeys(key for row in mappings for key in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    with contextlib.suppress(csv.Error):
        writer.writerow(columns)
        writer.writerows([row.get(column) for column in columns] for row in mappings)
    return buffer.getvalue()


def data_outcome(given: Data) -> str:
    """What came of a file of rows: read and encoded, or refused."""
    with calm(), tempfile.TemporaryDirectory() as place:
        (Path(place) / given.name).write_bytes(given.content)
        (Path(place) / "validation.jsonl").write_text(_lines(rows_of(given.kind, 4, evaluation=True)))
        task = TaskConfig(
            name="tiny", kind=given.kind, data_dir=place, selection="none", **{"max_length": 16, **TASKS[given.kind]}
        )
        return _encoded(task, Path(place))
