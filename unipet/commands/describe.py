"""`unipet describe method=mam model=minilm [--json]`: what a method inserts, without loading weights."""

from __future__ import annotations

import json
from collections.abc import Sequence

from unipet.commands.arguments import Parser, read


def main(argv: Sequence[str]) -> int:
    """Print the report of `unipet.describe`; with --json nothing else goes to stdout."""
    parser = Parser(
        prog="unipet describe",
        description="One row per insertion: role, modules, shapes, parameters, percent of the base model, foldable or why not.",
        epilog="example: unipet describe method=mam method.insertions.ffn.function.size=64 model=minilm --json",
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

    from unipet.method import load_method

    method = load_method(config.method)  # a mistake here should not wait for the base model
    import unipet
    from unipet.models import base_config

    report = unipet.describe(method, base_config(config.model))
    print(json.dumps(report.to_dict(), indent=2) if asked.json else report.table())
    return 0
