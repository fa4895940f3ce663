"""`unipet describe task=NAME`: the data as the model will see them, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.output.terminal import plain, print_json


def describe_task(config: RunConfig, as_json: bool, png: Path | None) -> None:
    """Print the summary; with `png`, draw the histograms of lengths to that file."""
    from unipet.runs.base_model import load_tokenizer
    from unipet.tasks import cache_directory, encode, load_task
    from unipet.tasks.summary import summary, text

    data = load_task(config.task)
    tokenizer = load_tokenizer(config.model)
    encoded = encode(data, tokenizer, config.task, cache_directory(config.runs_dir))
    found = summary(config.task, data, encoded, tokenizer)
    if png is not None:
        draw(found, png)
        found["png"] = str(png)
    if as_json:
        print_json(found)
    else:
        print(text(found))
    if png is not None and not as_json:
        print(f"\nlengths drawn in {png}")


def draw(summary: dict[str, Any], png: Path) -> None:
    """Draw the histograms of lengths. Raises `UnipetError` if matplotlib is missing or `png` cannot be written."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UnipetError("--png: needs matplotlib. Run: pip install 'unipet[plots]'") from None
    named = {f"{split}": bins for split, bins in summary["lengths"].items()}
    named |= {f"{split} targets": bins for split, bins in summary.get("target_lengths", {}).items()}
    figure = Figure(figsize=(4 * len(named), 3), layout="constrained")  # without pyplot: no windows, no global state
    for place, (name, bins) in zip(figure.subplots(1, len(named), squeeze=False)[0], named.items(), strict=True):
        place.bar([low for low, _, _ in bins], [n for _, _, n in bins], [b - a + 1 for a, b, _ in bins], align="edge")
        place.set(title=plain(f"{summary['task']}: {name}"), xlabel="tokens", ylabel="examples")
        place.title.set_parse_math(False)  # a $ in a name is not mathematics
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(png, format="png", dpi=120, metadata={"Software": f"matplotlib {matplotlib.__version__}"})
    except OSError as error:
        raise UnipetError(f"--png: {png} cannot be written ({error.strerror or error}). Choose another file.") from None
