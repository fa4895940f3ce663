"""The command line: one table of commands, and one place where a mistake becomes a line on stderr.

Nothing heavy is imported here: `unipet --help` answers before torch, transformers or hydra could be loaded. A command's
module is imported when the command is called, and offers `main(argv) -> int`, the exit code.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import unipet
from unipet.errors import UnipetError, unknown
from unipet.output import libraries, stopwatch, terminal

# name -> (module with main(argv), arguments, what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "train": (
        "unipet.cli.commands.train",
        "[-m] KEY=VALUE ...",
        "train and evaluate one run, or with -m a sweep of runs",
    ),
    "sweep": (
        "unipet.cli.commands.sweep",
        "status|resume|cancel DIR",
        "how far a sweep is; do what is missing; end it",
    ),
    "plan": (
        "unipet.cli.commands.plan",
        "[-m] KEY=VALUE ... [--json]",
        "what a run or a sweep will need and how long it will take, before it is run",
    ),
    "describe": (
        "unipet.cli.commands.describe",
        "KEY=VALUE ... [--json]",
        "what a method inserts, without weights; or what a task's data look like",
    ),
    "list": ("unipet.cli.commands.listing", "[TOPIC]", "methods, functions, sites, tasks, models or budgets"),
    "evaluate": ("unipet.cli.commands.evaluate", "RUN", "load a finished run and score it again"),
    "submit": ("unipet.cli.commands.submit", "RUN [--out DIR]", "answer a task's hidden test sets, one file each"),
    "runs": (
        "unipet.cli.commands.runs",
        "[runs_dir=DIR] [KEY=VALUE ...]",
        "list runs; what differs between two; export; delete",
    ),
    "report": (
        "unipet.cli.commands.report",
        "DIR [--latex FILE] ...",
        "compare all runs below a directory: table, tests, files",
    ),
    "dashboard": (
        "unipet.cli.commands.dashboard",
        "DIR --dry-run|--push|--sync",
        "a wandb workspace and report of all runs below a directory",
    ),
    "export": (
        "unipet.cli.commands.export",
        "RUN OUT --to peft",
        "a run's adapter in peft's files, where peft can express it",
    ),
    "merge": (
        "unipet.cli.commands.merge",
        "RUN OUT [--partial]",
        "fold a run's method into a plain transformers model",
    ),
}


def help_text() -> str:
    """The text of `unipet --help`."""
    from unipet.cli.commands.examples import examples

    lines = [
        "usage: unipet COMMAND ...",
        "",
        "Parameter-efficient fine-tuning methods as YAML: compose, train, compare.",
    ]
    lines += ["", "commands:"]
    lines += [f"  {name:<9} {arguments:<23} {what}" for name, (_, arguments, what) in COMMANDS.items()]
    lines += ["", "`unipet COMMAND --help` says more about one command.", "", examples()]
    return "\n".join(lines)


def dispatch(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. Raises `UnipetError` for an unknown command."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if argv[0] == "--version":
        print(f"unipet {unipet.__version__}")
        return 0
    name, rest = argv[0], list(argv[1:])
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 1 a run failed, 2 a mistake in what was asked for, 130 or 143
    interrupted by SIGINT or SIGTERM.

    Without `argv` it is the whole program: what it changes of the process stays, for what libraries say at its exit.
    """
    if argv is None:
        stopwatch.count_from_process_start()
        return _answer(sys.argv[1:], *_WHOLE_PROGRAM.enter_context(_door()))
    with _door() as (out, err):
        return _answer(argv, out, err)


_WHOLE_PROGRAM = ExitStack()  # never closed


@contextmanager
def _door() -> Iterator[tuple[terminal.Screen, terminal.Screen]]:
    """Standard output and standard error of a command: they take any character and show nothing that a library prints."""
    with terminal.screens(libraries.hidden) as screens, libraries.quiet():
        yield screens


def _answer(argv: Sequence[str], out: terminal.Screen, err: terminal.Screen) -> int:
    try:
        code = dispatch(argv)
    except UnipetError as error:
        print(f"error: {error}", file=err)
        code = 2
    except UnicodeEncodeError as error:  # a file's name, where the system's encoding is ASCII
        print(f"error: {_unwritable(error)}", file=err)
        code = 2
    except KeyboardInterrupt as end:
        print(f"error: {str(end) or 'interrupted'}", file=err)
        code = getattr(end, "exit_code", 130)
    except OSError as error:
        if error.filename is None:  # not about a file that somebody named
            libraries.print_last()
            raise
        print(f"error: {os.fsdecode(error.filename)}: {error.strerror or error}.", file=err)
        code = 2
    except Exception:
        libraries.print_last()
        raise
    out.flush()
    if (
        code == 0 and out.lost is not None and not isinstance(out.lost, BrokenPipeError)
    ):  # a reader may have seen enough
        print(f"error: standard output cannot be written ({out.lost.strerror or out.lost}).", file=err)
        code = 1
    return code


def _unwritable(error: UnicodeEncodeError) -> str:
    character = error.object[error.start : error.end][:20]
    return (
        f"{error.object[:200]!r} has the character {character!r}, which this system's encoding ({error.encoding}) cannot "
        "write in a file's name. Set PYTHONUTF8=1, or rename it."
    )


if __name__ == "__main__":
    sys.exit(main())
