"""Configurations read part by part say what the whole says, and what is no sum of parts is read as a whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from unipet.calculus import yaml_reader
from unipet.calculus.library import load_method
from unipet.calculus.yaml_reader import read_yaml, write_yaml
from unipet.config import RunConfig, conf_dir
from unipet.errors import UnipetError
from unipet.runs.config_blocks import ConfigReader

TEXTS = [
    "a: 1\nb:\n  c: x\n",
    "# fitted to the budget: k=3\na: 1\n",
    "a: 1\n\n# between\nb:\n- 1\n- {x: y}\nc: [1,\n  2]\n",
    "a: 'two\n  lines'\nb: |\n  text: not a key\n  more\nc: >-\n  folded\n  text\n",
    "a: &anchor {x: 1}\nb: *anchor\n",  # one part leads into another
    "a: 'it\nb: goes on'\n",  # a text over lines that look like keys
    'a: "it\nb: goes on"\n',
    "a: {x: 1,\nb: 2}\n",
    "---\na: 1\n",
    "a: 1\n...\n",
    "? a\n: 1\n",
    '"a": 1\n',
    "a: .nan\nb: 010\nc: no\nd: 1e-3\ne: null\n",
    "a:\n",
    "a: 1",  # no end of the last line
    "- 1\n- 2\n",
    "text\n",
    "",
    "\ufeffa: 1\n",
    "a: x # comment\nb: 'y # none'\n",
    "a: 1\r\nb: 2\r\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_parts_say_what_the_whole_says(tmp_path: Path, text: str) -> None:
    path, reader = tmp_path / "config.yaml", ConfigReader()
    path.write_text(text, encoding="utf-8", newline="")
    whole = read_yaml(path)
    for _ in range(2):  # the second time from what is known
        assert repr(reader.read(path)) == repr(whole if isinstance(whole, dict) else {})


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "a: 1\nb: [\n", "a: 1\nb: *nowhere\n", "a: !!python/object x\n", "a: 1\n\tb: 2\n"]
)
def test_an_error_is_that_of_the_whole_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UnipetError) as expected:
        read_yaml(path)
    with pytest.raises(UnipetError) as caught:
        ConfigReader().read(path)
    assert str(caught.value) == str(expected.value)


def test_every_method_in_a_configuration_of_ours(tmp_path: Path) -> None:
    path, reader = tmp_path / "config.yaml", ConfigReader()
    for file in sorted((conf_dir() / "method").glob("*.yaml")):
        config = RunConfig(method=load_method(file.stem).to_dict())
        path.write_text(write_yaml(asdict(config)), encoding="utf-8")
        assert reader.read(path) == read_yaml(path) and list(reader.read(path)) == list(read_yaml(path))


def test_what_was_read_before_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    real = yaml_reader.parse_yaml
    monkeypatch.setattr(
        "unipet.runs.config_blocks.parse_yaml", lambda text, name: parsed.append(text) or real(text, name)
    )
    reader = ConfigReader()
    for seed in range(3):
        path = tmp_path / f"{seed}.yaml"
        path.write_text(f"method:\n  name: m\noptim: {{lr: 0.1}}\nseed: {seed}\n")
        assert reader.read(path) == {"method": {"name": "m"}, "optim": {"lr": 0.1}, "seed": seed}
    assert list(filter(None, parsed)) == [
        "method:\n  name: m\n",
        "optim: {lr: 0.1}\n",
        "seed: 0\n",
        "seed: 1\n",
        "seed: 2\n",
    ]
