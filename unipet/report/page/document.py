"""The page as one file: the parts in their order, the styles and scripts inside it, and a policy that allows no others."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.files import utf8
from unipet.report.aggregate import named
from unipet.report.averages import Averages
from unipet.report.averages import averages as averages_of
from unipet.report.cases import study
from unipet.report.collect import Entry
from unipet.report.comparing import Group
from unipet.report.contrasts import Contrast
from unipet.report.effect_rows import Effect
from unipet.report.effect_rows import effects as effects_of
from unipet.report.page.chart_data import Rows
from unipet.report.page.charts import Drawn, charts
from unipet.report.page.comparison_table import comparison_table
from unipet.report.page.comparisons import Comparison, comparisons_of
from unipet.report.page.composition import compositions
from unipet.report.page.dimensions import average_tables, contrast_table, effect_tables, pooled_tables
from unipet.report.page.experts import expert_tables, expert_uses
from unipet.report.page.learning import curve_tables, measures
from unipet.report.page.methods import methods
from unipet.report.page.overview import counts, notices, surroundings
from unipet.report.page.rendering import MISSING, Table, render
from unipet.report.page.runs import failures, left_out, run_data, run_labels, single_runs, unlisted
from unipet.report.page.scores import score_table, verdicts
from unipet.report.page.trade_offs import cost_tables, costless, costs_of_charts
from unipet.report.published.beside import BESIDE, PUBLISHED, Beside, setting_notes
from unipet.report.tuning import Curve, curve_cells

HERE = Path(__file__).resolve().parent
PARTS = (
    ("table", "Comparison"), ("published", "Published"), ("scores", "Scores"), ("trade-offs", "Cost"),
    ("learning", "Learning"), ("experts", "Experts"), ("dimensions", "Dimensions"),
    ("averages", "Over tasks"), ("tuning", "Tuning effort"), ("methods", "Methods"), ("failures", "Without a score"), ("runs", "Any two runs"),
)  # fmt: skip
LIMIT = 3_000_000  # bytes of the whole page
#: (points of each measure's curves, compositions drawn): all that a page below the limit has room for.
DETAIL = ((12_000, 60), (4_000, 20), (1_000, 5))


def page(
    entries: Sequence[Entry],
    groups: Sequence[Group] = (),
    stamp: str = "",
    published: Sequence[Beside] = (),
    progress: Sequence[str] = (),
    tuning: Sequence[Curve] = (),
    effects: Sequence[Effect] | None = None,
    contrasts: Sequence[Contrast] = (),
    averages: Sequence[Averages] | None = None,
) -> str:
    """The whole page. `groups`: what was compared before. `stamp`: the version that a live page asks about.
    `published`: papers' numbers beside ours. `progress`: how far running sweeps are.
    `tuning`: the curves of searches. `effects`, `averages`: None where nobody has made them yet.

    Raises `UnipetError` where Jinja2, Altair or vl-convert is missing, or a predictions.jsonl is damaged.
    """
    comparisons = sorted(comparisons_of(entries, groups), key=lambda comparison: -len(comparison.scored))
    compared = [comparison.verdict for comparison in comparisons if comparison.verdict is not None]
    effects = effects_of(study(compared)) if effects is None else effects
    averages = averages_of(compared) if averages is None else averages
    content = _content(entries, comparisons, published, effects)
    content |= {"contrasts": contrast_table(contrasts), "averages": average_tables(averages)}
    single = single_runs(entries, comparisons)
    content |= {"tuning": curve_tables_of(tuning), "notices": [*progress, *notices(comparisons)]}
    content |= {"run_labels": run_labels(single, comparisons), "left_out": left_out(entries, single)}
    composed, runs = compositions(comparisons), run_data(single)
    for points, drawings in DETAIL:
        drawn = charts(comparisons, points, effects, averages, tuning)
        shown = {
            "costs": costs_of_charts(drawn),
            "costless": costless(comparisons, drawn),
            "cost_tables": cost_tables(comparisons, drawn),
            "measures": measures(drawn),
            "curve_tables": curve_tables(comparisons, drawn),
            "methods": methods(composed, drawings),
            "drawings": drawings,
            "undrawn": sum(map(len, composed.values())) > drawings,
        }
        absent = {
            "experts": not (content["expert_tables"] or content["expert_uses"]),
            "published": not published,
            "tuning": not tuning,
            "averages": not averages,
            "trade-offs": not shown["costs"],
        }
        parts = [part for part in PARTS if not absent.get(part[0])]
        data = {"charts": {name: packed(chart) for name, chart in drawn.items()}, "runs": runs, "stamp": stamp}
        html = document("page.html", title_of(entries), data, parts, **content, **shown)
        if len(utf8(html)) < LIMIT:
            break
    return html


def _content(
    entries: Sequence[Entry],
    comparisons: Sequence[Comparison],
    published: Sequence[Beside],
    effects: Sequence[Effect],
) -> dict[str, object]:
    """What the parts of the page show at every level of detail."""
    changes = effect_tables(effects, comparisons)
    shown = {table.group for table in changes}
    beside = Table(PUBLISHED, BESIDE, [number.texts() for number in published], (4, 5, 6, 7))
    return {
        "comparisons": comparisons,
        "counts": counts(entries, comparisons),
        "surroundings": surroundings(entries),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "comparison_table": comparison_table(comparisons),
        "published": beside if published else None,
        "published_notes": setting_notes(published),
        "score_tables": [score_table(comparison) for comparison in comparisons],
        "verdicts": verdicts(comparisons),
        "effect_tables": changes,
        "expert_tables": expert_tables(comparisons),
        "expert_uses": expert_uses(comparisons),
        "pooled_tables": pooled_tables(effects),
        "without_pairs": [comparison.id for comparison in comparisons if comparison.id not in shown],
        "failures": failures(entries),
        "unlisted": unlisted(entries),
    }


def curve_tables_of(tuning: Sequence[Curve]) -> list[Table]:
    """A table for each task, base model and budget."""
    return [Table(title, heads, rows, range(1, len(heads))) for title, heads, rows in curve_cells(tuning)]


def title_of(entries: Sequence[Entry]) -> str:
    """What is compared, in a line."""
    methods = sorted({named(entry.record.method) for entry in entries})
    tasks = sorted({named(entry.record.task) for entry in entries})
    compared = methods[0] if len(methods) == 1 else f"{len(methods)} methods"
    return f"{compared} on {', '.join(tasks) if len(tasks) < 4 else f'{len(tasks)} tasks'}"


def message(text: str, stamp: str) -> str:
    """A live page that has nothing to show yet, and why."""
    data = {"charts": {}, "runs": {}, "stamp": stamp}
    return document("waiting.html", "Waiting for records", data, (), text=text)


def document(
    template: str, title: str, data: dict[str, Any], parts: Sequence[tuple[str, str]], **content: object
) -> str:
    """The template with style, data, scripts and links to its parts; its policy allows no other source of anything."""
    scripts = [bundle(), (HERE / "page.js").read_text(encoding="utf-8")]
    asks = "'self'" if data["stamp"] else "'none'"  # a live page asks about its version
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"connect-src {asks}; script-src {' '.join(map(hashed, scripts))}"
    )
    return render(
        template,
        title=title,
        policy=policy,
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        parts=parts,
        # "<" is written as an escape, so that no text can end the element.
        data=json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        scripts=scripts,
        **content,
    )


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script. Raises `UnipetError` where vl-convert is missing."""
    try:
        import vl_convert
    except ImportError:
        raise UnipetError(MISSING) from None
    # In a block its names stay its own; a closing tag inside a string would end the element.
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    return "{" + script + "}"


def hashed(script: str) -> str:
    """The source expression of a policy that allows this very script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(utf8(script)).digest()).decode()}'"


def packed(drawn: Drawn) -> dict[str, Any]:
    """A chart for page.js: its rows column by column, every text once."""
    return {"spec": drawn.spec, **columns(drawn.rows)}


def columns(rows: Rows) -> dict[str, Any]:
    """A row is a list in the order of `fields`; in a field of `texts` it holds the number of a word."""
    fields = list(dict.fromkeys(key for row in rows for key in row))
    words: dict[str, int] = {}
    texts = [field for field in fields if any(isinstance(row.get(field), str) for row in rows)]
    coded = [
        [words.setdefault(str(row.get(field)), len(words)) if field in texts else row.get(field) for field in fields]
        for row in rows
    ]
    return {"fields": fields, "texts": texts, "words": list(words), "rows": coded}
