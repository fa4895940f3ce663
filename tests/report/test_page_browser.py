"""The offline page in headless Chromium: it loads without errors and without a network, sorts, filters, draws, compares."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import EVIL, method, write_run, write_study
from unipet.report.collect import collect
from unipet.report.page.document import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
DRAWN = "html[data-drawn]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium refuses to sandbox itself as root
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("page")
    (root / "page.html").write_text(page(collect(write_study(root / "runs"))), encoding="utf-8")
    return (root / "page.html").as_uri()


class Watched:
    """A tab that remembers what it said and asked for."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.tab = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(address)
        self.tab.wait_for_selector(DRAWN, state="attached", timeout=60_000)

    def methods(self) -> list[str]:
        """The rows of the comparison table that are shown, by their method."""
        names = self.tab.locator("#comparison-table tbody tr:not([hidden]) th a").all_inner_texts()
        return [str(name) for name in names]


@pytest.fixture(scope="module")
def watched(browser: Any, address: str) -> Iterator[Watched]:
    opened = Watched(browser, address, viewport={"width": 1280, "height": 900})
    yield opened
    opened.context.close()


def test_sorting_by_mouse_and_by_keyboard(watched: Watched) -> None:
    tab = watched.tab
    tab.fill("#filter-text", "words")
    assert set(watched.methods()) == {"plain", "later", "strong", "both", EVIL}
    head = tab.locator("#comparison-table thead th", has_text="score").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert watched.methods() == ["both", "strong", "later", "plain", EVIL]
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert watched.methods() == [EVIL, "plain", "later", "strong", "both"]
    trainable = tab.locator("#comparison-table thead th", has_text="trainable")
    trainable.locator("button").click()
    assert watched.methods() == ["both", "strong", "later", "plain", EVIL]
    assert head.get_attribute("aria-sort") == "none"
    tab.fill("#filter-text", "")


def test_filtering_by_text_and_by_budget(watched: Watched) -> None:
    tab = watched.tab
    tab.fill("#filter-text", "STRONG none")
    assert watched.methods() == ["strong"] and tab.inner_text("#filter-count") == "1 of 9 rows"
    tab.fill("#filter-text", "")
    tab.select_option("[data-filter=budget]", "steps_100")
    assert sorted(watched.methods()) == ["both", "later", "plain", "strong"]
    tab.select_option("[data-filter=budget]", "")
    assert len(watched.methods()) == 9


def test_charts_follow_the_chosen_comparison(watched: Watched) -> None:
    tab = watched.tab
    titles = tab.locator("#comparison option").all_inner_texts()
    seen = {}
    for title, value in zip(titles, ("g1", "g0"), strict=True):
        tab.select_option("#comparison", value)
        tab.wait_for_timeout(400)
        seen[title.split(" ")[0]] = tab.locator("[data-chart=scores] svg").text_content()
        assert tab.locator(f"#scores [data-group={value}]").first.is_visible()
    assert EVIL[:20] in seen["words"] and EVIL[:20] not in seen["made_up"]
    tab.select_option("#comparison", "g1")


def test_the_switches_change_what_is_drawn(watched: Watched) -> None:
    tab = watched.tab
    for place, part, shown in (("trade-offs", "time", "training time"), ("learning", "gradient norm", "gradient norm")):
        tab.locator(f"#{place} fieldset label", has_text=part).click()
        tab.wait_for_timeout(400)
        assert shown in tab.locator(f"#{place} .chart svg").text_content()
        assert tab.locator(f"#{place} .chart path").count() > 3
    tab.select_option("#highlight", "strong")
    assert tab.locator("#dimensions .chart svg").count() == 1


def test_two_runs_are_compared_and_a_method_is_shown_alone(watched: Watched) -> None:
    tab = watched.tab
    runs = tab.locator("#run-A option").all_inner_texts()
    first, other = (
        next(at for at, run in enumerate(runs) if f": {name} · words" in run) for name in ("plain", "strong")
    )
    tab.select_option("#run-A", str(first))
    tab.select_option("#run-B", str(other))
    cells = tab.locator("#pair tbody tr").all_inner_texts()
    differing = {cell.split("\t")[0].strip(): cell.split("\t")[1:] for cell in cells}
    assert differing["method.insertions.ffn.scaling.value"] == ["1.0", "4.0"] and "optim.lr" not in differing
    tab.locator(".chips a", has_text="later").click()
    assert [one.inner_text() for one in tab.locator("article.method:visible h3").all()] == ["later"]
    assert tab.locator("article.method:visible svg.layer").is_visible()


def test_it_loads_without_errors_and_asks_for_nothing(watched: Watched, address: str) -> None:
    """Last of those that share the tab: whatever they did is covered."""
    assert watched.said == []
    assert [url for url in watched.asked if url.split("#")[0] != address and not url.startswith("data:")] == []
    assert watched.tab.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_on_a_phone_in_both_schemes(browser: Any, address: str, scheme: str) -> None:
    opened = Watched(browser, address, viewport={"width": 375, "height": 812}, color_scheme=scheme)
    tab = opened.tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
    for place in tab.locator(".chart:visible").all():
        assert place.locator("svg").first.bounding_box()["width"] <= 345
    paper, ink = (
        [int(one) for one in tab.evaluate(f"getComputedStyle(document.body).{what}").strip("rgb()").split(",")]
        for what in ("backgroundColor", "color")
    )
    assert (sum(paper) > sum(ink)) == (scheme == "light")
    label = tab.locator("[data-chart=scores] svg text").first
    assert label.evaluate("one => getComputedStyle(one).fill") == f"rgb({', '.join(map(str, ink))})"
    assert opened.said == []
    opened.context.close()


def test_without_scripts_the_page_still_says_everything(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(address)
    assert tab.locator("#comparison-table tbody tr").count() == 9
    assert tab.locator("svg.layer:visible").count() >= 4
    context.close()


def test_a_live_page_shows_a_run_that_appears(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unipet.report.page import serve

    monkeypatch.setattr(serve, "REST", 0.0)
    write_run(tmp_path, method("first"))
    with serve.server(tmp_path, 0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        opened = Watched(browser, f"http://127.0.0.1:{running.server_port}/")
        try:
            assert opened.methods() == ["first"]
            opened.tab.fill("#filter-text", "s")
            opened.tab.select_option("#run-B", "0")
            write_run(tmp_path, method("second"))
            opened.tab.locator("#comparison-table th a", has_text="second").wait_for(timeout=30_000)
            assert opened.tab.input_value("#filter-text") == "s"  # what was chosen outlives the new version
            assert opened.said == []
        finally:
            opened.context.close()
            running.shutdown()
            thread.join()
