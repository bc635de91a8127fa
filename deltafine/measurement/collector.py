"""All metrics of one model while pieces of video go through it, and the figures that they make."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from deltafine.document.figures import DeltaFigures, Figures, LayerFigures, NamedFigure, Operations
from deltafine.errors import DeltafineError
from deltafine.measurement.delta_layers import DeltaLayers
from deltafine.measurement.metric import Answered, Kind, Metric, Result, Shown, Subject
from deltafine.measurement.metrics import METRICS, check_names
from deltafine.measurement.probe import Piece, Probe
from deltafine.measurement.records import Record, inner_record, nested


class Collector:
    """The metrics of one model over all the video that it is shown.

    Args:
        subject: the model and how it is measured; or a probe, to be measured on streams of classes.
        metrics: more of them than ``METRICS``.
    """

    def __init__(self, subject: Subject | Probe, metrics: Sequence[Metric] = ()) -> None:
        self.subject = Subject(subject) if isinstance(subject, Probe) else subject
        patterns = [*METRICS.values(), *metrics]
        check_names(patterns)
        self._metrics = {pattern.name: copy.copy(pattern) for pattern in patterns}
        for metric in self._metrics.values():
            metric.begin(self.subject)

    @property
    def probe(self) -> Probe:
        return self.subject.probe

    def metric(self, kind: type[Kind]) -> Kind:
        """The metric of a class.

        Raises:
            LookupError: none is.
        """
        for metric in self._metrics.values():
            if isinstance(metric, kind):
                return metric
        raise LookupError(f"no metric is a {kind.__name__}")

    def update(self, piece: Piece, answers: Answered | None = None, control: Answered | None = None) -> None:
        """Count in a piece; ``answers`` default to what the piece predicts, without labels."""
        shown = Shown(piece, answers or _unlabelled(piece.predictions), control)
        for metric in self._metrics.values():
            metric.update(shown)

    def record(self) -> Record:
        """Everything counted, for :meth:`add` of another one."""
        return nested({name: metric.record() for name, metric in self._metrics.items()})

    def add(self, record: Record) -> None:
        """Add what another one has counted of the same model."""
        for name, metric in self._metrics.items():
            metric.add(inner_record(record, name))

    def figures(self, videos: int) -> Figures:
        """Everything that is said of the model, having been shown so many videos.

        Raises:
            DeltafineError: a figure that a report needs has nothing to be made of.
        """
        results = self._results()
        return Figures(
            videos=videos,
            **_joined(result.figures for result in results),
            operations=_operations(results),
            layers=_layers(results),
            deltas=[delta for result in results for delta in result.deltas],
            named=_named(results),
        )

    def operations(self) -> Operations:
        """Totals over all covered layers.

        Raises:
            DeltafineError: there is no covered layer, or no frame had one before it.
        """
        return _operations(self._results())

    def layers(self) -> list[LayerFigures]:
        """The layers with MACs."""
        return _layers(self._results())

    def deltas(self) -> list[DeltaFigures]:
        """The delta layers."""
        return list(self.metric(DeltaLayers).result(self).deltas)

    def _results(self) -> list[Result]:
        return [metric.result(self) for metric in self._metrics.values()]


def _unlabelled(predictions: np.ndarray) -> Answered:
    rows, frames = predictions.shape[:2]
    return Answered(predictions, np.full((rows, frames), -1, np.int64), np.arange(rows))


def _operations(results: Sequence[Result]) -> Operations:
    return Operations(**_joined(result.operations for result in results))


def _layers(results: Sequence[Result]) -> list[LayerFigures]:
    given = [result.layers for result in results if result.layers]
    return [LayerFigures(**_joined(of_layer)) for of_layer in zip(*given, strict=True)]


def _joined(given: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of all metrics; a field has one metric."""
    found: dict[str, Any] = {}
    for fields in given:
        if twice := found.keys() & fields.keys():
            raise ValueError(f"two metrics give {', '.join(sorted(twice))}")
        found |= fields
    return found


def _named(results: Sequence[Result]) -> list[NamedFigure]:
    figures = [figure for result in results for figure in result.named]
    names = [figure.name for figure in figures]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DeltafineError(f"Two metrics give a figure of the name '{min(twice)}': give one of them another name.")
    return figures
