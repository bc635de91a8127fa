"""The report document: what `report.json` holds, version by version.

Every figure is defined once, in `deltafine.measurement`; this module only gives figures their place. Reading a
document needs pydantic and nothing heavier.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from deltafine.document.controls import Controls
from deltafine.document.energy import EnergyTable
from deltafine.document.figures import (
    DEFINITIONS_VERSION,
    ClassFigures,
    Confused,
    DeltaFigures,
    DocumentObject,
    Estimate,
    Figures,
    LayerFigures,
    Measurement,
    Operations,
    VideoFigures,
)
from deltafine.document.history import Epoch, FrontPoint
from deltafine.document.sensitivity import SensitivityCurve

__all__ = [
    "DOCUMENT_VERSION",
    "MODEL_NAMES",
    "Activity",
    "ClassFigures",
    "Confused",
    "Controls",
    "DataInfo",
    "DeltaFigures",
    "EnergyTable",
    "Epoch",
    "Estimate",
    "Figures",
    "FrontPoint",
    "FrozenInfo",
    "LayerFigures",
    "Measurement",
    "ModelInfo",
    "Operations",
    "Picture",
    "Reference",
    "Report",
    "RuntimeTimes",
    "ScoreInfo",
    "SensitivityCurve",
    "SiteInfo",
    "Timing",
    "Uncovered",
    "Versions",
    "VideoFigures",
    "VideoProblem",
]

DOCUMENT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 has other names for thresholds and their granularity."""

MOSTLY, RESTLESS = 0.5, 0.25
"""Share of the pixels, and of the frames or of the spread of the answers, that are named as a reason."""

MODEL_NAMES = ("original", "calibrated", "refined")
"""The columns of a report, in the order in which they are shown. A report may lack the last two."""


class SiteInfo(DocumentObject):
    """One activation of the model, with or without a delta layer."""

    name: str
    kind: str
    shape: list[int | None]
    consumers: list[str]
    fan_out_macs: int
    mac_share: float
    selected: bool
    reason: str = ""


class Uncovered(DocumentObject):
    """A layer with MACs that the measurement does not cover."""

    name: str
    kind: str
    dense_macs: int | None = Field(None, description="per frame, where a formula is known")


class FrozenInfo(DocumentObject):
    """Weights that a training leaves as they are."""

    parameters: int = Field(description="numbers in frozen weights")
    of: int = Field(description="numbers in all weights that a training would change if nothing were frozen")
    layers: list[str] = Field(description="paths of the layers that have frozen weights")


class ModelInfo(DocumentObject):
    name: str
    sha256: str
    parameters: int
    input_shape: list[int | None]
    further_inputs: list[str] = Field([], description="inputs beside the frames, each with where its numbers came from")
    outputs: int | None = Field(None, description="classes, None where the output is not a class vector")
    window: int | None = Field(
        None, description="frames of a clip, where the model takes clips: operations are then counted per clip"
    )
    coverage: float = Field(description="share of the model's dense MACs in covered layers")
    uncovered: list[Uncovered] = []
    counted_whole: list[str] = Field(
        [], description="layers of which all MACs count wherever an input changes: which are needed is not known"
    )
    frozen: FrozenInfo | None = Field(None, description="what of it was frozen while it was refined, if anything was")


class VideoProblem(DocumentObject):
    video: str
    reason: str


class DataInfo(DocumentObject):
    path: str
    layout: str
    classes: list[str] = Field(description="empty where labels are numbers")
    train_videos: int
    validation_videos: int
    test_videos: int = Field(0, description="kept apart for the report, where there is a validation split as well")
    fingerprint: str
    problems: list[VideoProblem] = []


class Picture(DocumentObject):
    """Where events happen, or a frame that is answered badly; the PNG lies in the run directory, in `pictures/`."""

    file: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*\.png$", description="file name inside `pictures/`")
    video: str
    caption: str
    kind: Literal["events", "worst"] = Field(
        default="events", description="where events happen, or a frame of `worst_answers`"
    )


class Versions(DocumentObject):
    deltafine: str
    python: str
    keras: str
    tensorflow: str
    numpy: str
    av: str
    platform: str


class Activity(DocumentObject):
    """How much changes from one frame to the next, on the videos that were calibrated on."""

    moved: float = Field(description="share of the pixels that change by more than 2% of the range of the frames")
    noisy: float = Field(description="share of the pixels that change by less, but change")
    answers: float | None = Field(
        None, description="share of the frames whose class changes; of numbers, their mean change in their own spread"
    )
    numbers: bool = Field(description="whether answers are numbers")

    @property
    def reason(self) -> str:
        """Why so little can be left out, as far as this tells."""
        pixels = f"{self.moved:.0%} of the pixels change by more than 2% of their range, {self.noisy:.0%} by less"
        if self.answers is None:
            answers = ""
        elif self.numbers:
            answers = f", and the original's answers by {self.answers:.2f} of their spread"
        else:
            answers = f", and the original's class changes in {self.answers:.0%} of the frames"
        if self.moved > MOSTLY:
            why = "most of the picture moves, as with a moving camera"
        elif self.answers is not None and self.answers > RESTLESS:
            why = "the answers hardly ever stay"
        elif self.noisy > MOSTLY:
            why = "noise changes most of the picture"
        else:
            why = "neither motion, nor noise, nor changing answers explain it"
        return f"{why} (from one frame to the next, {pixels}{answers})"


