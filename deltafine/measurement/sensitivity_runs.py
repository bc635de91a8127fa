"""The subject model with all thresholds multiplied by one number: what a setting of ``runtime.sensitivity`` costs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.document.controls import Controls
from deltafine.document.figures import Figures
from deltafine.document.sensitivity import SensitivityCurve, SensitivityPoint
from deltafine.errors import DeltafineError
from deltafine.measurement.collector import Collector
from deltafine.measurement.metric import Answered, Metric, Subject
from deltafine.measurement.probe import Piece
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.simple_controls import REFINED

if TYPE_CHECKING:
    from deltafine.layers import DeltaActivation

SENSITIVITIES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
Run = Callable[[str, Any], tuple[Piece, Any]]
"""From a model's name and its state: how a piece of a stream goes through it, and the state to go on with."""


class SensitivityRuns:
    """Measures the subject model once more for each number, on a bounded part of the streams.

    That is the first frames of every stream, or of every j-th one where there are many: whole pieces, as many as fit.
    Nothing is measured where no delta layer has a rule whose thresholds can be multiplied.

    Args:
        most_frames: of all streams together, for each of the numbers; 0 to measure nothing.
    """

    def __init__(self, most_frames: int) -> None:
        self._most = most_frames
        self._collectors: dict[float, Collector] = {}
        self._name = ""
        self._apart, self._quota = 1, 0
        self._frames: dict[int, int] = {}  # by stream
        self._states: dict[float, Any] = {}

    def start(self, subjects: Mapping[str, Subject], metrics: Sequence[Metric], streams: int, piece: int) -> None:
        """Say what is measured.

        Args:
            subjects: the models.
            metrics: beside those that are registered.
            streams: how many there are.
            piece: frames of a piece, at most.
        """
        self._name = REFINED if REFINED in subjects else list(subjects)[-1]
        subject = subjects[self._name]
        follow = any(layer.rule.follows_sensitivity for layer in subject.probe.delta_layers)
        if not (self._most and streams and follow):
            return
        self._apart = max(1, -(-streams * piece // max(self._most, piece)))
        self._quota = max(piece, self._most // -(-streams // self._apart))
        self._collectors = {number: Collector(subject, metrics) for number in SENSITIVITIES}

    def begin(self, stream: int) -> None:
        """A new stream."""
        self._states = {}
        if self._collectors and stream % self._apart == 0:
            self._frames[stream] = 0
            self._states = dict.fromkeys(self._collectors)

    def update(self, run: Run, answers: Mapping[str, Answered], control: Answered, frames: int, stream: int) -> None:
        """The next piece of a stream, which all models have answered."""
        if not self._states or self._frames[stream] + frames > self._quota:
            self._states = {}
            return
        self._frames[stream] += frames
        for number, collector in self._collectors.items():
            subject = collector.subject
            with multiplied(subject.probe.delta_layers, number):
                piece, self._states[number] = run(self._name, self._states[number])
            predictions = subject.output.scores(piece.predictions)
            collector.update(piece, replace(answers[self._name], predictions=predictions), control)

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        streams = sorted(self._frames)
        seen = {"streams": np.array(streams, np.int64), "frames": np.array([self._frames[one] for one in streams])}
        models = {f"model {place}": one.record() for place, one in enumerate(self._collectors.values())}
        return nested({**models, "seen": seen})

    def add(self, record: Record) -> None:
        """Add what another one has counted."""
        for place, collector in enumerate(self._collectors.values()):
            collector.add(inner_record(record, f"model {place}"))
        seen = inner_record(record, "seen")
        self._frames |= dict(zip(seen["streams"].tolist(), seen["frames"].astype(np.int64).tolist(), strict=True))

    def curve(self) -> SensitivityCurve | None:
        """None where nothing was measured, no answer could be judged, or no frame has one before it."""
        frames = {stream: count for stream, count in self._frames.items() if count}
        if not frames:
            return None
        try:
            figures = {number: collector.figures(len(frames)) for number, collector in self._collectors.items()}
        except DeltafineError:  # no frame of this part has one before it
            return None
        controls = Controls(judged_by=_judged_by(figures[1.0], self._numbers))
        points = [
            SensitivityPoint(sensitivity=number, quality=quality, mac_density=found.operations.mac_density)
            for number, found in figures.items()
            if (quality := controls.quality_of(found)) is not None
        ]
        if not points:
            return None
        return SensitivityCurve(
            model=self._name,
            judged_by=controls.judged_by,
            videos=len(frames),
            frames=sum(frames.values()),
            points=points,
        )

    @property
    def _numbers(self) -> bool:
        return bool(next(iter(self._collectors.values())).subject.output.numbers)


def _judged_by(figures: Figures, numbers: bool) -> Any:
    """What answers are judged by: as the models of a report are."""
    if figures.score is not None:
        return "score"
    if numbers:
        return "error"
    return "fidelity" if figures.frame_accuracy is None and figures.window_accuracy is None else "accuracy"


@contextlib.contextmanager
def multiplied(layers: Iterable[DeltaActivation], number: float) -> Iterator[None]:
    """Multiply the thresholds of those whose rules allow it; within the block they are as if trained so."""
    chosen = {id(layer): layer for layer in layers if layer.rule.follows_sensitivity} if number != 1 else {}
    before = [np.array(layer.log_threshold) for layer in chosen.values()]
    try:
        for layer, logarithms in zip(chosen.values(), before, strict=True):
            layer.log_threshold.assign(logarithms + np.float32(math.log(number)))
        yield
    finally:
        for layer, logarithms in zip(chosen.values(), before, strict=True):
            layer.log_threshold.assign(logarithms)
