"""`deltafine export`: the refined model for use without deltafine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.options import takes_settings

if TYPE_CHECKING:
    from deltafine.jobs.export import Exported


_READING = "Loading the model, reading the videos (defaults: those of the run)"


class Form(StrEnum):
    stripped = "stripped"
    quantized = "quantized"


class Format(StrEnum):
    keras = "keras"
    tflite = "tflite"
    thresholds = "thresholds"


@takes_settings("export", panel=_READING, defaults=False)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its refined.keras.")],
    form: Annotated[Form, typer.Option(help="stripped: no thresholds; quantized: rounds or holds.")] = Form.stripped,
    format: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.keras,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: RUN/export/FORM.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Videos to check TFLite on; default: the run's.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Compare TFLite with Keras on real frames.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    **settings: Any,
) -> None:
    """Write the refined model with plain Keras layers, as TFLite, or its thresholds as JSON."""
    from deltafine.cli.console import printable
    from deltafine.jobs.export import export as write

    done = write(
        run,
        form=form.value,
        format=format.value,
        output=output,
        data=data,
        check=check,
        overwrite=overwrite,
        **settings,
    )
    typer.echo(printable(f"Written to {done.file}{_compared(done) if format is Format.tflite else ''}"))


def _compared(done: Exported) -> str:
    if done.agreement is None:
        return "; not compared with the Keras model"
    return (
        f"; on {done.agreement.frames} {done.compared} of the videos "
        f"the largest difference to Keras is {done.agreement.largest_difference:.2g}, "
        f"the same class on {done.agreement.same_class:.1%}"
    )
