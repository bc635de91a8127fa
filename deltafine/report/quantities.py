"""The figures of a report as one list: what each is called, its unit, and which way is better.

Every way to show, compare or gate a report walks this list, so that a figure has the same name everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deltafine.document.figures import Unit
from deltafine.document.report import MODEL_NAMES, Estimate, Figures, Report
from deltafine.report.text import clean

Feeding = Literal["streams", "clips"]
FEEDINGS: tuple[Feeding, Feeding] = ("streams", "clips")


@dataclass(frozen=True)
class Quantity:
    """One figure of one model.

    `key` is its path below a model's `streams` or `clips` in report.json; `better` is None where neither direction
    is an improvement by itself; `brief` marks the few that are shown where room is short, `rare` those that are 0 for
    most models and then only stand in the files.
    """

    key: str
    label: str
    unit: Unit
    better: Literal["lower", "higher"] | None
    group: str
    meaning: str
    brief: bool = False
    rare: bool = False

    @property
    def in_sentence(self) -> str:
        """The label inside a sentence: abbreviations keep their capitals."""
        label = self.label.strip()
        return label if label.startswith(("MAC", "AC")) else label[0].lower() + label[1:]

    @property
    def of_updates(self) -> bool:
        """Whether it is a cost that a network saves by updating less."""
        others = (_SCORE, _ACCURACY, _ERROR, _OTHERS, "Measured on")
        return self.group not in others and self.key != "operations.state_bytes"

    def read(self, figures: Figures) -> float | Estimate | None:
        """The figure, None where it was not measured."""
        inside, _, name = self.key.rpartition(".")
        if inside == _NAMED:
            return next((figure.value for figure in figures.named if figure.name == name), None)
        value: float | Estimate | None = getattr(figures.operations if inside else figures, name)
        return value

    def point(self, figures: Figures) -> float | None:
        """The figure without its interval."""
        value = self.read(figures)
        return value.value if isinstance(value, Estimate) else value


_SCORE = "Score"
_ACCURACY = "Accuracy"
_ERROR = "Error of numbers"
_COST = "Multiply-accumulates (MACs)"
_SPARSITY = "Sparsity"
_OVERHEAD = "What delta inference adds"
_ENERGY = "Energy per frame (estimates)"
_DEADLINE = "Worst case and memory"
_OTHERS = "Other metrics"
_NAMED = "named"

QUANTITIES: tuple[Quantity, ...] = (
    Quantity(
        "score",
        "Score",
        "number",
        "higher",
        _SCORE,
        "the score that was asked for, of each video; the mean over the videos",
        brief=True,
    ),
    Quantity(
        "score_change",
        "Change of score",
        "number",
        "higher",
        _SCORE,
        "paired difference to the original model's score on the same videos",
        brief=True,
    ),
    Quantity(
        "frozen_score",
        "Frozen score",
        "number",
        None,
        _SCORE,
        "score of the original's prediction for the first frame, held for the whole video",
        brief=True,
    ),
    Quantity("frame_accuracy", "Frame accuracy", "share", "higher", _ACCURACY, "frames predicted right", brief=True),
    Quantity(
        "window_accuracy",
        "Window accuracy",
        "share",
        "higher",
        _ACCURACY,
        "windows of T frames predicted right, predictions averaged over the window",
        brief=True,
    ),
    Quantity(
        "clip_accuracy",
        "Whole-video accuracy",
        "share",
        "higher",
        _ACCURACY,
        "videos predicted right, predictions averaged over the video",
        brief=True,
    ),
    Quantity(
        "accuracy_change",
        "Change, points",
        "points",
        "higher",
        _ACCURACY,
        "paired difference to the original model on the same videos, in percentage points",
        brief=True,
    ),
    Quantity(
        "frozen_accuracy",
        "Frozen control",
        "share",
        None,
        _ACCURACY,
        "the original's prediction for the first frame, held for the whole video; on clips, for the window",
        brief=True,
    ),
    Quantity(
        "gain_over_frozen",
        "Over frozen, points",
        "points",
        "higher",
        _ACCURACY,
        "paired difference of accuracy to the frozen control on the same videos, in percentage points",
    ),
    Quantity(
        "fidelity",
        "Fidelity",
        "share",
        "higher",
        _ACCURACY,
        "frames predicted as the original predicts them",
        brief=True,
    ),
    Quantity(
        "frozen_fidelity",
        "Frozen fidelity",
        "share",
        None,
        _ACCURACY,
        "fidelity of the original's prediction for the first frame, held for the whole video",
    ),
    Quantity(
        "relative_error",
        "Relative error",
        "share",
        "lower",
        _ERROR,
        "of numbers: error to the original's predictions / their spread",
        brief=True,
    ),
    Quantity(
        "label_error",
        "Error to labels",
        "share",
        "lower",
        _ERROR,
        "of numbers: error to the labels / their spread",
        brief=True,
    ),
    Quantity(
        "frozen_error",
        "Frozen error",
        "share",
        None,
        _ERROR,
        "error of the original's prediction for the first frame, held for the whole video",
        brief=True,
    ),
    Quantity(
        "operations.mac_density",
        "MAC density",
        "share",
        "lower",
        _COST,
        "effective MACs / dense MACs, first frames left out (steady state)",
        brief=True,
    ),
    Quantity(
        "operations.mac_density_with_first",
        "  with first frame",
        "share",
        "lower",
        _COST,
        "the same, first frames counted as dense",
    ),
    Quantity(
        "operations.mac_density_spatial",
        "  spatial",
        "share",
        "lower",
        _COST,
        "MACs that meet a non-zero input / dense MACs: what skipping zeros alone would do",
    ),
    Quantity(
        "operations.dense_macs",
        "Dense MACs/frame",
        "macs",
        None,
        _COST,
        "multiply-accumulates of one frame in the covered layers, padding zeros not counted",
    ),
    Quantity(
        "operations.effective_macs_delta",
        "Effective MACs/frame",
        "macs",
        "lower",
        _COST,
        "mean per frame of the MACs that meet a changed input, first frames left out",
        brief=True,
    ),
    Quantity(
        "operations.effective_macs_delta_with_first",
        "  with first frame",
        "macs",
        "lower",
        _COST,
        "the same, first frames counted as dense",
    ),
    Quantity(
        "operations.effective_macs_spatial",
        "  spatial",
        "macs",
        "lower",
        _COST,
        "mean per frame of the MACs that meet a non-zero input, first frames left out",
    ),
    Quantity(
        "operations.effective_macs_spatial_with_first",
        "  spatial, with first",
        "macs",
        "lower",
        _COST,
        "the same over all frames",
    ),
    Quantity(
        "operations.accumulates_delta",
        "  of these ACs",
        "macs",
        None,
        _COST,
        "effective operations that need no product: all inputs of the layer are -1, 0 or 1, first frames left out",
        rare=True,
    ),
    Quantity(
        "operations.accumulates_delta_with_first",
        "  ACs with first frame",
        "macs",
        None,
        _COST,
        "the same, first frames counted as dense",
        rare=True,
    ),
    Quantity(
        "operations.accumulates_spatial",
        "  ACs, spatial",
        "macs",
        None,
        _COST,
        "those of the operations on non-zero inputs that need no multiplication, first frames left out",
        rare=True,
    ),
    Quantity(
        "operations.accumulates_spatial_with_first",
        "  ACs, spatial, first",
        "macs",
        None,
        _COST,
        "the same over all frames",
        rare=True,
    ),
    Quantity(
        "operations.overhead_operations",
        "Overhead operations",
        "macs",
        "lower",
        _OVERHEAD,
        "comparisons, subtractions and memory moves per frame, first frames left out",
    ),
    Quantity(
        "operations.overhead_operations_with_first",
        "  with first frame",
        "macs",
        "lower",
        _OVERHEAD,
        "the same over all frames; a first frame only stores its inputs",
    ),
    Quantity(
        "operations.density_with_overhead",
        "Density, overhead in",
        "share",
        "lower",
        _OVERHEAD,
        "(effective MACs + overhead operations) / dense MACs: above 100% it would be cheaper to compute everything",
    ),
    Quantity(
        "operations.energy_delta",
        "Energy, estimate",
        "joules",
        "lower",
        _ENERGY,
        "effective operations, overhead, activations and state, from a table of energy per operation and byte",
    ),
    Quantity(
        "operations.energy_dense",
        "  dense inference",
        "joules",
        None,
        _ENERGY,
        "all operations and activations, from the same table",
    ),
    Quantity(
        "operations.delta_sparsity",
        "Delta sparsity",
        "share",
        "higher",
        _SPARSITY,
        "input elements that did not change since the frame before",
        brief=True,
    ),
    Quantity(
        "operations.activation_sparsity",
        "Activation sparsity",
        "share",
        "higher",
        _SPARSITY,
        "input elements that are zero",
    ),
    Quantity(
        "operations.pixel_density",
        "Pixel density",
        "share",
        "lower",
        _SPARSITY,
        "positions where any channel changed, layers weighted by their dense MACs",
        brief=True,
    ),
    Quantity(
        "operations.frame_macs_p50",
        "MACs, median frame",
        "macs",
        "lower",
        _DEADLINE,
        "effective MACs of the frame in the middle",
    ),
    Quantity(
        "operations.frame_macs_p95",
        "MACs, 95% of frames",
        "macs",
        "lower",
        _DEADLINE,
        "95% of the frames cost at most this",
    ),
    Quantity(
        "operations.frame_macs_worst",
        "MACs, worst frame",
        "macs",
        "lower",
        _DEADLINE,
        "effective MACs of the costliest frame",
    ),
    Quantity(
        "operations.state_bytes",
        "State",
        "bytes",
        "lower",
        _DEADLINE,
        "what a delta inference keeps between frames",
    ),
    Quantity("videos", "Videos", "count", None, "Measured on", "videos measured"),
    Quantity(
        "recordings",
        "Recordings",
        "count",
        None,
        "Measured on",
        "of which the videos are, as far as their names tell: intervals are drawn over them",
    ),
    Quantity("frames", "Frames", "count", None, "Measured on", "frames measured, first frames included"),
)

BY_KEY = {quantity.key: quantity for quantity in QUANTITIES}


def quantities_of(*measured: Figures) -> tuple[Quantity, ...]:
    """All quantities, and those of metrics of which deltafine knows nothing but what any of the figures say of them."""
    others: dict[str, Quantity] = {}
    for figure in (figure for figures in measured for figure in figures.named):
        label = figure.name.replace("_", " ").capitalize()
        others.setdefault(
            figure.name,
            Quantity(
                f"{_NAMED}.{figure.name}", label, figure.unit, figure.better, _OTHERS, clean(figure.meaning), brief=True
            ),
        )
    return (*QUANTITIES, *others.values())


def columns(report: Report) -> tuple[str, ...]:
    """The models of a report in the order in which they are shown."""
    known = [name for name in MODEL_NAMES if name in report.models]
    return (*known, *(name for name in report.models if name not in MODEL_NAMES))


def subject(report: Report) -> str:
    """The model that the report is about: refined, else calibrated, else whatever was measured last."""
    return columns(report)[-1] if "refined" not in report.models else "refined"


def figures_of(report: Report, model: str, feeding: Feeding) -> Figures:
    """What was measured of one model in one way of feeding the video."""
    measurement = report.models[model]
    return measurement.streams if feeding == "streams" else measurement.clips
