"""The refined model for use without deltafine: written, and compared on real frames."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.jobs.model_files import check_clip_output, trust_in
from deltafine.jobs.origin import HOW_IT_SPLIT, origin_of
from deltafine.jobs.reading import frames_of_videos
from deltafine.settings import checked
from deltafine.storage.files import make_folder, write_atomically

if TYPE_CHECKING:
    from deltafine.exporting.tflite import Agreement

FORMATS = ("keras", "tflite", "thresholds")
_VIDEOS_CHECKED = 4
_FRAMES_PER_VIDEO = 16


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: where.
        agreement: of a TFLite file with the Keras model; None where they were not compared.
        compared: ``"frames"`` or ``"clips"``, which they were compared on.
    """

    file: Path
    agreement: Agreement | None = None
    compared: str = ""


def export(
    run: str | os.PathLike[str],
    *,
    form: str = "stripped",
    format: str = "keras",
    output: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    check: bool = True,
    overwrite: bool = False,
    **settings: Any,
) -> Exported:
    """Write a refined model with plain Keras layers, as TFLite, or its thresholds as JSON.

    Args:
        run: a run directory, or its ``refined.keras``.
        form: ``"stripped"``: no thresholds; ``"quantized"``: rounds or holds.
        format: ``"keras"``, ``"tflite"`` or ``"thresholds"``.
        output: the file; default: ``RUN/export/FORM.FORMAT``.
        data: videos to compare TFLite with Keras on; default: those of the run.
        check: whether to compare.
        overwrite: replace an existing file.
        settings: the fields of :class:`deltafine.settings.RefineSettings` that say how the model is loaded, the clip
            length ``frames``, and how the videos are read; default: those of the run.

    Raises:
        DeltafineError: the model has no such form, the file exists, or there is nothing to compare on.

    Examples:
        >>> done = deltafine.export("run/", output="stripped.keras")
        >>> keras.models.load_model(done.file).input_shape
        (None, 16, 16, 3)
    """
    from deltafine.exporting.forms import export_plain, threshold_table
    from deltafine.model import load

    if format not in FORMATS:
        raise DeltafineError(f"The format must be one of {', '.join(FORMATS)}, not '{format}'.")
    run, given = Path(run), checked(**settings)
    path = run / "refined.keras" if run.is_dir() else run
    name = "thresholds.json" if format == "thresholds" else f"{form}.{format}"
    target = Path(output) if output is not None else path.parent / "export" / name
    if target.exists() and not overwrite:
        raise DeltafineError(f"{target} exists already: give --overwrite to replace it, or another --output.")
    refined = load(path, **trust_in(given))
    check_clip_output(refined, given.get("clip_output"))
    make_folder(target.parent)
    if format == "thresholds":
        write_atomically(target, (json.dumps(threshold_table(refined), indent=1) + "\n").encode())
        return Exported(target)
    plain = export_plain(refined, form, frames=given.get("frames"))
    if format == "keras":
        write_atomically(target, plain.save)
        return Exported(target)
    return _write_tflite(plain, target, _clips(plain, path, data, given) if check else None)


def _write_tflite(plain: Any, target: Path, clips: np.ndarray | None) -> Exported:
    from deltafine.exporting.forms import frames_of
    from deltafine.exporting.tflite import compare, to_tflite

    content = to_tflite(plain)
    done = Exported(target)
    if clips is not None:
        inputs = frames_of(clips, plain)
        compared = "frames" if len(inputs[0].shape) < clips.ndim else "clips"
        done = Exported(target, compare(content, plain, inputs), compared)
    write_atomically(target, content)
    return done


def _clips(plain: Any, model: Path, data: str | os.PathLike[str] | None, given: Mapping[str, Any]) -> np.ndarray:
    """Some frames of the run's videos, (clips, time, height, width, channels); one clip for a per-frame model."""
    origin = origin_of(model)
    where = Path(data) if data is not None else None if origin is None else Path(origin.settings.data)
    if where is None:
        raise DeltafineError(
            f"There is no settings.toml in {model.parent} that names videos: give --data, or --no-check."
        )
    if origin is not None and data is None:
        left_aside = ("classes",) if origin.settings.task == "distill" else ()
        run = {name: value for name, value in origin.reading.items() if name in HOW_IT_SPLIT and name not in left_aside}
        given = {**run, **given}
    shape = plain.inputs[0].shape
    by_clip = len(shape) == 5
    height, width, channels = shape[2 if by_clip else 1 :]
    length = shape[1] if by_clip else _FRAMES_PER_VIDEO
    found = []
    for _, stream in frames_of_videos(where, given, size=(height, width), channels=channels, chunk=length):
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
