"""The command line: parses, calls, prints."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from deltafine.cli import bench, data, demo, export, inspect, refine, report, run
from deltafine.cli.completion import refuse_unknown_shell
from deltafine.cli.notes import warnings_as_notes
from deltafine.errors import DeltafineError

app = typer.Typer(
    name="deltafine",
    help="Refine pretrained Keras models for temporal sparsity on video, and report what it saves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    inspect.inspect, data.data, refine.refine, report.report, export.export, run.run, bench.bench, demo.demo
):  # fmt: skip
    app.command(short_help=(command.__doc__ or "").partition("\n\n")[0])(command)

SOFTWARE = 70
"""Exit code of an error that nobody has foreseen; EX_SOFTWARE of sysexits."""
_debug = False

_HEAVY = ("tensorflow", "keras", "numpy", "numba", "h5py", "av", "matplotlib")
"""What deltafine depends on, but not where it only reads reports; see docs/ci.md."""

_NARROW = 72
"""Columns below which the tables of the help would cut names of options."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from deltafine import __version__

        typer.echo(f"deltafine {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


def _refuse_empty(arguments: list[str]) -> None:
    """An empty path would be the current folder.

    Raises:
        DeltafineError: an argument or the value of an option is empty.
    """
    for number, argument in enumerate(arguments):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            place = argument or (f"after {arguments[number - 1]}" if number else "at the start")
            raise DeltafineError(
                f"The argument {place} is empty: give a value; perhaps a variable of the shell is unset."
            )


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 a gate or a budget was not met, 2 bad input or usage, 70 an error of
    deltafine's own, 75 another worker has ended, 130 and 143 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    app.rich_markup_mode = "rich" if Console().width >= _NARROW else None
    try:
        _refuse_empty(sys.argv[1:])
        refuse_unknown_shell(sys.argv[1:2])
        with warnings_as_notes():
            app(prog_name="deltafine")
    except DeltafineError as error:
        _refuse(str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has left; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (missing := (error.name or "").partition(".")[0]) in _HEAVY:
            _refuse(
                f"This command needs {missing}, which is not installed here: 'pip install deltafine' installs "
                "everything. Reading reports does not need it.",
                DeltafineError.exit_code,
            )
        if isinstance(error, OSError) and error.filename is not None:
            # Such as a folder above a path that may not be looked into.
            _refuse(f"{error.filename} cannot be used: {error.strerror}.", DeltafineError.exit_code)
        # An error of the program must not pass for a gate that is not met.
        traceback.print_exc()
        sys.exit(SOFTWARE)


def _refuse(sentence: str, exit_code: int) -> NoReturn:
    if _debug:
        traceback.print_exc()
    from deltafine.cli.console import print_error

    print_error(sentence)
    sys.exit(exit_code)
