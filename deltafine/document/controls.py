"""What a user would do instead of delta layers: the original on fewer frames, its answer held between."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deltafine.document.figures import DocumentObject, Figures

MOST_HELD = 1_000_000
"""Frames."""


class HeldPoint(DocumentObject):
    """The original runs on every k-th frame of a stream, and on its first; it costs 1/k of the dense MACs."""

    every: int = Field(ge=1, le=MOST_HELD, description="k")
    quality: float = Field(description="mean over the k phases; of a score, over at most 4 of them")
    low: float = Field(description="of the phase with the lowest figure")
    high: float = Field(description="of the phase with the highest figure")


class GatePoint(DocumentObject):
    """The original runs where a frame differs enough from the one that it ran on last."""

    threshold: float = Field(description="mean absolute difference of pixels, 0 to 255, that is exceeded")
    share: float = Field(description="frames that the original runs on / frames: its cost in dense MACs")
    quality: float


class RefinedHeldPoint(DocumentObject):
    """The subject model runs on every k-th frame, beginning with the first."""

    every: int = Field(ge=1, le=MOST_HELD, description="k")
    quality: float
    mac_density: float = Field(
        description="effective MACs per frame of the video / dense MACs, first frames left out; measured on every "
        "k-th frame, between which more changes"
    )


class AnswerAgePoint(DocumentObject):
    """How many frames a model takes to answer with a new label."""

    model: str
    every: int = Field(
        ge=1,
        le=MOST_HELD,
        description="k: it runs on every k-th frame; 1 for all. Of the original, all phases together",
    )
    changes: int = Field(description="frames whose label is another than that of the frame before")
    followed: float = Field(description="share of changes that are followed before the next one")
    median: float | None = Field(description="frames until the answer is the new label; null: half are not followed")
    p95: float | None = Field(description="95th percentile; null: more than 5% are not followed")


class TrainedControl(DocumentObject):
    """The original after the same training without delta layers: as many epochs, batches, targets and rates."""

    epochs: int
    quality: float = Field(description="on every frame")
    held: list[HeldPoint] = Field(default=[], description="on every k-th frame")


class Controls(DocumentObject):
    """Simple ways to save, on `streams`, judged as the models are there."""

    judged_by: Literal["accuracy", "error", "fidelity", "score"] = Field(
        description="what `quality` is: accuracy of frames or windows; of numbers, the error to labels, or to the "
        "original's answers; fidelity where classes have no labels; the score that was asked for. An error is better "
        "when lower"
    )
    held: list[HeldPoint] = Field(default=[], description="of the original; empty where it was not measured")
    motion_gate: list[GatePoint] = Field(default=[], description="of the original")
    refined_held: list[RefinedHeldPoint] = Field(
        default=[], description="of the refined model, else of the calibrated one; measured with `--streams`"
    )
    answer_age: list[AnswerAgePoint] = Field(default=[], description="of classes with labels that change in a stream")
    trained: TrainedControl | None = Field(default=None, description="measured with `--control`")

    def quality_of(self, figures: Figures) -> float | None:
        """A model on streams by the measure that the controls are judged by."""
        if self.judged_by == "score":
            return None if figures.score is None else figures.score.value
        if self.judged_by == "fidelity":
            return figures.fidelity
        if self.judged_by == "accuracy":
            accuracy = figures.frame_accuracy or figures.window_accuracy
            return None if accuracy is None else accuracy.value
        return figures.relative_error if figures.label_error is None else figures.label_error
