"""What a measurement of speed leaves: CSV and JSON, a figure, and the table between two markers of docs/performance.md."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
#: The columns of the CSV, in order; a cell that was not measured is empty.
COLUMNS = (
    *("model", "batch", "length", "method", "peer", "phase", "parameters", "rounds"),
    *(f"{side}_ms{end}" for side in ("floor", "ours", "peer") for end in ("", "_low", "_high")),
    *(f"{side}_ratio{end}" for side in ("ours", "peer") for end in ("", "_low", "_high")),
    *(f"ours_peer{end}" for end in ("", "_low", "_high")),
    *("floor_mib", "ours_mib", "peer_mib"),
)


def about(command: str, seed: int, load_before: Sequence[float]) -> dict[str, Any]:
    """What a result depends on besides the methods."""
    import torch

    from unipet.runs.versions import now, versions

    found = versions().to_dict() | {"peft": metadata.version("peft")}
    if torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
    loads = {"load_average_before": list(load_before), "load_average_after": list(os.getloadavg())}
    return {"command": command, "seed": seed, "measured": now(), **loads, "versions": found}


def write(place: Path, name: str, content: Mapping[str, Any]) -> None:
    """`name`.json and `name`.csv in `place`."""
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with (place / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in content["rows"]:
            writer.writerow({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})


def figure(place: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """`name`.png and `name`.pdf in `place`: training time beside the floor, a panel per base model. False without
    matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    training = [row for row in rows if row["phase"] == "training"]
    panels = list(dict.fromkeys((row["model"], row["length"]) for row in training))
    most = max(sum((row["model"], row["length"]) == panel for row in training) for panel in panels)
    drawn = Figure(figsize=(4.5 * len(panels), 1.2 + 0.24 * most), layout="constrained")
    for axes, panel in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        own = [row for row in training if (row["model"], row["length"]) == panel][::-1]
        for side, mark, colour in (("ours", "o", "tab:blue"), ("peer", "x", "tab:orange")):
            there = [(at, row) for at, row in enumerate(own) if f"{side}_ratio" in row]
            middle = [row[f"{side}_ratio"] for _, row in there]
            below = [row[f"{side}_ratio"] - row[f"{side}_ratio_low"] for _, row in there]
            above = [row[f"{side}_ratio_high"] - row[f"{side}_ratio"] for _, row in there]
            label = "unipet" if side == "ours" else "peft, or plain torch"
            axes.errorbar(middle, [at for at, _ in there], xerr=[below, above], fmt=mark, color=colour, label=label)
        axes.axvline(1.0, color="grey", linewidth=0.8)
        axes.set_yticks(range(len(own)), [row["method"] for row in own], fontsize=8)
        axes.set_title(f"{panel[0]}, {own[0]['batch']} x {panel[1]}", fontsize=9)
        axes.set_xlabel("training step / floor", fontsize=8)
        axes.legend(fontsize=7)
    drawn.savefig(place / f"{name}.png", dpi=130)
    drawn.savefig(place / f"{name}.pdf", metadata={"CreationDate": None})
    return True


def table(content: Mapping[str, Any]) -> str:
    """The rows as Markdown, a table per base model and phase, after a line that says with what they were measured."""
    versions, machine = content["versions"], content["versions"]["machine"]
    loads = f"{content['load_average_before'][0]:.1f} before, {content['load_average_after'][0]:.1f} after"
    parts = [
        f"Made by `{content['command']}` on {content['measured'][:10]}: {machine['device']}, {machine['threads']} threads, "
        f"torch {versions['torch']}, transformers {versions['transformers']}, peft {versions['peft']}, "
        f"load average {loads}{', freed memory is kept' if content.get('freed_memory_kept') else ''}."
    ]
    rows = content["rows"]
    for group in dict.fromkeys((row["model"], row["batch"], row["length"], row["phase"]) for row in rows):
        own = [row for row in rows if (row["model"], row["batch"], row["length"], row["phase"]) == group]
        model, batch, length, phase = group
        parts.append("\n".join([f"{model}, {phase}, {batch} x {length} tokens", "", *_lines(own, phase == "training")]))
    parts.append(beside_peft(rows))
    if content["failures"]:
        parts.append("Not measured: " + "; ".join(content["failures"]) + ".")
    return "\n\n".join(parts)


