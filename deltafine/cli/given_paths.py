"""Paths that are not there are said before TensorFlow is loaded, which takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

from deltafine.errors import DeltafineError

Given = str | os.PathLike[str] | None


def refuse_missing_model(*models: Given) -> None:
    """Raises DeltafineError where one of the model files is not there; None is none."""
    for model in models:
        if model is not None and not Path(model).exists():
            raise DeltafineError(f"There is no model at {model}: check the path.")


def refuse_missing_run(run: Path) -> None:
    """Raises DeltafineError where there is neither a run directory with a model nor a model file."""
    from deltafine.storage import run_files

    file = run / run_files.REFINED if run.is_dir() else run
    if not file.is_file():
        raise DeltafineError(f"There is no model at {file}: give a run directory or a model file.")


def refuse_missing_videos(*data: Given) -> None:
    """Raises DeltafineError where one of the data sets is not there; None is none."""
    from deltafine.video.layouts.choice import refuse_live

    for path in data:
        if path is not None:
            refuse_live(Path(path))
            if not Path(path).exists():
                raise DeltafineError(f"There is nothing at {path}: give a folder of videos or a video file.")
