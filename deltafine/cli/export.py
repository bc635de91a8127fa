"""`deltafine export`: the refined model for use without deltafine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deltafine.cli.given_paths import refuse_missing_run, refuse_missing_videos
from deltafine.cli.options import format_option, takes_settings
from deltafine.exporting import FORMATS

_READING = "Model and videos (defaults: those of the run)"


class Form(StrEnum):
    stripped = "stripped"
    quantized = "quantized"
    streaming = "streaming"


@takes_settings("export", panel=_READING, defaults=False)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its refined.keras.")],
    form: Annotated[
        Form,
        typer.Option(
            metavar="[stripped | quantized | streaming]",
            help="stripped: no thresholds; quantized: rounds or holds; streaming: frame and state in, new state out.",
        ),
    ] = Form.stripped,
    format: Annotated[str, format_option(FORMATS.names, "What to write.")] = "keras",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: RUN/export/FORM.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Videos for --check; default: those of the run.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Compare the written file with Keras on real frames.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    show: Annotated[
        bool, typer.Option("--list", help="Write nothing: show what there is, what it is for, and what was checked.")
    ] = False,
    **settings: Any,
) -> None:
    """Write the refined model in a format that others read."""
    refuse_missing_run(run)
    refuse_missing_videos(data if check else None)
    from deltafine.cli.console import Talk, print_text, quiet_standard_error
    from deltafine.jobs.export import export as write

    if show:
        from deltafine.jobs.export_record import listing

        with quiet_standard_error():
            shown = listing(run)
        print_text(shown)
        return
    how: dict[str, Any] = {"form": form.value, "format": format, "output": output, "data": data, "check": check}
    with Talk(aside=True) as talk, quiet_standard_error():
        done = write(run, overwrite=overwrite, listener=talk, **how, **settings)
    said = done.agreement.sentence if done.agreement else done.not_compared
    print_text(f"Written to {done.file}{f'; {said}' if said else ''}")
