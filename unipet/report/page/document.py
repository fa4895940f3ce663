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
from unipet.report.collect import Entry
from unipet.report.comparing import Group
from unipet.report.page.chart_data import Rows
from unipet.report.page.charts import Drawn, charts
from unipet.report.page.comparison_table import comparison_table
from unipet.report.page.comparisons import Comparison, comparisons_of
from unipet.report.page.markup import e, section, table, tag
from unipet.report.page.methods import methods
from unipet.report.page.overview import header, notices
from unipet.report.page.plots import plots
from unipet.report.page.runs import failures, pair, run_data
from unipet.report.published import BESIDE, PUBLISHED, Beside

HERE = Path(__file__).resolve().parent
PARTS = (
    ("table", "Comparison"), ("published", "Published"), ("scores", "Scores"), ("trade-offs", "Cost"),
    ("learning", "Learning"), ("dimensions", "Dimensions"),
    ("methods", "Methods"), ("failures", "Without a score"), ("runs", "Any two runs"),
)  # fmt: skip
LIMIT = 3_000_000  # bytes of the whole page
#: (points of each measure's curves, compositions drawn): all that a page below the limit has room for.
DETAIL = ((12_000, 60), (4_000, 20), (1_000, 5))


def page(
    entries: Sequence[Entry], groups: Sequence[Group] = (), stamp: str = "", published: Sequence[Beside] = ()
) -> str:
    """The whole page. `groups`: what the statistics said already. `stamp`: the version that a live page asks about.
    `published`: papers' numbers beside ours.

    Raises `UnipetError` where Altair or vl-convert is missing, or a predictions.jsonl is damaged.
    """
    comparisons = sorted(comparisons_of(entries, groups), key=lambda one: -len(one.scored))
    for points, drawings in DETAIL:
        html = _detailed(entries, comparisons, stamp, points, drawings, papers(published))
        if len(utf8(html)) < LIMIT:
            break
    return html


def _detailed(
    entries: Sequence[Entry], comparisons: Sequence[Comparison], stamp: str, points: int, drawings: int, beside: str
) -> str:
    drawn = charts(comparisons, points)
    title = title_of(entries)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = [
        header(title, entries, comparisons, now),
        notices(comparisons),
        comparison_table(comparisons),
        beside,
        plots(comparisons, drawn),
        methods(comparisons, drawings),
        failures(entries),
        pair(entries),
    ]
    data = {"charts": {name: packed(one) for name, one in drawn.items()}, "runs": run_data(entries), "stamp": stamp}
    return document(title, "".join(body), data)


def papers(published: Sequence[Beside]) -> str:
    """Papers' numbers beside ours, where there are any."""
    if not published:
        return ""
    shown = table(PUBLISHED, BESIDE, [one.texts() for one in published], (4, 5, 6, 7))
    return section("published", "Published numbers", shown)


def title_of(entries: Sequence[Entry]) -> str:
    """What is compared, in a line."""
    methods, tasks = (sorted({named(entry.record.get(key)) for entry in entries}) for key in ("method", "task"))
    what = methods[0] if len(methods) == 1 else f"{len(methods)} methods"
    return f"{what} on {', '.join(tasks) if len(tasks) < 4 else f'{len(tasks)} tasks'}"


def message(text: str, stamp: str) -> str:
    """A live page that has nothing to show yet, and why."""
    waiting = (
        tag("h1", "Waiting for records")
        + tag("p", e(text), css="empty")
        + tag("p", "", id="live", css="live", role="status")
    )
    return document("Waiting for records", waiting, {"charts": {}, "runs": {}, "stamp": stamp})


def document(title: str, body: str, data: dict[str, Any]) -> str:
    """Head, navigation, body, data and scripts; no other source of anything is allowed."""
    scripts = [bundle(), (HERE / "page.js").read_text(encoding="utf-8")]
    links = "".join(tag("li", tag("a", e(shown), href=f"#{name}")) for name, shown in PARTS if f'id="{name}"' in body)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"connect-src {chr(39)}{'self' if data.get('stamp') else 'none'}{chr(39)}; script-src {' '.join(map(hashed, scripts))}"
    )
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{e(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',
        tag("title", e(title)),
        tag("style", (HERE / "page.css").read_text(encoding="utf-8")),
    ]
    skip = tag("a", "Skip to the comparison", href="#table", css="skip")
    nav = tag("nav", tag("ul", links), css="parts", aria_label="parts of this page")
    # "<" is written as an escape, so that no text can end the element.
    held = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">',
            tag("head", *head),
            "<body>",
            skip,
            nav,
            tag("main", body),
            f'<script type="application/json" id="data">{held}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script. Raises `UnipetError` where vl-convert is missing."""
    try:
        import vl_convert
    except ImportError:
        raise UnipetError(
            "unipet report --html needs Altair and vl-convert for its charts. Install them: pip install 'unipet[report]'."
        ) from None
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