class RuntimeTimes(DocumentObject):
    """What one runtime took per frame, in milliseconds."""

    name: str = Field(
        description="with its version, but for the delta runtime, which is deltafine; beside one in int8, deltafine "
        "float32 is the same in float32"
    )
    p50: float = Field(description="median of the time that passed")
    p95: float = Field(description="95th percentile of the time that passed")
    processor_p50: float = Field(description="median of the processor time of all threads")
    fidelity: float | None = Field(
        None,
        description="share of the answers that are those of TensorFlow, in float32 and without thresholds; None: "
        "numbers, several outputs, or not measured",
    )
    relative_error: float | None = Field(
        None, description="of numbers: error to those answers / their spread, root mean square"
    )
    accuracy: float | None = Field(
        None, description="share of the frames with a label that are answered with it; None: numbers, or no labels"
    )
    label_error: float | None = Field(
        None, description="of numbers: error to the labels / their spread, root mean square"
    )


class Timing(DocumentObject):
    """One measurement by `deltafine bench`: the delta runtime and dense ones on the same frames, in turn."""

    created: str = Field(description="UTC, ISO 8601")
    machine: str
    versions: Versions
    threads: int = Field(description="of the dense runtimes")
    delta_threads: int = Field(1, ge=1, description="of the delta runtime")
    every: int = Field(1, ge=1, description="k: all runtimes ran on every k-th frame of the videos; times are of those")
    engine: str = Field(description="of the delta runtime: numba or numpy")
    precision: str = Field("float32", description="of the delta runtime: float32 or int8")
    data: str
    videos: int
    frames: int = Field(description="that were timed; the first of each video is not")
    runtimes: list[RuntimeTimes] = Field(min_length=2, description="the delta runtime first")


class Reference(DocumentObject):
    """How good the original model is on a few clips, found before anything else is done with it."""

    model: str = Field(description="which of the models was looked at")
    clips: int = Field(description="validation clips that were looked at")
    judged_by: Literal["accuracy", "error", "answers"] = Field(
        description="accuracy: the mean over the classes; error: over the spread of the labels; answers: without labels"
    )
    value: float | None = Field(None, description="the accuracy or the error")
    output: str = Field(default="", description="of a model with several outputs: the worst, which is judged")
    chance: float | None = Field(None, description="what a constant answer has")
    broken: str = Field(
        default="", description="what is wrong, where it is no better than a constant, and what explains it"
    )
    tried: dict[str, float | None] = Field(
        default={}, description="where something is wrong: the same with other scalings of the pixels"
    )
    classes: list[str] = Field(default=[], description="in the order of the outputs, where that is found to be another")


class ScoreInfo(DocumentObject):
    """What `score` is in all figures."""

    name: str = Field(description="mean-iou, or module:function of the user's own")
    against: Literal["labels", "original"] = Field(description="what predictions were compared with")
    sha256: str = Field(description="of the file that the function is in; empty for a built-in one")


class Report(DocumentObject):
    """Everything that one run, or one measurement of a model, has to say."""

    renamed = {"start_steps": "start_thresholds"}

    version: Literal[2] = 2
    definitions: int = DEFINITIONS_VERSION
    title: str
    created: str = Field(description="UTC, ISO 8601")
    seconds: float = Field(description="wall time of the whole run")
    peak_memory_bytes: int
    versions: Versions
    settings: dict[str, Any] = Field(description="every value resolved, enough to repeat the run")
    settings_hash: str
    model: ModelInfo
    data: DataInfo
    stream_data: DataInfo | None = Field(None, description="where the streams came from, if not from `data`")
    sites: list[SiteInfo]
    models: dict[str, Measurement] = Field(description="original, and calibrated and refined where they exist")
    controls: Controls | None = Field(None, description="None where there is nothing to judge answers by")
    sensitivity: SensitivityCurve | None = Field(
        None, description="the subject model with multiplied thresholds; None: not measured"
    )
    history: list[Epoch] = []
    energy_table: EnergyTable | None = Field(None, description="what the estimates of energy are made with")
    front: list[FrontPoint] = []
    kept_budget: bool | None = Field(
        default=None, description="whether the budget that was asked for is kept on `streams`; None if none was"
    )
    start_thresholds: dict[str, float] = Field(
        default={},
        description="median threshold that training started from, by delta layer; not that of the calibrated model",
    )
    pictures: list[Picture] = []
    reference: Reference | None = Field(
        None, description="whether the original works on the videos; None: not looked at"
    )
    activity: Activity | None = Field(None, description="None where a run of an earlier version did not look")
    score: ScoreInfo | None = Field(None, description="what answers were judged by in place of accuracy, if anything")
    timings: list[Timing] = Field(default=[], description="measured times per frame, by every and number of threads")
    warnings: list[str] = []
