"""The command line: the table of commands, and the place where errors become one line on standard error.

This module imports nothing heavy, so that `unipet --help` does not wait for torch, transformers or hydra. A command's module
is imported when the command is called. Its `main(argv)` returns the exit code.
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
        "forecast sizes, memory and time of a run or a sweep without running it",
    ),
    "describe": (
        "unipet.cli.commands.describe",
        "KEY=VALUE ... [--json]",
        "show what a method inserts, without weights, or a task's data",
    ),
    "list": (
        "unipet.cli.commands.listing",
        "[TOPIC [NAME]]",
        "list methods, tasks, models, ...; the options of a value",
    ),
    "evaluate": ("unipet.cli.commands.evaluate", "RUN", "load a finished run and score it again"),
    "verify": ("unipet.cli.commands.verify", "RUN|ADAPTER [--deep]", "make a certificate again from the files alone"),
    "submit": ("unipet.cli.commands.submit", "RUN [--out DIR]", "predict a task's hidden test sets, one file each"),
    "runs": (
        "unipet.cli.commands.runs",
        "[runs_dir=DIR] [KEY=VALUE ...]",
        "list, filter, compare, export and delete runs",
    ),
    "report": (
        "unipet.cli.commands.report",
        "DIR [--latex FILE] ...",
        "compare all runs below a directory: table, statistics, files",
    ),
    "import-results": (
        "unipet.cli.commands.import_results",
        "DIR --from peft",
        "read the results of another project as runs that reports show",
    ),
    "dashboard": (
        "unipet.cli.commands.dashboard",
        "DIR --dry-run|--push|--sync",
        "make a wandb workspace and report of all runs below a directory",
    ),
    "export": (
        "unipet.cli.commands.export",
        "RUN OUT --to peft|vllm",
        "write a run's adapter in peft's format, if peft can express it",
    ),
    "merge": (
        "unipet.cli.commands.merge",
        "RUN OUT [--dtype bf16]",
        "fold a run's method into a plain transformers model",
    ),
    "push": ("unipet.cli.commands.push", "RUN OWNER/NAME", "upload a run's adapter with a model card to the hub"),
    "pull": ("unipet.cli.commands.pull", "OWNER/NAME OUT", "download a saved adapter from the hub, checked"),
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
    lines += [f"  {name:<14} {arguments:<26} {what}" for name, (_, arguments, what) in COMMANDS.items()]
    lines += ["", "`unipet COMMAND --help` explains one command.", "", examples()]
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
    """Entry point. Exit codes: 0 success, 1 a run failed, 2 a mistake on the command line, 130, 143 or 129 interrupted
    by SIGINT, SIGTERM or SIGHUP.

    Without `argv` this is the whole program: the wrapped output streams stay, because libraries print at exit, too.
    """
    if argv is None:
        stopwatch.count_from_process_start()
        return _answer(sys.argv[1:], *_WHOLE_PROGRAM.enter_context(_door()))
    with _door() as (out, err):
        return _answer(argv, out, err)


_WHOLE_PROGRAM = ExitStack()  # never closed


@contextmanager
def _door() -> Iterator[tuple[terminal.Screen, terminal.Screen]]:
    """Standard output and standard error of a command. They accept any character, and hide what libraries print."""
    with terminal.screens(libraries.hidden) as screens, libraries.quiet():
        yield screens


def _answer(argv: Sequence[str], out: terminal.Screen, err: terminal.Screen) -> int:
    try:
        code = dispatch(argv)
    except UnipetError as error:
        print(f"error: {error}", file=err)
        code = 2
    except UnicodeEncodeError as error:  # a file name, on a system whose encoding is ASCII
        print(f"error: {_unwritable(error)}", file=err)
        code = 2
    except KeyboardInterrupt as end:
        print(f"error: {str(end) or 'interrupted'}", file=err)
        code = getattr(end, "exit_code", 130)
    except OSError as error:
        if error.filename is None:  # not about a file of the user
            libraries.print_last()
            raise
        said = UnipetError(f"{os.fsdecode(error.filename)}: {error.strerror or error}.")  # as short as all of them
        print(f"error: {said}", file=err)
        code = 2
    except Exception:
        libraries.print_last()
        raise
    out.flush()
    if (
        code == 0 and out.lost is not None and not isinstance(out.lost, BrokenPipeError)
    ):  # a reader that closes the pipe is not an error
        print(f"error: standard output cannot be written ({out.lost.strerror or out.lost}).", file=err)
        code = 1
    return code


def _unwritable(error: UnicodeEncodeError) -> str:
    character = error.object[error.start : error.end][:20]
    return (
        f"{error.object[:200]!r} contains {character!r}, which this system's encoding ({error.encoding}) does not allow in "
        "file names. Set PYTHONUTF8=1, or rename the file."
    )


if __name__ == "__main__":
    sys.exit(main())
