"""`unipet describe method=NAME model=minilm [--json]`: what a method inserts, without loading weights. With `task=NAME`
instead of a method, it summarises the task's data."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.cli.commands.arguments import Parser, file_path, home, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError
from unipet.output.terminal import print_json


def main(argv: Sequence[str]) -> int:
    """Print the report of `unipet.describe`; with --json nothing else goes to stdout."""
    parser = Parser(
        prog="unipet describe",
        description="method=NAME: one row per insertion, with modules, shapes, parameters, percent of the base model, and "
        "whether it folds. task=NAME without a method: three examples as the model sees them, labels, lengths, and the "
        "share of examples that length limits truncate.",
        epilog=examples("describe"),
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for `unipet train`")
    parser.add_argument("--json", action="store_true", help="print JSON alone on stdout")
    parser.add_argument("--png", type=file_path, metavar="FILE", help="with task=NAME: draw the lengths to FILE")
    parser.add_argument("-cd", "--config-dir", type=home, metavar="DIR", help="a directory with your own groups")
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan

    with composer(asked.config_dir) as composing:
        config = plan(asked.overrides, False, composing, command="describe").config

    names = {override.split("=")[0].lstrip("+") for override in asked.overrides}
    if "task" in names and "method" not in names:
        from unipet.cli.commands.describe_task import describe_task

        describe_task(config, asked.json, asked.png)
        return 0
    if asked.png is not None:
        raise UnipetError("unipet describe: --png draws the lengths of a task. Give task=NAME without a method.")
    import unipet
    from unipet.compose.parse_run_config import check_run_config
    from unipet.runs.base_model import skeleton
    from unipet.tasks import input_length
    from unipet.training.budget.parameters import fit_parameters

    check_run_config(config)
    method = unipet.load_method(config.method)  # before the base model is loaded, so that mistakes show at once
    asks = "task" in names
    built = skeleton(config.model, config.task.kind, config.task.labels if asks else (), as_saved=not asks)
    fit = fit_parameters(method, built, config.budget, config.model.sites, input_length(config.task))
    if asked.json:
        print_json({**fit.report.to_dict(), "fitted": fit.record(), "reason": fit.why_not})
    else:
        print("\n".join(filter(None, [fit.report.table(), fit.text()])))
    return 0
