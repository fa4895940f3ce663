"""A wandb workspace and a wandb report of a directory's runs, as code: this file decides what they show.

Both rely on what every tracked run says of itself (`tracked_summary.py`): `score/TASK`, `params/...`, `mem/...`, `time/...`
in its summary and `design.*` and `label` in its configuration. Runs are chosen by their ids, so nothing else of the project
is mixed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.report.aggregate import grouped
from unipet.report.collect import Entry
from unipet.report.comparing import compare
from unipet.report.markdown import markdown
from unipet.report.paper import paper_table
from unipet.report.verdicts import verdicts_text
from unipet.runs.design import DIMENSIONS
from unipet.runs.tracked_summary import COMPARED, score_key

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

#: cost -> (summary key, title, logarithmic)
COSTS = {
    "parameters": ("params/trainable", "trainable parameters", True),
    "memory": ("mem/peak_gib", "peak memory, GiB", False),
    "time": ("time/train_s", "training time, s", False),
}
LOSS = "train/loss"
RUNS = 1000  # that a panel draws at most; wandb's own limit is ten


@dataclass(frozen=True)
class Scope:
    """Runs that one set of panels compares: one task, base model and budget."""

    task: str
    title: str
    runs: tuple[str, ...]  # run ids
    several: bool  # some method has more than one configuration here

    @property
    def label(self) -> str:
        """The key of the configuration that tells its bars and curves apart: a variant's label where methods have several."""
        return "label" if self.several else "method.name"


def scopes(entries: Sequence[Entry]) -> list[Scope]:
    """The runs that have an id, in groups that may be compared. Raises `UnipetError` where no run has one."""
    groups: dict[tuple[str, str, str], list[tuple[str, list[str]]]] = {}
    for row, runs in grouped(entries):
        ids = [run.record.run_id for run in runs if run.record.run_id]
        if ids:
            groups.setdefault((row.task, row.model, row.budget), []).append((row.method, ids))
    if not groups:
        raise UnipetError("no run here has a run_id: none of them began, so a dashboard would be empty.")
    return [
        Scope(
            task=task,
            title=f"{task}, {model}, budget {budget}",
            runs=tuple(name for _, ids in rows for name in ids),
            several=len({method for method, _ in rows}) < len(rows),
        )
        for (task, model, budget), rows in groups.items()
    ]


def project_of(entries: Sequence[Entry]) -> str:
    """The project that the runs were tracked in; `unipet` where none says one."""
    projects = [entry.setting("tracking.project") for entry in entries]
    return next((str(project) for project in projects if project), "unipet")


def tracked(entries: Sequence[Entry]) -> int:
    """How many of the runs were mirrored to wandb at all."""
    return sum(entry.setting("tracking.name") == "wandb" for entry in entries)


def panels(scope: Scope, label: str) -> list[Any]:
    """The panels of one scope: scores by method with error bars, against each cost, dimensions, learning curves.

    `label`: the key of the configuration whose values are compared.
    """
    import wandb_workspaces.reports.v2 as wr

    score, method = wr.SummaryMetric(score_key(scope.task)), wr.Config(label)
    drawn: list[Any] = [
        wr.BarPlot(
            title=f"{scope.task}: score by method (mean, one standard deviation)",
            metrics=[score],
            groupby=method,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            orientation="h",
            max_runs_to_show=RUNS,
            max_bars_to_show=100,
        )
    ]
    for key, title, logarithmic in COSTS.values():
        drawn.append(
            wr.ScatterPlot(
                title=f"{scope.task}: score against {title}",
                x=wr.SummaryMetric(key),
                y=score,
                log_x=logarithmic,
                legend_template="${run:displayName}",
            )
        )
    axes = [(wr.Config(f"design.{name}"), name) for name in DIMENSIONS]
    axes += [(wr.SummaryMetric("params/pct"), "parameters, %"), (score, f"{scope.task} score")]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=name) for metric, name in axes]
    drawn.append(wr.ParallelCoordinatesPlot(title=f"{scope.task}: design dimensions", columns=columns))
    drawn.append(
        wr.LinePlot(
            title="learning curves by method (mean, one standard deviation)",
            x="Step",
            y=[LOSS],
            title_y="training loss",
            groupby=method,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=RUNS,
        )
    )
    return drawn


def table_columns(tasks: Sequence[str]) -> list[str]:
    """The columns of the runs' table, in wandb's spelling."""
    config = ["method", "task", "model", "budget"]
    shown = [f"config:{name}.value.name" for name in config] + ["config:seed.value"]
    shown += [f"config:design.value.{name}" for name in DIMENSIONS]
    return shown + [
        f"summary:{name}" for name in [*map(score_key, tasks), "flags", *(key for key, _, _ in COSTS.values())]
    ]


def build(entries: Sequence[Entry], name: str, project: str, entity: str) -> tuple[Workspace, Report]:
    """The workspace and the report; nothing is sent. Raises `UnipetError` where there is nothing to show."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    parts = scopes(entries)
    tasks = list(dict.fromkeys(part.task for part in parts))
    # One view holds everything, so with several tasks, base models or budgets the bars say which they belong to.
    label = parts[0].label if len(parts) == 1 else COMPARED
    first = {task: next(part for part in parts if part.task == task) for task in tasks}
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[ws.Section(name=task, panels=panels(first[task], label), is_open=True) for task in tasks],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=_chosen([run for part in parts for run in part.runs]), pinned_columns=table_columns(tasks)
        ),
    )
    groups = compare(entries)
    blocks: list[Any] = [wr.H1(name), wr.MarkdownBlock(markdown(paper_table(groups)))]
    blocks.append(wr.MarkdownBlock(f"```\n{verdicts_text(groups)}\n```"))
    for part in parts:
        runs = wr.Runset(
            entity=entity,
            project=project,
            name=part.title,
            filters=_chosen(part.runs),
            visible_columns=table_columns([part.task]),
        )
        blocks.append(wr.H2(part.title))
        blocks.append(wr.PanelGrid(runsets=[runs], panels=panels(part, part.label)))
    report = wr.Report(project=project, entity=entity, title=name[:128], width="fluid", blocks=blocks)
    return workspace, report


def _chosen(runs: Sequence[str]) -> str:
    """wandb's filter expression for these run ids, and no others."""
    return f"Metric('ID') in {list(dict.fromkeys(runs))!r}"


def as_json(entries: Sequence[Entry], name: str, project: str, entity: str) -> dict[str, Any]:
    """What `--push` would send: `{"project", "entity", "name", "runs", "workspace", "report"}`. Needs no network."""
    workspace, _ = build(entries, name, project, entity)
    # A report looks its project up on the server when it is serialised, unless it has none: hence the empty names.
    _, report = build(entries, name, "", "")
    return {
        "project": project,
        "entity": entity,
        "name": name,
        "runs": [run for part in scopes(entries) for run in part.runs],
        "workspace": workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True),
        "report": report._to_model().model_dump(mode="json", by_alias=True, exclude_none=True),
    }
