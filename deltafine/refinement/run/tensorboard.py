"""Logs for TensorBoard, for those who ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from deltafine.document.history import Epoch

_SCALARS = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
    data_class=1,  # DATA_CLASS_SCALAR of tensorboard.compat.proto.summary
)


class Logs:
    """Writes scalars into a folder; without a folder, nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._writer = None if folder is None else tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, step: int, figures: Sequence[float], penalty: float) -> None:
        """What a training step gave: task loss, penalty as it enters the loss, accuracy; and λ."""
        self._write(step, dict(zip(("task_loss", "penalty_loss", "accuracy"), figures, strict=True)), "train")
        self._write(step, {"lambda": penalty}, "train")

    def epoch(self, epoch: Epoch, step: int) -> None:
        """What the validation after an epoch gave."""
        found = epoch.model_dump(include={"validation_accuracy", "validation_mac_density", "validation_pixel_density"})
        self._write(step, {name.removeprefix("validation_"): value for name, value in found.items()}, "validation")

    def _write(self, step: int, figures: dict[str, float], group: str) -> None:
        if self._writer is None:
            return
        with self._writer.as_default(step=np.int64(step)):
            for name, value in figures.items():
                # tf.summary.scalar does the same, but only where TensorBoard is installed.
                tf.summary.write(f"{group}/{name}", np.float32(value), metadata=_SCALARS)
