"""A file appears whole or not at all, whatever fails on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unipet.errors import UnipetError
from unipet.output.files import (
    ABANDONED_S,
    LONGEST,
    as_file_name,
    file_name,
    remove_leftovers,
    replacing,
    write_bytes_atomic,
)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes_atomic(path, b"before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_bytes_atomic(path, b"after")
    assert [one.name for one in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"before"


WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from unipet.output.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", WRITES_AND_DIES, str(tmp_path / "file")])
    assert ended.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    elsewhere = tmp_path / ".file.01234567-1.tmp"  # of another machine on a shared file system
    elsewhere.write_bytes(b"half")
    (tmp_path / ".other.tmp").write_bytes(b"the user's own")
    with replacing(tmp_path / "mine") as file:
        file.write(b"whole")
        remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [elsewhere.name, ".other.tmp", "mine"]
    os.utime(elsewhere, (0, elsewhere.stat().st_mtime - ABANDONED_S - 60))
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "not there")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp", "mine"]


LEADING_ELSEWHERE = [
    "../../x",
    "/etc/x",
    "a/b",
    "a\\b",
    "..",
    ".",
    ".hidden",
    "C:x",
    "C:\\x",
    "~/../x",
    "",
    "  ",
    " x",
    "x ",
    "x.",
    "a\x00b",
]
LEADING_ELSEWHERE += [
    "a\nb",
    "a\x1b[31m",
    "a\u202eb",
    "a\u2028b",
    "\ud800",
    "CON",
    "nul",
    "com1.tsv",
    "LPT\u00b9",
    "a*b",
    "a?b",
    "a|b",
    "<x>",
    'a"b',
]
LEADING_ELSEWHERE += ["x" * (LONGEST + 1), "\u00fc" * (LONGEST // 2 + 1)]


@pytest.mark.parametrize("name", [*LEADING_ELSEWHERE, None, 5, ["x"]], ids=ascii)
def test_what_is_no_files_name(name: object) -> None:
    with pytest.raises(UnipetError, match=r"^task\.submission: .* cannot be a file name: .*Allowed: ") as error:
        file_name(name, "task.submission")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "name", ["STS-B", "MNLI-mm", "r\u00e9sultats 2", "console", "a.b.c", "x" * LONGEST, "-x", "~x"]
)
def test_what_is_a_files_name(name: str, tmp_path: Path) -> None:
    assert file_name(name, "k") == name
    write_bytes_atomic(tmp_path / f"{name}.tsv", b"x")
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.tsv"]


@pytest.mark.parametrize("text", [*LEADING_ELSEWHERE, "lora-sst2-s0-1a2b3c4d", "m" * 1000 + "-1a2b3c4d"], ids=ascii)
def test_any_text_gives_a_files_name(text: str) -> None:
    name = as_file_name(text)
    assert file_name(name, "k") == name and name.isascii()
    assert as_file_name("lora-sst2-s0-1a2b3c4d") == "lora-sst2-s0-1a2b3c4d"
    assert as_file_name("m" * 1000 + "-1a2b3c4d").endswith("-1a2b3c4d"), "what tells runs apart stays"
