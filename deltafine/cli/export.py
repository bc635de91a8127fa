"""`deltafine export`: the refined model for use without deltafine."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.model_options import CustomObjects, UnsafeLambda, trust_in
from deltafine.errors import DeltafineError
from deltafine.exporting import FORMATS
from deltafine.storage import run_files

if TYPE_CHECKING:
    import numpy as np

_VIDEOS_CHECKED = 4
_FRAMES_PER_VIDEO = 16


class Form(StrEnum):
    stripped = "stripped"
    quantized = "quantized"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its refined.keras.")],
    form: Annotated[Form, typer.Option(help="stripped: no thresholds; quantized: rounds or holds.")] = Form.stripped,
    format: Annotated[
        str, typer.Option("--format", "-f", metavar=f"[{'|'.join(FORMATS.names)}]", help="What to write.")
    ] = "keras",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: RUN/export/FORM.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Clip length, for send-on-delta quantized.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Videos to check it on; default: the run's.")] = None,
    check: Annotated[bool, typer.Option(help="Compare what was written with Keras on real frames.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    custom_objects: CustomObjects = None,
    unsafe_lambda: UnsafeLambda = False,
) -> None:
    """Write the refined model with plain Keras layers, as TFLite, or its thresholds as JSON."""
    from deltafine.cli.console import printable
    from deltafine.exporting.writing import write_export
    from deltafine.model import load

    chosen = FORMATS.get(format)
    path = run / run_files.REFINED if run.is_dir() else run
    target = output or path.parent / run_files.EXPORT / chosen.file_name(form)
    if target.exists() and not overwrite:
        raise DeltafineError(f"{target} exists already: give --overwrite to replace it, or another --output.")
    refined = load(path, **trust_in(custom_objects, unsafe_lambda))
    real_frames = partial(_frames, run=path.parent, data=data) if check else None
    agreement, why = write_export(refined, target, chosen, form=form, frames=frames, real_frames=real_frames)
    said = agreement.sentence if agreement else why
    typer.echo(printable(f"Written to {target}{f'; {said}' if said else ''}"))


def _frames(plain: Any, run: Path, data: Path | None) -> np.ndarray:
    """Some frames of the run's videos, (clips, time, height, width, channels); one clip for a per-frame model."""
    import numpy as np

    from deltafine.video import open_for_frames

    settings = _settings(run)
    where = data or (Path(settings["data"]) if "data" in settings else None)
    if where is None:
        raise DeltafineError(f"{run} has no {run_files.SETTINGS} that names videos: give --data, or --no-check.")
    named = ("layout", "split") if settings.get("task") == "distill" else ("layout", "split", "classes")
    layout = {key: settings[key] for key in named if key in settings and data is None}
    shape = plain.inputs[0].shape
    by_clip = len(shape) == 5
    height, width, channels = shape[2 if by_clip else 1 :]
    length = shape[1] if by_clip else _FRAMES_PER_VIDEO
    found = []
    streams = open_for_frames(where, **layout).streams(None, size=(height, width), channels=channels, chunk=length)
    for _, stream in streams:
        first = next(iter(stream), None)
        if first is not None and (len(first[0]) == length or not by_clip):
            found.append(np.asarray(first[0], "float32"))
        if len(found) == _VIDEOS_CHECKED:
            break
    if not found:
        raise DeltafineError(
            f"No video in {where} has {length if by_clip else 'any'} frames to compare on: give other --data, or "
            "--no-check."
        )
    return np.stack(found) if by_clip else np.concatenate(found)[None]


def _settings(run: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads((run / run_files.SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DeltafineError(f"{run / run_files.SETTINGS} is damaged ({error}): give --data, or --no-check.") from error
