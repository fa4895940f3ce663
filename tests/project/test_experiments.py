"""The files under experiments/ are tests' inputs, too: rows, sweeps, scripts and published numbers belong together."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml

import unipet
from tests.support.checkout import ROOT
from tests.support.running import said_id, stand_in
from unipet.calculus.library import load_method
from unipet.calculus.method_files import method_names
from unipet.cli.main import main
from unipet.compose.parse_run_config import check_run_config
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.report.published.asked import read_published
from unipet.runs.record import Record, blank_record

EXPERIMENTS = ROOT / "experiments"
ROWS = {path.stem: path for path in sorted(EXPERIMENTS.glob("*/method/*.yaml"))}
SWEEPS = sorted(EXPERIMENTS.glob("*/experiment/*.yaml"))
SCRIPTS = sorted(EXPERIMENTS.glob("*/*.sh"))
BART_LARGE = {
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "architectures": ["BartForConditionalGeneration"],
}
D, PAIRS = 1024, 12  # width and (encoder, decoder) layer pairs of BART-large


def formula(name: str) -> int | None:
    """He et al. 2022, Appendix B: trained tensors without biases and norms, 3 attention and 2 feed-forward blocks a pair."""
    per_block = {"prefix_l": 3 * 2, "prefix_ungated_l": 3 * 2, "mh_pa_attn_l": 3 * 2, "lora_attn_r": 3 * 4}
    per_block |= {"sa_attn_r": 3 * 2, "pa_attn_r": 3 * 2, "sa_ffn_r": 2 * 2, "pa_ffn_r": 2 * 2, "lora_ffn_r": 2 * 10}
    found = re.fullmatch(r"([a-z_]+_[lr])(\d+)(_s1)?", name)
    if found is None or found[1] not in per_block:
        return None
    return per_block[found[1]] * int(found[2]) * D * PAIRS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_size_of_the_papers_formula(name: str) -> None:
    method = load_method(ROWS[name])
    assert method.name == name
    params = unipet.describe(method, transformers.BartConfig(**BART_LARGE)).to_dict()["params"]
    expected = formula(name)
    if expected is not None:  # the rest is biases, and the norms of attention adapters
        assert 0 <= params["merged"] - expected <= 2 * PAIRS * (1024 + 3 * 2 * D) + 3 * PAIRS * 2 * D


def test_the_formula_covers_most_rows_of_the_paper() -> None:
    rows = [name for name, path in ROWS.items() if path.parts[-3].startswith("unified_view")]
    assert sum(formula(name) is not None for name in rows) > 2 / 3 * len(rows) > 20


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_composes_its_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Composed for the first and the last row, one seed and one task: the other rows are the same files' business."""
    ran: list[RunConfig] = []

    def train(config: RunConfig, directory: Path) -> Record:
        check_run_config(config)
        ran.append(config)
        return replace(blank_record(config, str(config.method["name"]), said_id(config)), status="skipped")

    monkeypatch.chdir(tmp_path)
    stand_in(monkeypatch, train)
    swept = {
        key: str(of).split(",") for key, of in yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"].items()
    }
    assert len(set(swept["method"])) == len(swept["method"]) and set(swept["method"]) <= {*ROWS, *method_names()}
    ends = [swept["method"][0], swept["method"][-1]]
    fewer = [f"method={','.join(ends)}", *(f"{key}={swept[key][0]}" for key in swept if key != "method")]
    assert main(["train", "--config-dir", str(path.parent.parent), f"experiment={path.stem}", *fewer]) in (0, 1)
    assert [str(config.method["name"]) for config in ran] == ends
    assert len({said_id(config) for config in ran}) == 2


@pytest.mark.parametrize(
    "path", [path for path in SCRIPTS if "--published" in path.read_text()], ids=lambda path: path.parent.name
)
def test_a_script_shows_published_numbers_of_rows_that_exist(path: Path) -> None:
    for line in path.read_text().splitlines():
        if "--published" in line:
            words = shlex.split(line)
            numbers = read_published([words[words.index("--published") + 1]])
            assert numbers and {number.method for number in numbers} <= {*ROWS, *method_names()}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_parses_and_says_how_it_is_called(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, timeout=20).returncode == 0
    assert f"bash experiments/{path.parent.name}/{path.name}" in path.read_text()


@pytest.mark.parametrize(
    "path", [p for p in SCRIPTS if "--config-dir" in p.read_text()], ids=lambda path: path.parent.name
)
def test_a_script_asks_for_what_is_there(path: Path) -> None:
    """Its folders, sweeps and rows; overrides of its own must be of rows that have them."""
    for line in path.read_text().splitlines():
        if not line.startswith("unipet train"):
            continue
        words = shlex.split(line)
        directory = EXPERIMENTS.parent / words[words.index("--config-dir") + 1]
        given = dict(word.split("=", 1) for word in words if re.match(r"[a-z_.]+=", word))
        assert (directory / "experiment" / f"{given['experiment']}.yaml").is_file()
        for name in given.get("method", "").split(",") if "method" in given else ():
            method = load_method(ROWS[name])
            for key, value in given.items():
                if key.startswith("method."):
                    _set(method.to_dict(), key.split(".")[1:], value)


def _set(content: dict[str, Any], keys: list[str], value: str) -> None:
    at = content
    for key in keys[:-1]:
        at = at[key]
    assert keys[-1] in at
    at[keys[-1]] = value
    try:
        load_method(content)
    except UnipetError as error:
        pytest.fail(str(error))
