"""The paper's table as CSV, in full precision, with what papers published beside our own."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from unipet.report.paper import Cell, PaperTable
from unipet.report.published import Beside


def wide_csv(table: PaperTable) -> str:
    """One line per method, base model and budget; per task mean, std, seeds, standing and flags; and what papers published,
    on our scale, also of methods that were not run here. Full precision, as recorded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    parts: dict[str, Callable[[Cell], object]] = {
        "": lambda cell: cell.mean,
        " std": lambda cell: cell.std,
        " seeds": lambda cell: cell.seeds,
        " standing": lambda cell: cell.standing,
        " flags": lambda cell: ", ".join(flag.count for flag in cell.flags),
    }
    tasks = [f"{one.task} {one.metric}".strip() for one in table.columns]
    beside = {one.at: one for one in table.published}
    papers = list(dict.fromkeys(one.number.key[1:] for one in table.published))
    told: dict[str, Callable[[Beside], object]] = {
        " ours": lambda one: one.mean,
        " published": lambda one: one.number.value,
        " published std": lambda one: one.number.std,
        " ours - published": lambda one: one.difference,
        " published note": lambda one: one.why,
    }
    writer.writerow(
        ["method", "variant", "model", "budget", "size", "trainable", "percent"]
        + [t + p for t in tasks for p in parts]
        + [f"{task} {metric}{p}" for task, metric in papers for p in told]
    )

    def published(label: str, model: str, budget: str, method: str) -> list[object]:
        values: list[object] = []
        for task, metric in papers:
            one = beside.get((label, model, budget, (method, task, metric)))
            values += ["" if one is None or (value := get(one)) is None else value for get in told.values()]
        return values

    for block in table.blocks:
        for line in block.lines:
            row: list[object] = [line.method, line.variant, block.model, block.budget]
            row += ["/".join(map(str, each)) for each in (line.sizes, line.trainable, line.percent)]
            for column in table.columns:
                cell = line.cells.get(column)
                row += ["" if cell is None or (value := get(cell)) is None else value for get in parts.values()]
            writer.writerow(row + published(line.label, block.model, block.budget, line.method))
    for method in dict.fromkeys(one.number.method for one in table.published if not one.label):
        writer.writerow(
            [method, "", "", "", "", "", "", *[""] * len(tasks) * len(parts), *published("", "", "", method)]
        )
    return buffer.getvalue()
