"""Measuring any Keras model afresh on videos: a report without a refinement."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltafine.errors import DeltafineError
from deltafine.pipeline import Quiet, data_info, model_info, peak_memory_bytes, versions

if TYPE_CHECKING:
    from deltafine.refinement.listener import Listener
    from deltafine.report.document import Picture, Report
    from deltafine.video import Dataset

ORIGINAL, REFINED, MEASURED = "original", "refined", "measured"


def measure_model(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    original: str | os.PathLike[str] | None = None,
    streams: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    split: int = 1,
    frames: int = 8,
    fps: float | None = None,
    rescale: str | None = None,
    custom_objects: Sequence[str] = (),
    unsafe_lambda: bool = False,
    listener: Listener | None = None,
) -> tuple[Report, list[tuple[Picture, bytes]]]:
    """Measure a model on the validation videos of some data.

    Args:
        model: a per-frame model, or a refined one with its delta layers inside.
        data: path of the videos, see docs/data.md for the layouts.
        original: the model that the first was refined from, to compare with.
        streams: path of other videos for the continuous streams.
        classes, layout, split: of the data, as for ``open_dataset``.
        frames: length T of the clips.
        fps: frames are taken at this rate; None for all frames.
        rescale: ``"0..1"`` or ``"-1..1"`` where a per-frame model wants its pixels so.
        custom_objects, unsafe_lambda: as for ``deltafine.model.load``.
        listener: told how far it is.

    Returns:
        The report, whose model is called ``"refined"`` if it has delta layers; and pictures with their PNGs.

    Raises:
        DeltafineError: the model or the videos cannot be used as they are.
    """
    from deltafine.measurement import measure
    from deltafine.measurement.energy import HOROWITZ
    from deltafine.model import delta_layers, load
    from deltafine.model.custom_objects import import_objects
    from deltafine.report.document import Report
    from deltafine.report.pictures import draw_pictures
    from deltafine.report.summary import cautions
    from deltafine.video import open_dataset

    started = time.monotonic()
    listener = listener or Quiet()
    objects = import_objects(tuple(custom_objects))

    def loaded(path: str | os.PathLike[str]) -> Any:
        return _clip_model(load(Path(path), custom_objects=objects, unsafe_lambda=unsafe_lambda), rescale)

    measured = loaded(model)
    name = REFINED if delta_layers(measured) else ORIGINAL if original is None else MEASURED
    models = {name: measured} if original is None else {ORIGINAL: loaded(original), name: measured}
    opened = open_dataset(data, layout=layout, split=split, classes=classes)
    continuous = opened if streams is None else open_dataset(streams, classes=opened.classes or None)
    _check_classes(measured, opened)
    listener.say(opened.summary())
    figures = measure(
        models,
        opened,
        frames=frames,
        streams=continuous,
        fps=fps,
        progress=lambda what, done, total: listener.progress(f"measuring {what}", done, total),
    )
    settings = {
        "model": str(model),
        "data": str(data),
        "original": None if original is None else str(original),
        "streams": None if streams is None else str(streams),
        "classes": None if classes is None else list(classes),
        "layout": layout,
        "split": split,
        "frames": frames,
        "fps": fps,
        "rescale": rescale,
    }
    pictures = draw_pictures(models, opened, frames=frames) if frames > 1 else []
    report = Report(
        title=f"{Path(model).name} on {Path(data).name or data}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
        settings=settings,
        settings_hash=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16],
        model=model_info(measured, Path(model), (1, *measured.inputs[0].shape[2:])),
        data=data_info(opened),
        stream_data=None if continuous is opened else data_info(continuous),
        sites=[],
        models=figures,
        energy_table=HOROWITZ,
        pictures=[picture for picture, _ in pictures],
    )
    report.warnings = cautions(report)
    return report, pictures


def _clip_model(model: Any, rescale: str | None) -> Any:
    """A model that can be measured: refined ones are clip models already."""
    from deltafine.model import insert_deltas
    from deltafine.model.clip_model import FRAME_PREDICTIONS

    if FRAME_PREDICTIONS in {layer.name for layer in model.layers}:
        return model
    shape = model.inputs[0].shape
    if len(model.inputs) != 1 or len(shape) != 4 or None in shape[1:] or shape[3] not in (1, 3):
        raise DeltafineError(
            f"The model takes {[tuple(tensor.shape) for tensor in model.inputs]}; measuring needs one input of frames "
            "(batch, height, width, 1 or 3 channels) of a fixed size."
        )
    return insert_deltas(model, [], rescale=rescale)


def _check_classes(model: Any, data: Dataset) -> None:
    shape = model.outputs[0].shape
    outputs = 2 if shape[-1] == 1 else shape[-1]
    if data.classes and len(shape) == 2 and len(data.classes) != outputs:
        raise DeltafineError(
            f"The model has {shape[-1]} outputs but {data.path} has {len(data.classes)} classes: name the model's "
            "classes in the order of its outputs with --classes."
        )
