"""`deltafine export`: the refined model for use without deltafine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.model_options import CustomObjects, UnsafeLambda, trust_in
from deltafine.errors import DeltafineError
from deltafine.storage import run_files
from deltafine.storage.files import make_folder, write_atomically

if TYPE_CHECKING:
    import numpy as np

_VIDEOS_CHECKED = 4
_FRAMES_PER_VIDEO = 16


class Form(StrEnum):
    stripped = "stripped"
    quantized = "quantized"


class ExportFormat(StrEnum):
    keras = "keras"
    tflite = "tflite"
    thresholds = "thresholds"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its refined.keras.")],
    form: Annotated[Form, typer.Option(help="stripped: no thresholds; quantized: rounds or holds.")] = Form.stripped,
    format: Annotated[ExportFormat, typer.Option("--format", "-f", help="What to write.")] = ExportFormat.keras,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: RUN/export/FORM.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Clip length, for send-on-delta quantized.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Videos to check TFLite on; default: the run's.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Compare TFLite with Keras on real frames.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    custom_objects: CustomObjects = None,
    unsafe_lambda: UnsafeLambda = False,
) -> None:
    """Write the refined model with plain Keras layers, as TFLite, or its thresholds as JSON."""
    import json

    from deltafine.cli.console import printable
    from deltafine.exporting.forms import export_plain, threshold_table
    from deltafine.model import load

    path = run / run_files.REFINED if run.is_dir() else run
    target = output or path.parent / run_files.EXPORT / _file_name(form, format)
    if target.exists() and not overwrite:
        raise DeltafineError(f"{target} exists already: give --overwrite to replace it, or another --output.")
    refined = load(path, **trust_in(custom_objects, unsafe_lambda))
    make_folder(target.parent)
    said = f"Written to {target}"
    if format is ExportFormat.thresholds:
        content = (json.dumps(threshold_table(refined), indent=1) + "\n").encode()
        write_atomically(target, content)
    else:
        plain = export_plain(refined, form.value, frames=frames)
        if format is ExportFormat.keras:
            write_atomically(target, plain.save)
        else:
            said += _write_tflite(plain, target, _frames(plain, path.parent, data) if check else None)
    typer.echo(printable(said))


def _file_name(form: Form, format: ExportFormat) -> str:
    return "thresholds.json" if format is ExportFormat.thresholds else f"{form.value}.{format.value}"


def _write_tflite(plain: Any, target: Path, clips: np.ndarray | None) -> str:
    from deltafine.exporting.forms import frames_of
    from deltafine.exporting.tflite import compare, to_tflite

    content = to_tflite(plain)
    said = "; not compared with the Keras model"
    if clips is not None:
        inputs = frames_of(clips, plain)
        agreement = compare(content, plain, inputs)
        said = (
            f"; on {agreement.frames} {'frames' if len(inputs[0].shape) < clips.ndim else 'clips'} of the videos "
            f"the largest difference to Keras is {agreement.largest_difference:.2g}, "
            f"the same class on {agreement.same_class:.1%}"
        )
    write_atomically(target, content)
    return said


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
