"""What a measurement gives: plain documents of figures, without TensorFlow.

Each figure has one definition (docs/metrics); the modules beside this one compute them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

DEFINITIONS_VERSION = 1
"""Raised whenever a figure changes its meaning: measurements of different definitions are not compared."""


LENIENT = "lenient"
"""In the context of a validation: fields that only a newer version knows are left out."""


class DocumentObject(BaseModel):
    """An object of a document: unknown fields are refused, those of earlier versions are read by their names of today.

    What is read from a file may have been written by a newer version, see ``LENIENT``.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")
    renamed: ClassVar[dict[str, str]] = {}
    """Names of fields in earlier versions, and what they are called now."""

    @model_validator(mode="before")
    @classmethod
    def _read_other_names(cls, given: Any, info: ValidationInfo) -> Any:
        lenient = bool(info.context and info.context.get(LENIENT))
        if not isinstance(given, dict) or not (cls.renamed or lenient):
            return given
        named = {cls.renamed.get(name, name): value for name, value in given.items()}
        return {name: value for name, value in named.items() if not lenient or name in cls.model_fields}


class Estimate(DocumentObject):
    """A share or a difference of shares, with its 95% interval (bootstrap over recordings)."""

    value: float
    low: float
    high: float


Unit = Literal["share", "points", "macs", "bytes", "count", "times", "number", "joules"]
"""How a figure is shown: a share as a percentage, a number with three digits, and so on."""


