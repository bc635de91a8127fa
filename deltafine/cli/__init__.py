"""The command line: parses, calls, prints."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from deltafine.cli import bench, data, demo, export, inspect, refine, report, run
from deltafine.cli.notes import warnings_as_notes
from deltafine.errors import DeltafineError

app = typer.Typer(
    name="deltafine",
    help="Refine pretrained Keras models for temporal sparsity on video, and report what it saves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    inspect.inspect, data.data, refine.refine, report.report, export.export, run.run, bench.bench, demo.demo
):  # fmt: skip
    app.command()(command)

SOFTWARE = 70
"""Exit code of an error that nobody has foreseen; EX_SOFTWARE of sysexits."""
_debug = False


def _print_version(wanted: bool) -> None:
    if wanted:
        from deltafine import __version__

        typer.echo(f"deltafine {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 a gate or a budget was not met, 2 bad input or usage, 70 an error of
    deltafine's own, 75 another worker has ended, 130 and 143 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        with warnings_as_notes():
            app(prog_name="deltafine")
    except DeltafineError as error:
        if _debug:
            traceback.print_exc()
        from deltafine.cli.console import print_error

        print_error(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has left; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:
        # An error of the program must not pass for a gate that is not met.
        traceback.print_exc()
        sys.exit(SOFTWARE)
