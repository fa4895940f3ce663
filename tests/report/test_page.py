"""The offline page without a browser: what its charts, drawings and commands say, and that no text becomes markup."""

from __future__ import annotations

import builtins
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import method, sequential, write_run, write_study
from tests.support.planted import planted
from tests.support.running import resolved, said_id
from unipet.cli.commands import report as report_command
from unipet.config import LauncherConfig
from unipet.errors import UnipetError
from unipet.report.cases import study as cases
from unipet.report.collect import Entry, collect
from unipet.report.comparing import compare
from unipet.report.effect_rows import effects
from unipet.report.page import charts as charting
from unipet.report.page import comparisons as comparing
from unipet.report.page import formulas
from unipet.report.page.command import command_of
from unipet.report.page.comparisons import Comparison, comparisons_of
from unipet.report.page.composition import Composed, compositions
from unipet.report.page.curves import curve, thinned
from unipet.report.page.differences import own_values
from unipet.report.page.dimensions import effect_tables
from unipet.report.page.document import bundle, page
from unipet.report.page.layer import layer
from unipet.report.page.names import readable
from unipet.report.page.pareto import front
from unipet.report.page.rendering import TEMPLATES, environment
from unipet.runs import record_index
from unipet.runs.record import InsertionRow, Record
from unipet.runs.sweep_files import RUNNING, JobState, append_index
from unipet.sweeps.directory import Sweep, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.jobs import write_outcome

LIMIT = 3_000_000


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def comparisons(study: Path) -> list[Comparison]:
    return comparisons_of(collect(study))


@pytest.fixture(scope="module")
def html(study: Path) -> str:
    return page(collect(study))


def drawn_layer(composed: Composed) -> str:
    """The layer's drawing as the page has it."""
    macros: Any = environment().get_template("drawing.html").module
    return str(macros.draw(layer(composed)))


def named(comparisons: list[Comparison], task: str) -> Comparison:
    return next(one for one in comparisons if one.task == task)


def test_a_comparison_holds_one_task_model_and_budget(comparisons: list[Comparison]) -> None:
    assert [(one.task, one.budget, len(one.lines)) for one in comparisons] == [
        ("made_up", "steps_100", 4),
        ("words", "none", 5),
    ]
    assert [one.synthetic for one in comparisons] == [True, False]


def test_two_budgets_of_one_name_are_two(tmp_path: Path) -> None:
    for at, steps in enumerate((10, 20)):
        directory = write_run(tmp_path, method("plain"), at)
        config = directory / "config.yaml"
        config.write_text(config.read_text().replace("name: none", f"name: none\n  max_steps: {steps}"))
    assert [one.budget for one in comparisons_of(collect(tmp_path))] == ["none (max_steps 10)", "none (max_steps 20)"]


def test_effects_of_a_comparison_are_in_its_table_and_over_tasks_in_another(study: Path) -> None:
    """plain .60 later .65 strong .70 both .75, the same offset for every seed; on the other task .70 .73 .76 .79."""
    entries = collect(study)
    found = comparisons_of(entries)
    some = effects(cases([comparison.verdict for comparison in found if comparison.verdict is not None]))
    tables = {table.group: table for table in effect_tables(some, found)}
    rows = [row[:4] for row in tables[named(found, "words").id].rows]
    assert [row[:3] for row in rows] == [
        ("form", "parallel → sequential", "+0.0500"),
        ("scaling", "1.0 → 4.0", "+0.1000"),
    ]
    points = charting.charts(found, effects=some)["effects"].rows
    assert [row["difference"] for row in points if row["group"] == named(found, "words").id] == [0.05, 0.05, 0.1, 0.1]
    assert all(row["rest"] == "everything else is the same" for row in points)
    assert "Effects: made_up" in page(entries) and "parallel → sequential" in page(entries)


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    for name, score, trainable in (
        ("cheap", 0.5, 10),
        ("worse", 0.4, 20),
        ("dear", 0.9, 100),
        ("same", 0.9, 200),
        ("twin", 0.5, 10),
    ):
        write_run(tmp_path, method(name), 0, score, trainable=trainable)
    write_run(tmp_path, method("unknown"), 0, 0.99, params={})
    (comparison,) = comparisons_of(collect(tmp_path))
    assert [line.label for line in front(comparison.scored, "parameters")] == ["cheap", "twin", "dear"]