class NamedFigure(DocumentObject):
    """A figure of a metric that is not one of deltafine's own."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60, description="such as answer_jumps")
    value: float | Estimate | None = Field(description="null where it could not be measured")
    unit: Unit = Field(description="how it is shown")
    meaning: str = Field(description="one line that defines it")
    better: Literal["lower", "higher"] | None = Field(None, description="null where neither is better by itself")


class LayerFigures(DocumentObject):
    """One layer with multiply-accumulates, measured at its own input (a layer called twice has two entries)."""

    name: str
    kind: str = Field(description="layer class, for example Conv2D")
    dense_macs: int = Field(description="MACs per frame, padding zeros not counted")
    effective_macs_delta: float = Field(description="mean MACs per frame that meet a changed input, frames 2..T")
    effective_macs_spatial: float = Field(description="mean MACs per frame that meet a non-zero input, all frames")
    activation_density: float = Field(description="non-zero input elements / elements, all frames")
    delta_density: float = Field(description="changed input elements / elements, frames 2..T")
    pixel_density: float = Field(description="input positions where any channel changed / positions, frames 2..T")
    mac_density: float = Field(description="effective_macs_delta / dense_macs")
    accumulates_delta: float | None = Field(None, description="those of effective_macs_delta that need no product")
    accumulates_spatial: float | None = Field(None, description="those of effective_macs_spatial that need no product")
    overhead_operations: float | None = Field(
        None, description="mean comparisons, subtractions and memory moves per frame that delta inference adds"
    )
    break_even_density: float | None = Field(
        None, description="delta density at which effective MACs + overhead = dense MACs; 0: it never pays"
    )


class DeltaFigures(DocumentObject):
    """One delta layer, measured at its output."""

    renamed = {
        "unit": "granularity",
        "step_minimum": "threshold_minimum",
        "step_median": "threshold_median",
        "step_maximum": "threshold_maximum",
        "steps_at_floor": "thresholds_at_floor",
    }

    name: str
    rule: str
    granularity: str
    threshold_minimum: float
    threshold_median: float
    threshold_maximum: float
    elements: int = Field(description="elements of one frame")
    activation_density: float
    delta_density: float = Field(description="events / elements, frames 2..T")
    pixel_density: float
    staleness: float = Field(description="mean |value sent - true value| / threshold over the frames")
    silent_channels: float = Field(description="share of channels that never fired")
    saturated_channels: float = Field(description="share of channels that fired in every element and frame")
    state_bytes: int
    bits: int | None = Field(None, description="of the quantised output; None for a rule that does not quantise")
    thresholds_at_floor: float | None = Field(
        None, description="share of thresholds so small that every change is sent"
    )


class Operations(DocumentObject):
    """Totals of one model over all covered layers."""

    dense_macs: int = Field(description="MACs per frame of the covered layers")
    effective_macs_delta: float = Field(description="mean per frame, first frames of clips left out (steady state)")
    effective_macs_delta_with_first: float = Field(description="mean per frame, first frames counted dense")
    effective_macs_spatial: float = Field(description="mean per frame, first frames left out")
    effective_macs_spatial_with_first: float
    mac_density: float = Field(description="effective_macs_delta / dense_macs: the headline")
    mac_density_with_first: float
    mac_density_spatial: float
    activation_sparsity: float = Field(description="zeros / elements over all covered layers' inputs, all frames")
    delta_sparsity: float = Field(description="1 - changed / elements over all covered layers' inputs, frames 2..T")
    pixel_density: float = Field(description="changed positions / positions, layers weighted by their dense MACs")
    frame_macs_p50: float = Field(description="median over frames 2..T of effective delta MACs of one frame")
    frame_macs_p95: float
    frame_macs_worst: int
    state_bytes: int = Field(description="bytes that a delta inference keeps between frames")
    accumulates_delta: float | None = Field(None, description="those of effective_macs_delta that need no product")
    accumulates_delta_with_first: float | None = None
    accumulates_spatial: float | None = Field(None, description="those of effective_macs_spatial that need no product")
    accumulates_spatial_with_first: float | None = None
    overhead_operations: float | None = Field(
        None, description="mean comparisons, subtractions and memory moves per frame that delta inference adds"
    )
    overhead_operations_with_first: float | None = None
    density_with_overhead: float | None = Field(
        None, description="(effective_macs_delta + overhead_operations) / dense_macs"
    )
    energy_dense: float | None = Field(None, description="joules per frame of a dense inference: an estimate")
    energy_delta: float | None = Field(None, description="joules per frame, steady state: an estimate")


class VideoFigures(DocumentObject):
    """One model on one video, a stream of its own."""

    video: str = Field(description="its name in the data")
    recording: str = Field(
        description="the same for all videos of one recording, as far as their names or the data's `group` tell"
    )
    frames: int = Field(description="frames measured")
    labelled: int = Field(0, description="answers that have a label")
    label_changes: int = Field(0, description="labelled answers whose label is another than that of the one before")
    accuracy: float | None = Field(None, description="labelled answers that are right")
    fidelity: float | None = Field(None, description="answers that are those of the original")
    error: float | None = Field(
        None,
        description="of numbers: to the labels, else to the original's answers, in units of their spread over all "
        "videos",
    )
    mac_density: float | None = Field(
        None, description="as that of all videos; None where the video has no second frame"
    )
    frame_macs_worst: int | None = Field(None, description="effective MACs of its dearest frame but the first")


class OutputFigures(DocumentObject):
    """One of several outputs of a model, beside that of the original on the same frames."""

    name: str = Field(description="its key in a dict of outputs, or the layer that makes it")
    shape: list[int] = Field(description="of its answer to one frame, or window")
    weight: float = Field(1.0, description="how much it counts beside the others")
    relative_error: float | None = Field(
        None, description="error to the original's predictions of this output / their spread, root mean square"
    )
    fidelity: float | None = Field(
        None, description="of probabilities of classes: answers whose class is that of the original"
    )
    label_error: float | None = Field(
        None,
        description="of an output with labels: error to them / their spread, root mean square; of classes that of the "
        "probabilities to 1 for the right class and 0 for the others",
    )
    accuracy: float | None = Field(
        None, description="of an output with labels that are classes: answers that are right"
    )


class ClassFigures(DocumentObject):
    """One model on the frames of one class, on streams."""

    label: int = Field(ge=0, description="index of the class, the first is 0")
    labelled: int = Field(description="answers to what is of this class")
    answered: int = Field(description="labelled answers that are this class")
    right: int = Field(description="answers that are both")


class Confused(DocumentObject):
    """How often one class is taken for another, on streams."""

    label: int = Field(ge=0, description="index of the right class")
    answer: int = Field(ge=0, description="index of the answer")
    count: int


class WorstAnswer(DocumentObject):
    """A frame of a stream at which a model is much worse than the original, or simply wrong where that is unknown."""

    video: str
    frame: int = Field(ge=0, description="of the frames that were measured, the first is 0")
    answer: float | None = Field(None, description="class index, or number; null where it is neither, as of maps")
    original: float | None = Field(None, description="the original's")
    truth: float | None = Field(None, description="the label; without any, what the original answered")
    lost: float = Field(
        description="probability of what is right that it gives less than the original, or error that it makes more; "
        "of maps the share of positions answered otherwise"
    )


class Timeline(DocumentObject):
    """One model on one stream, from its first frame to its last, in at most 240 points."""

    video: str
    frames: int = Field(ge=1, description="of the stream")
    each: int = Field(ge=1, description="frames that a point stands for")
    macs: list[float] = Field(description="effective MACs / dense MACs, mean of these frames; a first frame is dense")
    answers: list[float | None] = Field(description="the most frequent class index, or the mean number")
    original: list[float | None] = Field(description="the original's")
    truth: list[float | None] = Field(description="the labels; without any, what the original answered")


class Figures(DocumentObject):
    """What was measured of one model in one way of feeding the video."""

    videos: int
    recordings: int | None = Field(
        None, description="of which the videos are, as far as their names or the data's `group` tell"
    )
    frames: int = Field(description="frames measured, first frames included")
    frame_accuracy: Estimate | None = None
    window_accuracy: Estimate | None = Field(None, description="windows of T frames, predictions averaged")
    clip_accuracy: Estimate | None = Field(None, description="whole videos, predictions averaged")
    accuracy_change: Estimate | None = Field(
        None,
        description="paired difference to the original: frame accuracy on streams, window accuracy on clips",
    )
    frozen_accuracy: Estimate | None = Field(
        None,
        description="accuracy of the original's first-frame prediction (without it: the model's own), held for the "
        "whole video on streams, for the window on clips",
    )
    gain_over_frozen: Estimate | None = Field(
        None, description="on streams: paired difference of accuracy to the frozen control on the same videos"
    )
    fidelity: float | None = Field(None, description="share of frames predicted as the original model predicts them")
    frozen_fidelity: float | None = Field(
        None, description="fidelity of the original's first-frame prediction, held for the whole video"
    )
    relative_error: float | None = Field(
        None, description="of numbers: error to the original's predictions / their spread, root mean square"
    )
    label_error: float | None = Field(None, description="of numbers: error to the labels / their spread")
    frozen_error: float | None = Field(
        None,
        description="error of the original's first-frame prediction, held: to the labels, or to its own predictions "
        "where there are none",
    )
    score: Estimate | None = Field(
        None, description="mean over the videos of the score that was asked for, higher is better; on streams"
    )
    score_change: Estimate | None = Field(None, description="paired difference of the score to the original's")
    frozen_score: Estimate | None = Field(
        None, description="score of the original's first-frame prediction, held for the whole video"
    )
    operations: Operations
    layers: list[LayerFigures]
    deltas: list[DeltaFigures]
    by_video: list[VideoFigures] = Field(default=[], description="on streams: every video that was measured")
    by_class: list[ClassFigures] = Field(default=[], description="on streams: classes that labels or answers name")
    confused: list[Confused] = Field(
        default=[], description="on streams: classes that are taken for others, the most frequent first, at most 200"
    )
    worst_answers: list[WorstAnswer] = Field(
        default=[], description="on streams, of a model that answers per frame, beside the original: a few frames"
    )
    timelines: list[Timeline] = Field(
        default=[], description="of the streams on which it loses most, and of the first one"
    )
    outputs: list[OutputFigures] = Field(
        default=[], description="of a model with several outputs: each beside the original's, in the model's order"
    )
    named: list[NamedFigure] = Field(default=[], description="of metrics that are not deltafine's own")


class Measurement(DocumentObject):
    """One model: continuous streams (the headline) and clips as in training."""

    streams: Figures
    clips: Figures
