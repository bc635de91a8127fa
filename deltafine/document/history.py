"""What happened while a model was refined: plain documents, without TensorFlow."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from deltafine.document.figures import DocumentObject


class FrontPoint(DocumentObject):
    """One checkpoint on the way, or a calibrated model, as measured on the validation streams during training."""

    renamed = {"step_scale": "threshold_scale"}

    epoch: int
    penalty: float = Field(description="λ at that epoch")
    accuracy: float
    expected: float | None = Field(
        default=None, description="accuracy on other recordings, as far as the validation videos can tell"
    )
    mac_density: float
    pixel_density: float
    delta_sparsity: float | None = None
    divergence: float | None = Field(
        default=None,
        description="nats per frame that calibration alone spent, for a model that was not trained (epoch 0)",
    )
    threshold_scale: float = Field(default=1.0, description="factor on all thresholds after training, to meet a budget")
    trained_share: float = Field(
        default=1.0, description="how far the weights are from the original's, of the way to those of the epoch"
    )
    chosen: bool = False

    @property
    def judged(self) -> float:
        """What it is chosen by."""
        return self.accuracy if self.expected is None else self.expected


class Epoch(DocumentObject):
    """One row of the training history (also `history.csv`)."""

    epoch: int
    loss: float
    task_loss: float
    penalty_loss: float
    penalty: float = Field(description="λ")
    accuracy: float | None = None
    validation_accuracy: float | None = Field(
        default=None, description="what the epoch is judged by; of numbers 1 - error, of a score the score itself"
    )
    judged_by: Literal["accuracy", "error", "fidelity", "score"] | None = Field(
        default=None, description="what `validation_accuracy` is about"
    )
    validation_mac_density: float
    validation_pixel_density: float
    seconds: float


def to_csv(history: Sequence[Epoch]) -> str:
    """The history as CSV, one line per epoch under a line of names."""
    text = io.StringIO()
    names = [name for name in Epoch.model_fields if name != "judged_by"]  # the same in all lines
    writer = csv.DictWriter(text, fieldnames=names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(epoch.model_dump() for epoch in history)
    return text.getvalue()