def test_the_front_of_a_metric_where_less_is_better(tmp_path: Path) -> None:
    for name, score, trainable in (("good", 2.0, 100), ("bad", 9.0, 200)):
        scoring = {"higher_is_better": False}
        write_run(tmp_path, method(name), 0, score, trainable=trainable, data={"source": "x", "scoring": scoring})
    (comparison,) = comparisons_of(collect(tmp_path))
    assert [line.label for line in front(comparison.scored, "parameters")] == ["good"]


def test_no_name_lies_over_another() -> None:
    places = [(100_000.0, 0.85), (100_500.0, 0.851), (100_000.0, 0.70), (0.0, 0.5)]
    assert readable(["lora", "adapter", "mam", "head_only"], places, [True, True, False, True]) == [
        "",
        "adapter",
        "mam",
        "head_only",
    ]
    assert readable([], [], []) == []
    assert readable(["one"], [(3.0, 0.5)], [False]) == ["one"]


def test_a_curve_keeps_its_ends_and_leaves_a_half_written_line(tmp_path: Path) -> None:
    directory = write_run(tmp_path, method("a"), steps=500)
    with open(directory / "metrics.jsonl", "a") as file:
        file.write('{"step": 501, "lo')
    (entry,) = collect(tmp_path)
    line = curve(entry, 20)["loss"]
    assert len(line) == 20 and line[0][0] == 1 and line[-1][0] == 500
    assert thinned([(1, 1.0), (2, 2.0)], 8) == [(1, 1.0), (2, 2.0)]


def test_differences_keep_what_not_all_share(study: Path) -> None:
    entries = collect(study)
    shared, own = own_values(entries)
    assert shared > 5 and all("model.name" not in one for one in own)
    assert {one["seed"] for one in own} == {0, 1, 2}


def test_a_command_from_a_configuration_composes_to_the_same_run(tmp_path: Path) -> None:
    """Without a sweep's overrides, the command is found from the configuration; composing it gives the run_id back."""
    import shlex

    from unipet.compose import parse_run_config
    from unipet.compose.composer import composer, plain_values
    from unipet.compose.overrides import plan

    asked = [
        "method=lora",
        "method.insertions.attention.scaling.alpha=8",
        "task=synthetic_stars",
        "optim=full",
        "seed=3",
    ]
    asked += ["budget.max_steps=7", "task.max_train=100", "optim.schedule=constant", "task.text=['a {sentence}']"]
    with composer(None) as compose:
        config = plan(asked, False, compose).config
        entry = Entry(Record(), json.loads(json.dumps(resolved(config))))
        command = shlex.split(command_of(entry))
        assert command[:2] == ["unipet", "train"] and len(command) < 14
        again = plan(command[2:], False, compose).config
    assert said_id(again) == said_id(config)
    assert parse_run_config and plain_values  # the rooms that a command goes through


def test_a_command_is_the_job_s_own_overrides_quoted() -> None:
    entry = Entry(Record(), {}, ("method=x", "task.text=[a b]"))
    assert command_of(entry) == "unipet train method=x 'task.text=[a b]'"
    assert command_of(Entry(Record(), {})) == ""


def test_overrides_and_early_failures_are_found_below_a_root(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "runs", method("a"))
    jobs = tmp_path / "runs" / "sweeps" / "s" / "jobs"
    jobs.mkdir(parents=True)
    failed = {"record": {"status": "failed", "run_id": None, "method": "b"}, "run_dir": None}
    (jobs / "0.json").write_text(json.dumps({"job": 0, "overrides": ["x=1"], "run_dir": f"../../{directory.name}"}))
    (jobs / "1.json").write_text(json.dumps({"job": 1, "overrides": ["x=2"], **failed}))
    found = {entry.record.method: entry for entry in collect(tmp_path / "runs")}
    assert found["a"].overrides == ("x=1",) and found["b"].record.status == "failed"


