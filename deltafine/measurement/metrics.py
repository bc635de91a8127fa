"""The metrics that every measurement computes, in the order in which they are asked for their figures."""

from __future__ import annotations

import re

from deltafine.measurement.accumulates import Accumulates
from deltafine.measurement.accuracy_change import AccuracyChange
from deltafine.measurement.answers_over_time import AnswersOverTime
from deltafine.measurement.by_output import ByOutput
from deltafine.measurement.by_video import ByVideo
from deltafine.measurement.confusion import Confusion
from deltafine.measurement.delta_layers import DeltaLayers
from deltafine.measurement.density import Density
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.energy import Energy
from deltafine.measurement.fidelity import Fidelity
from deltafine.measurement.frame_accuracy import FrameAccuracy
from deltafine.measurement.frozen_control import FrozenControl
from deltafine.measurement.label_error import LabelError
from deltafine.measurement.metric import Metric
from deltafine.measurement.original_error import OriginalError
from deltafine.measurement.overhead import Overhead
from deltafine.measurement.state import State
from deltafine.measurement.video_accuracy import VideoAccuracy
from deltafine.measurement.window_accuracy import WindowAccuracy

METRICS: dict[str, Metric] = {}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def register(metric: Metric) -> None:
    """Measure a metric in every measurement of this process from now on.

    Raises:
        ValueError: its name is no name, or is taken.
    """
    check_names([*METRICS.values(), metric])
    METRICS[metric.name] = metric


def check_names(metrics: list[Metric]) -> None:
    """Refuse metrics that cannot be told apart.

    Raises:
        ValueError: a name is no name, or is taken.
    """
    seen = set()
    for metric in metrics:
        name = getattr(metric, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"a metric needs a name of letters, digits, - and _, and {type(metric).__name__} has none")
        if name in seen:
            raise ValueError(f"there is a metric of the name '{name}' already")
        seen.add(name)


for _metric in (
    FrameAccuracy(),
    WindowAccuracy(),
    VideoAccuracy(),
    AccuracyChange(),
    Fidelity(),
    OriginalError(),
    LabelError(),
    FrozenControl(),
    EffectiveMacs(),
    Density(),
    Accumulates(),
    Overhead(),
    Energy(),
    State(),
    DeltaLayers(),
    ByVideo(),
    ByOutput(),
    Confusion(),
    AnswersOverTime(),
):
    register(_metric)
