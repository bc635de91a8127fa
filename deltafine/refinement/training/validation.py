"""Judging a network while it is refined: on the validation videos, as one stream."""

from __future__ import annotations

from collections.abc import Collection

import keras

from deltafine.document.figures import Figures
from deltafine.document.history import FrontPoint
from deltafine.measurement.probe import Probe
from deltafine.measurement.side_by_side import measure_streams
from deltafine.refinement.listener import Listener
from deltafine.refinement.run.interruption import Requests
from deltafine.refinement.run.preparation import Prepared


class Validation:
    """Measures the original and the student of a run.

    Args:
        prepared: data and settings of the run.
        original: clip model to compare with.
        student: clip model with delta layers.
        listener: told how far it is.
        requests: what stops it.
    """

    def __init__(
        self, prepared: Prepared, original: keras.Model, student: keras.Model, listener: Listener, requests: Requests
    ) -> None:
        self._prepared = prepared
        self._probes = {"original": Probe(original), "refined": Probe(student)}
        self._listener, self._requests = listener, requests

    @property
    def probe_of_student(self) -> Probe:
        return self._probes["refined"]

    def measure(self, names: Collection[str]) -> dict[str, Figures]:
        """Figures of ``"original"``, ``"refined"``, or both."""

        def progress(what: str, done: int, total: int) -> None:
            self._listener.progress("validating", done, total)
            self._requests.obey()

        return measure_streams(
            {name: probe for name, probe in self._probes.items() if name in names},
            self._prepared.data,
            fps=self._prepared.settings.fps,
            spliced=True,
            output=self._prepared.output,
            progress=progress,
        )

    def student(self) -> Figures:
        """Figures of the student; where nothing is labelled, the original has to be measured with it."""
        return self.measure(["refined"] if self._prepared.labelled else ["original", "refined"])["refined"]


def point_of(number: int, penalty: float, measured: Figures, scale: float = 1.0) -> FrontPoint:
    """What was measured of an epoch, all thresholds having been multiplied by ``scale``."""
    return FrontPoint(
        epoch=number,
        penalty=penalty,
        accuracy=quality(measured),
        mac_density=measured.operations.mac_density,
        pixel_density=measured.operations.pixel_density,
        delta_sparsity=measured.operations.delta_sparsity,
        threshold_scale=scale,
    )


def quality(figures: Figures) -> float:
    """Accuracy of frames or windows, or fidelity to the original where nothing is labelled.

    Of numbers: 1 - error / spread.
    """
    accuracy = figures.frame_accuracy or figures.window_accuracy
    if accuracy is not None:
        return accuracy.value
    error = figures.label_error if figures.label_error is not None else figures.relative_error
    if error is not None:
        return 1 - error
    assert figures.fidelity is not None
    return figures.fidelity