def test_every_function_and_composition_has_its_formula() -> None:
    from unipet.calculus.composition import COMPOSITIONS
    from unipet.calculus.functions import FUNCTIONS

    assert set(formulas.FUNCTIONS) == set(FUNCTIONS) and set(formulas.COMPOSITIONS) == set(COMPOSITIONS)
    for name, (_, reads) in formulas.FUNCTIONS.items():
        assert FUNCTIONS[name].reads == reads, name


def test_every_shipped_method_is_drawn_at_its_sites() -> None:
    import unipet
    from unipet.calculus.method_files import method_names

    for name in method_names():
        given = json.loads(json.dumps(unipet.load_method(name).to_dict()))
        entry = Entry(Record(method=name, status="ok", score=0.5), {"method": given})
        ((one,),) = compositions(comparisons_of([entry])).values()
        drawn = drawn_layer(one)
        assert drawn.count('class="inserted"') >= len(one.insertions) > 0 or not given["insertions"], name
        assert drawn.count('class="joins"') >= len(one.insertions), name
        assert all(each.equation.startswith("h′ = ") for each in one.insertions)


def test_a_parallel_and_a_sequential_drawing_differ_as_their_methods_do() -> None:
    def drawn(**changes: Any) -> tuple[str, str]:
        ((one,),) = compositions(
            comparisons_of([Entry(Record(method="m"), {"method": method("m", **changes)})])
        ).values()
        return drawn_layer(one), one.insertions[0].equation

    parallel, equation = drawn(scaling={"name": "constant", "value": 4.0})
    later, other = drawn(position=sequential(), composition={"name": "replace"})
    assert parallel != later
    assert equation == "h′ = h + 4·Δ,  Δ = up · φ(down · x)" and other == "h′ = Δ,  Δ = up · φ(down · h)"
    assert "reads x" in parallel and "reads h" in later


def test_alpha_over_rank_is_shown_as_its_number() -> None:
    assert formulas.scale({"name": "alpha_over_rank", "alpha": 32}, 16) == "2"
    assert formulas.scale({"name": "alpha_over_sqrt_rank", "alpha": 8}, 16) == "2"
    assert formulas.scale({"name": "constant"}, None) == "s"


def test_every_specification_compiles(comparisons: list[Comparison]) -> None:
    import vl_convert

    found = charting.charts(comparisons, effects=effects(cases([one.verdict for one in comparisons if one.verdict])))
    assert {"scores", "front-parameters", "front-memory", "front-time", "curves-loss", "effects"} <= set(found)
    for drawn in found.values():
        assert vl_convert.vegalite_to_vega({**drawn.spec, "data": {"values": drawn.rows[:3]}})["marks"]
        assert {row["group"] for row in drawn.rows} <= {one.id for one in comparisons}


