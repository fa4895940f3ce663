"""`unipet describe method=NAME model=minilm [--json]`: what a method inserts, without loading weights."""

from __future__ import annotations

import json
from collections.abc import Sequence

from unipet.commands.arguments import Parser, read
from unipet.commands.examples import examples


def main(argv: Sequence[str]) -> int:
    """Print the report of `unipet.describe`; with --json nothing else goes to stdout."""
    parser = Parser(
        prog="unipet describe",
        description="One row per insertion: role, modules, shapes, parameters, percent of the base model, foldable or why not.",
        epilog=examples("describe"),
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for `unipet train`")
    parser.add_argument("--json", action="store_true", help="print JSON alone on stdout")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a directory with groups of your own")
    asked = read(parser, argv)
    if asked is None:
        return 0
    from unipet.sweep.composer import composer
    from unipet.sweep.overrides import plan

    with composer(asked.config_dir) as composing:
        config = plan(asked.overrides, False, composing, command="describe").config

    import unipet
    from unipet.models import skeleton

    method = unipet.load_method(config.method)  # a mistake here should not wait for the base model
    report = unipet.describe(method, skeleton(config.model, config.task.kind))
    print(json.dumps(report.to_dict(), indent=2) if asked.json else report.table())
    return 0