def _is_compared(row: Mapping[str, Any]) -> bool:
    """Whether it says how fast a method is beside peft: merged, both are the plain base model."""
    return row["peer"] == "peft" and "ours_peer" in row and row["phase"] != "merged evaluation"


def is_slower(row: Mapping[str, Any]) -> bool:
    """Whether a method is slower than peft's: the interval of their ratio lies above 1 whole."""
    return _is_compared(row) and row["ours_peer_low"] > 1


def beside_peft(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows are faster than peft's and how many slower, and which are slower or need more memory."""
    both = [row for row in rows if _is_compared(row)]
    faster = sum(row["ours_peer_high"] < 1 for row in both)
    slower = [
        f"{row['method']} in {row['phase']} on {row['model']} ({row['ours_peer']:.3f}, {row['ours_peer_low']:.3f} to "
        f"{row['ours_peer_high']:.3f})"
        for row in filter(is_slower, both)
    ]
    larger = [
        f"{row['method']} on {row['model']} ({row['ours_mib'] - row['peer_mib']:.2f} MiB)"
        for row in both
        if row.get("peer_mib") and row["ours_mib"] - row["peer_mib"] >= 0.005
    ]
    counts = f"Of {len(both)} rows beside peft, merged evaluation aside, unipet is faster in {faster} (the interval lies below 1 "
    counts += f"whole) and slower in {len(slower)} (above): {'; '.join(slower) or 'none'}. Of rows that are equally fast, one in "
    counts += "40 would lie above by chance."
    return f"{counts} More memory than peft: {'; '.join(larger) or 'none'}."


def summary(content: Mapping[str, Any]) -> str:
    """The training of MiniLM for the README: what both have, first in the order of interest."""
    training = [row for row in content["rows"] if row["model"] == "MiniLM" and row["phase"] == "training"]
    lines = [
        "| method | unipet, step / floor | peft, step / floor | MiB, unipet | MiB, peft |",
        "|---|---|---|---|---|",
    ]
    for row in [row for row in training if row["peer"] == "peft"][:8]:
        cells = [f"{row[f'{side}_ratio']:.2f}" for side in ("ours", "peer")]
        cells += [f"{row[f'{side}_mib']:.0f}" for side in ("ours", "peer")]
        lines.append("| " + " | ".join([row["method"], *cells]) + " |")
    return "\n".join(lines)


def _lines(rows: Sequence[Mapping[str, Any]], memory: bool) -> list[str]:
    ends = " MiB, ours | MiB, peer |" if memory else ""
    lines = [
        "| method | floor, ms | ours / floor | peer / floor | ours / peer | peer |" + ends,
        "|---|---|---|---|---|---|" + "---|---|" * memory,
    ]
    for row in rows:
        cells = [row["method"], f"{row['floor_ms']:.1f}", ratio(row, "ours_ratio"), ratio(row, "peer_ratio")]
        cells += [ratio(row, "ours_peer"), row["peer"] or "-"]
        if memory:
            cells += [f"{row['ours_mib']:.0f}", f"{row['peer_mib']:.0f}" if "peer_mib" in row else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def ratio(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    """A ratio with what it lies between, or a dash."""
    if name not in row:
        return "-"
    middle, low, high = (f"{row[name + end]:.{digits}f}" for end in ("", "_low", "_high"))
    return f"{middle} ({low}-{high})"


def put_into(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of `name`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise SystemExit(f"{page.name}: the markers {begin} and {end} are missing")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
