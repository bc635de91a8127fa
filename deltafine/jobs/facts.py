"""What a report says of the model, the videos, the program and the machine."""

from __future__ import annotations

import hashlib
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from deltafine.document.report import DataInfo, ModelInfo, ScoreInfo, Versions
    from deltafine.measurement.scoring import Scoring
    from deltafine.model.freezing import Frozen
    from deltafine.video import Dataset


def model_info(
    model: keras.Model,
    path: Path,
    sample_shape: Sequence[int],
    *,
    window: int | None = None,
    class_vector: bool = True,
    frozen: Frozen | None = None,
    further: Sequence[str] = (),
) -> ModelInfo:
    """What a report says of a model that takes samples of this shape, and gives a class vector or something else.

    ``frozen`` says what of it a training left as it is, ``further`` what it takes beside its frames, and from where.
    """
    from deltafine.document.report import FrozenInfo, ModelInfo, Uncovered
    from deltafine.model import mac_layers

    layers = mac_layers(model, tuple(sample_shape))
    known = sum(entry.dense_macs or 0 for entry in layers)
    return ModelInfo(
        name=path.name,
        sha256=sha256(path),
        parameters=model.count_params(),
        input_shape=list(sample_shape),
        further_inputs=list(further),
        outputs=model.outputs[0].shape[-1] if class_vector else None,
        window=window,
        coverage=sum(entry.dense_macs or 0 for entry in layers if entry.covered) / known if known else 0.0,
        uncovered=[
            Uncovered(name=entry.path, kind=type(entry.layer).__name__, dense_macs=entry.dense_macs)
            for entry in layers
            if not entry.covered
        ],
        counted_whole=[entry.path for entry in layers if entry.whole],
        frozen=None if frozen is None or not frozen.parameters else FrozenInfo(**asdict(frozen)),
    )


def data_info(data: Dataset, *, beside: Dataset | None = None) -> DataInfo:
    """What a report says of a data set; problems that are said of the one beside it are not said again."""
    from deltafine.document.report import DataInfo, VideoProblem
    from deltafine.video.finding import as_text

    said = set() if beside is None or beside.path != data.path else {problem.video for problem in beside.problems}
    problems = [problem for problem in data.problems if problem.video not in said]
    return DataInfo(
        path=str(data.path),
        layout=data.layout,
        classes=[] if data.values else [as_text(name) for name in data.classes],
        train_videos=len(data.select("train")),
        validation_videos=len(data.select("validation")),
        test_videos=len(data.select("test")),
        fingerprint=data.fingerprint(),
        problems=[VideoProblem(video=as_text(problem.video), reason=problem.reason) for problem in problems],
    )


def score_info(scoring: Scoring | None, labelled: bool) -> ScoreInfo | None:
    """What a report says of a score; None without one."""
    from deltafine.document.report import ScoreInfo

    if scoring is None:
        return None
    return ScoreInfo(name=scoring.name, against="labels" if labelled else "original", sha256=scoring.source)


def versions() -> Versions:
    """Versions of everything that makes the figures."""
    import av
    import keras
    import numpy
    import tensorflow

    from deltafine import __version__
    from deltafine.document.report import Versions

    return Versions(
        deltafine=__version__,
        python=platform.python_version(),
        keras=keras.__version__,
        tensorflow=tensorflow.__version__,
        numpy=numpy.__version__,
        av=av.__version__,
        platform=platform.platform(),
    )


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
