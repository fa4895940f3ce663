"""The command line: one table of commands, and one place where a mistake becomes a line on stderr.

Nothing heavy is imported here: `unipet --help` answers before torch, transformers or hydra could be loaded. A command's
module is imported when the command is called, and offers `main(argv) -> int`, the exit code.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from unipet.errors import UnipetError, unknown

# name -> (module with main(argv), arguments, what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "train": ("unipet.sweep.train", "[-m] KEY=VALUE ...", "train and evaluate one run, or with -m a sweep of runs"),
    "describe": ("unipet.commands.describe", "KEY=VALUE ... [--json]", "what a method inserts, without loading weights"),
    "list": ("unipet.commands.listing", "[TOPIC]", "methods, functions, sites, tasks, models or budgets"),
    "evaluate": ("unipet.commands.evaluate", "RUN", "load a finished run and score it again"),
    "report": ("unipet.commands.report", "DIR [--csv FILE]", "one comparison table from all runs below a directory"),
    "merge": ("unipet.commands.merge", "RUN OUT [--partial]", "fold a run's method into a plain transformers model"),
}

EXAMPLES = """\
examples:
  unipet train method=lora seed=1                       the embedded base model and a synthetic task: no network
  unipet train method=mam task=sst2 model=roberta_base  a data set and a base model from the hub
  unipet train method=mam task=sst2 task.data_dir=DIR   the same task from DIR/train.jsonl and DIR/validation.jsonl
  unipet train -m method=adapter,prefix,lora,mam,adamix seed=0,1,2
                                                        15 runs, closed by a comparison table
  unipet train -m method=mam method.insertions.ffn.position.form=parallel,sequential
                                                        one choice inside a method, swept by name
  unipet train method=mine --config-dir my_conf         your own my_conf/method/mine.yaml
  unipet describe method=mam model=minilm --json        one row per insertion, as JSON
  unipet list methods                                   every method with its source
  unipet report runs --csv table.csv                    the comparison of everything below runs/
"""


def help_text() -> str:
    """The text of `unipet --help`."""
    lines = ["usage: unipet COMMAND ...", "", "Parameter-efficient fine-tuning methods as YAML: compose, train, compare."]
    lines += ["", "commands:"]
    lines += [f"  {name:<9} {arguments:<23} {what}" for name, (_, arguments, what) in COMMANDS.items()]
    lines += ["", "`unipet COMMAND --help` says more about one command.", "", EXAMPLES.rstrip()]
    return "\n".join(lines)


def version_text() -> str:
    """`unipet 0.1.0`, or without the number where the package is used but not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"unipet {version('unipet')}"
    except PackageNotFoundError:
        return "unipet (not installed: running from a checkout)"


def dispatch(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. Raises `UnipetError` for an unknown command."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if argv[0] == "--version":
        print(version_text())
        return 0
    name, rest = argv[0], list(argv[1:])
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 1 a run failed, 2 a mistake in what was asked for, 130 interrupted."""
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except UnipetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `unipet list | head`: the reader left; say nothing, also not at interpreter exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