class Elements(HTMLParser):
    """Names and attributes of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))


def test_the_page_is_one_small_file_that_loads_nothing(html: str) -> None:
    assert len(html.encode()) < LIMIT
    elements = Elements(html).found
    sources = [
        value for _, given in elements for key, value in given.items() if key in ("src", "href", "action", "srcset")
    ]
    assert sources and all(str(one).startswith(("#", "data:")) for one in sources)
    policy = next(given["content"] for name, given in elements if given.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy) and "unsafe-eval" not in str(policy)


def test_no_text_of_a_record_becomes_markup(html: str) -> None:
    elements = Elements(html).found
    assert [name for name, _ in elements].count("script") == 3 and "img" not in [name for name, _ in elements]
    assert not any(key.startswith("on") for _, given in elements for key in given)
    body = html[: html.index('<script type="application/json"')]
    assert "&lt;script&gt;window.hacked" in body and "<script>window.hacked" not in html


def test_failures_synthetic_tasks_budgets_and_few_seeds_are_said(html: str) -> None:
    assert "ValueError: &lt;script&gt;" in html and "Synthetic tasks" in html and ">synthetic</span>" in html
    assert "2 budgets: none; steps_100" in html and "fewer than three seeds" in html


def test_controls_and_drawings_have_names(html: str) -> None:
    elements = Elements(html).found
    for name, given in elements:
        if given.get("role") in ("img", "region", "search", "group") or name == "svg":
            assert given.get("aria-label"), (name, given)
    heads = [given for name, given in elements if name == "th" and "aria-sort" in given]
    assert len(heads) >= 9 and all(one["scope"] == "col" for one in heads)
    ids = [given["id"] for _, given in elements if "id" in given]
    assert len(ids) == len(set(ids))


def test_six_hundred_runs_stay_below_three_megabytes(tmp_path: Path) -> None:
    directory = write_run(tmp_path, method("a"), steps=100)
    (template,) = collect(tmp_path)
    entries = []
    for number in range(600):
        name = f"m{number % 20}"
        given = method(name, scaling={"name": "constant", "value": 1.0 + number % 20})
        changed = {"method": name, "seed": number // 20, "run_id": str(number), "score": 0.5 + number / 2000}
        record = replace(template.record, **changed)
        entries.append(Entry(record, {**template.config, "method": given, "seed": number // 20}, (), directory))
    assert len(page(entries).encode()) < LIMIT


def test_of_many_runs_the_page_shows_aggregates_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    directory = write_run(tmp_path, method("a"), steps=100)
    (template,) = collect(tmp_path)
    entries = []
    for number in range(2000):
        name, seed = f"m{number % 20}", number // 20
        status = "failed" if seed >= 70 else "ok"  # 600 of them
        changed = {"method": name, "seed": seed, "run_id": str(number), "score": 0.5 + number / 5000, "status": status}
        record = replace(template.record, **changed)
        entries.append(Entry(record, {**template.config, "method": method(name), "seed": seed}, (), directory))
    html = page(entries)
    assert len(html.encode()) < LIMIT
    assert html.count("600 of 2,000 runs are shown one by one") == 3 and "unipet runs --csv FILE" in html
    assert html.count("<option value=") >= 1200 and "100 more runs have no score; unipet runs score=null" in html
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert (
        len(data["runs"]["own"]) == len(data["runs"]["commands"]) == 600
        and len(data["charts"]["scores"]["rows"]) == 600
    )
    means = [line.row.score for comparison in comparisons_of(entries) for line in comparison.scored]
    assert sorted(means)[-1] == pytest.approx(0.5 + (19 + 20 * 34.5) / 5000)  # over all 70 with a score
    assert "one by one" not in page(entries[:600])


def test_a_record_without_a_configuration_is_drawn_from_what_it_tells() -> None:
    row = InsertionRow("ffn", "bottleneck", ["ffn"], "sequential", "add", "constant")
    entry = Entry(Record(method="m", status="ok", score=0.5, insertions=[row]), {})
    ((one,),) = compositions(comparisons_of([entry])).values()
    assert one.insertions[0].equation == "h′ = h + s·Δ,  Δ = up · φ(down · h)"
    assert "frozen" not in drawn_layer(one)  # nothing says what else trains


def test_only_style_scripts_and_data_are_written_as_they_are() -> None:
    found = {
        path.name: sorted(re.findall(r"{{ *(\w+) *\| *safe", path.read_text(encoding="utf-8")))
        for path in TEMPLATES.glob("*.html")
        if "safe" in path.read_text(encoding="utf-8") or "Markup" in path.read_text(encoding="utf-8")
    }
    assert found == {"document.html": ["data", "script", "style"]}
    assert environment().autoescape is True


@pytest.mark.parametrize("package", ["jinja2", "altair", "vl_convert"])
def test_a_missing_package_is_one_error(
    package: str, study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.cache_clear()
    bundle.cache_clear()
    real = builtins.__import__

    def without(name: str, *others: Any, **more: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return real(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnipetError, match=r"pip install 'unipet\[report\]'"):
        report_command.main([str(study), "--html", str(tmp_path / "page.html")])
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_page(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_command.main([str(study), "--html", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (
        text.startswith("<!doctype html>") and text.rstrip().endswith("</html>") and "plain" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "1"], "Add --serve"),
        (["--serve", "--html", "x"], "leave out --html"),
        (["--serve", "--port", "99999"], "--port"),
    ],
)
def test_mistakes_about_serving_are_one_error(study: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(UnipetError, match=said):
        report_command.main([str(study), *arguments])


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    from unipet.report.page.serve import server

    with server(tmp_path, 0) as running:
        assert running.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", tmp_path
        running.shutdown()
        thread.join()


def get(address: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
        return str(answer.read().decode())


def test_the_live_page_follows_the_records(live: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unipet.report.page.serve.REST", 0.0)
    address, root = live
    assert "Waiting for records" in get(address + "/")
    first = get(address + "/stamp")
    write_run(root, method("newcomer"), 0, None, status="running", error=None)
    second = get(address + "/stamp")
    text = get(address + "/")
    assert first != second and "newcomer" in text and f'"stamp":"{second}"' in text
    assert "connect-src &#39;self&#39;" in text and get(address + "/stamp") == second


@pytest.mark.parametrize("below", ["sweeps/s", "."])
def test_the_live_page_follows_a_sweep_whoever_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """Jobs that are not begun, running and over, seen from the sweep's directory and from the runs' own, with an index."""
    from unipet.report.page.serve import Live

    monkeypatch.setattr("unipet.report.page.serve.REST", 0.0)
    monkeypatch.setattr(record_index, "FEW", 1)
    sweep = Sweep(tmp_path / "sweeps" / "s", ["-m"], [], ["seed"], 4, tmp_path, LauncherConfig())
    write_sweep(sweep, [Job(n, [f"seed={n}"], [f"seed={n}"], {"seed": n}, None) for n in range(4)], {})
    live = Live(tmp_path / below)
    html, first = live.current()
    assert "Sweep s: 0 of 4 jobs have ended, 0 running, 4 not begun." in html

    run = write_run(tmp_path, method("m"), 0, None, status="running", error=None)
    append_index(sweep.directory, [JobState(0, RUNNING, run_dir=f"../../{run.name}", worker="far")])
    html, second = live.current()
    assert second != first and "0 of 4 jobs have ended, 1 running, 3 not begun." in html and ">running<" in html

    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 999, "loss": 0.123456}) + "\n")
    html, third = live.current()
    assert third != second and "0.123456" in html

    write_run(tmp_path, method("m"), 0, 0.75)
    write_outcome(sweep.directory, JobState(0, "ok", run_dir=f"../../{run.name}"))
    write_outcome(
        sweep.directory, JobState(1, "failed", reason="lost", record=Record(status="failed", reason="worker lost"))
    )
    html, fourth = live.current()
    assert fourth != third and "2 of 4 jobs have ended, 0 running, 2 not begun." in html and "worker lost" in html
    for job in (2, 3):
        write_outcome(sweep.directory, JobState(job, "ok", run_dir=f"../../{run.name}"))
    assert "jobs have ended" not in live.current()[0] and live.current()[1] == live.current()[1]


def test_the_live_page_answers_this_machine_alone(live: tuple[str, Path]) -> None:
    address, _ = live
    for path, host, code in (("/", "evil.example", 403), ("/../setup.cfg", None, 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(address + path, **({"Host": host} if host else {}))
        assert refused.value.code == code
        refused.value.close()


def test_a_taken_port_is_one_error(live: tuple[str, Path]) -> None:
    from unipet.report.page.serve import server

    port = int(re.search(r":(\d+)$", live[0])[1])  # type: ignore[index]
    with pytest.raises(UnipetError, match="Choose another"):
        server(live[1], port)


def fitted_runs(root: Path, composition: bool) -> None:
    """One method asked for with size 16, fitted to 2 and 24 by two budgets."""
    key = "method.insertions.ffn.function.size"
    asked = method("m", function={"name": "bottleneck", "size": 16, "activation": "relu"})
    for budget, size in (("small", 2), ("large", 24)):
        trained = method("m", function={"name": "bottleneck", "size": size, "activation": "relu"})
        given = {
            "fitted": {"sizes": {key: size}, "requested": {key: 16}},
            "composition": trained if composition else None,
        }
        write_run(root, asked, 0, 0.5, budget=budget, **given)


@pytest.mark.parametrize("composition", [True, False])
def test_what_was_trained_is_shown_not_what_was_asked(tmp_path: Path, composition: bool) -> None:
    fitted_runs(tmp_path, composition)
    entries = collect(tmp_path)
    found = compositions(comparisons_of(entries))["m"]
    assert sorted(one.insertions[0].function["size"] for one in found) == [2, 24]
    html = page(entries)
    shown = html[: html.index('<script type="application/json"')]
    assert "bottleneck 2<" in shown and "bottleneck 24<" in shown and "bottleneck 16" not in shown
    assert "fitted size 2" in shown and "fitted size 24" in shown
    from unipet.report.aggregate import aggregate
    from unipet.report.table import csv_table, text_table

    rows = aggregate(entries)
    assert [row.label for row in rows] == ["m", "m"] and {row.size for row in rows} == {"2", "24"}
    lines = [line.split()[:2] for line in text_table(rows).splitlines() if line.startswith("m ")]
    assert sorted(lines) == [["m", "2"], ["m", "24"]]
    assert all(f",{size}," in csv_table(rows) for size in (2, 24))


def test_effects_are_of_what_was_trained(tmp_path: Path) -> None:
    """Two methods of one file size that a budget made 4 and 8: the effect is of 4 and 8."""
    key = "method.insertions.ffn.function.size"
    for name, size, score in (("a", 4, 0.5), ("b", 8, 0.7)):
        write_run(tmp_path, method(name), 0, score, fitted={"sizes": {key: size}})
    (effect,) = effects(cases(compare(collect(tmp_path))))
    assert (effect.change.dimension, effect.change.before, effect.change.after) == ("size", "4", "8")


def drawn_texts(root: Path) -> dict[str, list[str]]:
    import vl_convert

    found = {}
    for name, drawn in charting.charts(comparisons_of(collect(root))).items():
        spec = {**drawn.spec, "width": 600, "data": {"name": "rows", "values": drawn.rows}}
        found[name] = re.findall(r"<text[^>]*>([^<]*)</text>", vl_convert.vegalite_to_svg(spec))
    return found


def test_an_axis_with_one_value_says_this_value(tmp_path: Path) -> None:
    costs = {"memory": {"peak_gib": 0.18}, "time": {"train_s": 0.27}}
    write_run(tmp_path, method("m"), 0, 0.6917, steps=1, trainable=1234, lr=0.00031, **costs)
    found = drawn_texts(tmp_path)
    assert "0.6917" in found["scores"] and "1" not in found["scores"]
    for cost, value in (("parameters", "1.234k"), ("memory", "0.18"), ("time", "0.27")):
        assert {value, "0.6917"} <= set(found[f"front-{cost}"]) and "0" not in found[f"front-{cost}"]
    assert "0.00031" in found["curves-lr"]


def test_close_values_have_digits_enough_to_differ(tmp_path: Path) -> None:
    for name, score in (("m", 0.69171), ("n", 0.69174)):
        write_run(tmp_path, method(name), 0, score)
    numbers = [text for text in drawn_texts(tmp_path)["scores"] if text.startswith("0.")]
    assert len(numbers) > 2 and len(numbers) == len(set(numbers))


def test_points_of_one_method_have_names_of_their_own(tmp_path: Path) -> None:
    for size, score in ((4, 0.5), (64, 0.7)):
        write_run(
            tmp_path,
            method("m", function={"name": "bottleneck", "size": size}),
            0,
            score,
            trainable=10**size if size < 9 else 10**6,
        )
    points = charting.charts(comparisons_of(collect(tmp_path)))["front-parameters"].rows
    assert {row["name"] for row in points} == {"m · size=4", "m · size=64"}


def test_lines_that_the_statistics_take_for_two_groups_are_not_tested() -> None:
    """A configuration that was changed after its run may disagree with the record, and the page is made all the same."""
    entries = [planted(0.5, "a"), planted(0.6, "b", task="u")]
    lines = [line for each in comparisons_of(entries) for line in each.lines]
    joined = comparing._comparison("g0", ("t", "tiny", "none", "accuracy"), lines, ())
    assert joined.verdict is None and joined.ranked and len(joined.lines) == 2
