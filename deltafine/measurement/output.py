"""How the output of a model is read: as classes or as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from deltafine.measurement.parts import OutputPart, PartLabels, split
from deltafine.video.labels import label_of

ClipOutput = Literal["mean", "last", "per-frame"]
EXACT, ROUNDED = 1e-3, 2e-2
"""How far probabilities may sum beside 1, computed in single and in half precision."""


@dataclass(frozen=True)
class Output:
    """What predictions (..., outputs) say.

    Attributes:
        kind: ``"classes"``, one score per class (a single one is class 1's); or ``"numbers"``, each output a
            quantity of its own, such as an angle, a position or a depth.
        probabilities: of classes: whether scores are probabilities, not logits.
        values: of numbers: what each label of the data stands for; () where it has none.
        clip_output: what stands for a clip: the ``"mean"`` over its frames, the ``"last"`` one, or nothing
            (``"per-frame"``).
        parts: of a model with several outputs; predictions are then (..., values), one output after the other. All of
            them are numbers.
        truth: (labels, parts) float64, what each label stands for, of the outputs that have labels: a number, or the
            index of a class; NaN where there is none. None where labels are not looked at.
    """

    kind: Literal["classes", "numbers"] = "classes"
    probabilities: bool = True
    values: tuple[float, ...] = ()
    clip_output: ClipOutput = "mean"
    parts: tuple[OutputPart, ...] = ()
    truth: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def numbers(self) -> bool:
        return self.kind == "numbers"

    @property
    def has_targets(self) -> bool:
        """Whether the videos have labels that say what numbers should be."""
        return bool(self.values) or self.truth is not None

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions such that a single score of a class is its probability."""
        if any(_are_logits(part) for part in self.parts):
            apart = zip(self.parts, split(predictions, self.parts), strict=True)
            found = [probabilities_of(piece) if _are_logits(part) else piece for part, piece in apart]
            return np.concatenate([piece.reshape(*predictions.shape[:-1], -1) for piece in found], axis=-1)
        if self.numbers or self.probabilities or predictions.shape[-1] != 1:
            return predictions
        return probabilities_of(predictions)

    def of_clip(self, predictions: np.ndarray) -> np.ndarray | None:
        """What predictions (frames, ...) say about the clip; None with ``"per-frame"``."""
        if self.clip_output == "per-frame":
            return None
        return np.asarray(predictions.mean(0) if self.clip_output == "mean" else predictions[-1])

    def label_of(self, labels: np.ndarray) -> int:
        """The label that stands for a window whose frames have labels (frames,) of their own."""
        return label_of(labels, self.values if self.numbers else (), in_rows=self.truth is not None)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Label indices (frames,) as numbers (frames, 1).

        Of several outputs (frames, values), as predictions are: NaN where there is no label, and a class of several
        as 1 among 0.
        """
        if self.truth is None:
            return np.asarray(self.values, np.float64)[labels][:, None]
        found = []
        for part, column in zip(self.parts, self.truth[labels].T, strict=True):
            if part.labels is None or part.size == 1:
                found.append(np.repeat(column[:, None], part.size, axis=1))
            else:
                one_of = column[:, None] == np.arange(part.size)
                found.append(np.where(np.isnan(column)[:, None], np.nan, one_of))
        return np.concatenate(found, axis=1)

    def read_parts(self, predictions: np.ndarray) -> Output:
        """The same, now that the original's predictions (frames, values) tell which scores are probabilities."""
        return replace(
            self,
            parts=tuple(
                _read_part(part, piece) for part, piece in zip(self.parts, split(predictions, self.parts), strict=True)
            ),
        )


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Of logits (..., classes); a single one is that of class 1."""
    if logits.shape[-1] == 1:
        return np.asarray(1 / (1 + np.exp(-logits)))
    scaled = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(-1, keepdims=True))


def _are_logits(part: OutputPart) -> bool:
    return part.labels is not None and part.labels.classes > 0 and not part.labels.probabilities


def _read_part(part: OutputPart, predictions: np.ndarray) -> OutputPart:
    if part.labels is None or not part.labels.classes:
        return part
    probabilities = are_probabilities(predictions)
    if not probabilities and not part.labels.certain:  # a number that should be 0 or 1
        return replace(part, labels=PartLabels())
    return replace(part, labels=replace(part.labels, probabilities=probabilities))


def are_probabilities(predictions: np.ndarray) -> bool:
    """Whether predictions (..., classes) are probabilities, not logits: within 0..1, and summing to 1.

    Those of a model that answers in half precision sum to 1 only as nearly as that can tell.
    """
    predictions = np.asarray(predictions, np.float32)
    inside = bool(np.all(predictions >= 0) and np.all(predictions <= 1 + 1e-5))
    near = ROUNDED if _in_half_precision(predictions) else EXACT
    return inside and (predictions.shape[-1] == 1 or np.allclose(predictions.sum(-1), 1, atol=near))


def _in_half_precision(values: np.ndarray) -> bool:
    """Whether all values are some of float16's, or of bfloat16's: float32 with nothing in its lower 16 bits."""
    as_bfloat16 = (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF) == 0
    with np.errstate(over="ignore"):
        as_float16 = values.astype(np.float16).astype(np.float32) == values
    return bool(as_bfloat16.all() or as_float16.all())
