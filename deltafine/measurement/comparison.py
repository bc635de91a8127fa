"""Measuring models on the same video: as continuous streams (the headline) and as clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.accuracy import Accuracy, ClipAccuracy, classes_of
from deltafine.measurement.collector import Collector
from deltafine.measurement.fidelity import Fidelity
from deltafine.measurement.figures import Figures, Measurement
from deltafine.measurement.probe import Probe

ORIGINAL = "original"
VALUES_AT_ONCE = 32 * 224 * 224 * 3
"""Input values that a measured batch may hold: bounds the memory of measuring."""

SPLICE_SEED = 0

Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total)."""


def measure(
    models: Mapping[str, Any],
    data: Any,
    *,
    frames: int = 8,
    streams: Any | None = None,
    split: str = "validation",
    fps: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Measure clip models side by side on the same videos.

    Args:
        models: clip models by name (``insert_deltas`` makes them). One named ``"original"`` is what fidelity and
            the paired differences compare with; without it they are left out, and the frozen control holds the
            first answer of the first model.
        data: a ``Dataset``.
        frames: length T of the clips.
        streams: another ``Dataset`` to take the continuous streams from; default: ``data``.
        split: which videos.
        fps: frames are taken at this rate; None for all frames.
        progress: told how far the measurement is.

    Returns:
        Figures per model: on whole videos as streams with all state carried along, and on clips of T frames.

    Raises:
        DeltafineError: no video is long enough to be measured, or the models take different frames.
    """
    probes = {name: Probe(model) for name, model in models.items()}
    streamed = measure_streams(probes, streams or data, split=split, fps=fps, progress=progress)
    clipped = measure_clips(probes, data, frames=frames, split=split, fps=fps, progress=progress)
    return {name: Measurement(streams=streamed[name], clips=clipped[name]) for name in models}


def measure_streams(
    probes: Mapping[str, Probe],
    data: Any,
    *,
    split: str = "validation",
    fps: float | None = None,
    spliced: bool = False,
    progress: Progress | None = None,
) -> dict[str, Figures]:
    """Measure models on whole videos, each one continuous stream; see :func:`measure`.

    With ``spliced``, the videos follow each other in a drawn order as one stream, state carried over every cut: a
    model that never updates cannot pass, even if no video changes its label. The frames right after a cut count
    as first frames.
    """
    height, width, channels = _frame_shape(probes)
    comparison = _Comparison(probes, spliced=spliced)
    total = len(data.select(split))
    chunk = min(32, max(2, VALUES_AT_ONCE // (height * width * channels)))
    streams = data.streams(
        split, size=(height, width), channels=channels, chunk=chunk, fps=fps, seed=SPLICE_SEED if spliced else None
    )
    for index, (video, pieces) in enumerate(streams):
        comparison.add_stream(index, pieces, one_label=video.frame_labels is None)
        if progress is not None:
            progress("streams", index + 1, total)
    return comparison.figures()


def measure_clips(
    probes: Mapping[str, Probe],
    data: Any,
    *,
    frames: int,
    split: str = "validation",
    fps: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Figures]:
    """Measure models on clips of T frames, each starting afresh; see :func:`measure`."""
    height, width, channels = _frame_shape(probes)
    comparison = _Comparison(probes)
    batch = max(1, VALUES_AT_ONCE // (height * width * channels * frames))
    size = (height, width)
    source = data.clips(split, frames=frames, size=size, channels=channels, fps=fps, batch=min(batch, 32))
    total = len(source)
    for done, clips in enumerate(source):
        comparison.add_clips(clips)
        if progress is not None:
            progress("clips", done + 1, total)
    return comparison.figures()


def _frame_shape(probes: Mapping[str, Probe]) -> tuple[int, int, int]:
    shapes = {probe.frame_shape for probe in probes.values()}
    if len(shapes) != 1:
        raise DeltafineError(f"The models take frames of different shapes ({sorted(shapes)}): measure them apart.")
    return shapes.pop()


@dataclass
class _Answers:
    """How good one model's predictions are."""

    frame: Accuracy = field(default_factory=Accuracy)
    window: Accuracy = field(default_factory=Accuracy)
    clip: ClipAccuracy = field(default_factory=ClipAccuracy)
    fidelity: Fidelity = field(default_factory=Fidelity)


class _Comparison:
    """Several models, the same pieces of video."""

    def __init__(self, probes: Mapping[str, Probe], *, spliced: bool = False) -> None:
        self._probes = probes
        self._spliced = spliced
        self._states: dict[str, Any] = dict.fromkeys(probes)
        self._collectors = {name: Collector(probe) for name, probe in probes.items()}
        self._answers = {name: _Answers() for name in probes}
        self._frozen = Accuracy()
        self._videos: set[int] = set()
        self._as_clips = False

    def add_stream(
        self, index: int, pieces: Iterable[tuple[np.ndarray, np.ndarray | None]], *, one_label: bool
    ) -> None:
        states = self._states if self._spliced else dict.fromkeys(self._probes)
        held: np.ndarray | None = None
        reference = self._reference
        for number, (frames, labels) in enumerate(pieces):
            first = number == 0
            known = np.full(len(frames), -1, np.int64) if labels is None else labels
            predictions = {}
            for name, probe in self._probes.items():
                piece = probe.run(frames[None], states[name])
                states[name] = piece.state
                piece.steady[0, 0] &= not first
                self._collectors[name].update(piece)
                predictions[name] = piece.predictions[0]
            if held is None:
                held = classes_of(predictions[reference][0])
            self._frozen.update(index, np.full(len(frames), held), known)
            self._add(index, predictions, known, one_label)

    @property
    def _reference(self) -> str:
        """The model whose first answer is held as a control: the original, where it is there."""
        return ORIGINAL if ORIGINAL in self._probes else next(iter(self._probes))

    def _add(self, video: int, predictions: Mapping[str, np.ndarray], labels: np.ndarray, one_label: bool) -> None:
        """Frame by frame answers about one video: predictions (frames, classes), labels (frames,)."""
        self._videos.add(video)
        for name, predicted in predictions.items():
            answers = self._answers[name]
            answers.frame.update(video, classes_of(predicted), labels)
            if one_label:
                answers.clip.update(video, predicted, labels)
            if ORIGINAL in predictions:
                answers.fidelity.update(predicted, predictions[ORIGINAL])

    def add_clips(self, clips: Any) -> None:
        self._as_clips = True
        predictions = {}
        for name, probe in self._probes.items():
            piece = probe.run(clips.frames)
            self._collectors[name].update(piece)
            predictions[name] = piece.predictions
        for row, video in enumerate(clips.videos):
            one_label = clips.frame_labels is None
            labels = np.full(clips.frames.shape[1], clips.labels[row]) if one_label else clips.frame_labels[row]
            of_clip = {name: predicted[row] for name, predicted in predictions.items()}
            self._add(int(video), of_clip, labels, one_label)
            held = classes_of(predictions[self._reference][row, 0])
            self._frozen.update(int(video), held, clips.labels[row])
            for name, predicted in predictions.items():
                self._answers[name].window.update(int(video), classes_of(predicted[row].mean(0)), clips.labels[row])

    def figures(self) -> dict[str, Figures]:
        if not self._videos:
            raise DeltafineError("Nothing was measured: no video of the validation split could be read.")
        return {name: self._figures_of(name) for name in self._probes}

    def _figures_of(self, name: str) -> Figures:
        collector, answers, original = self._collectors[name], self._answers[name], self._answers.get(ORIGINAL)
        change = None
        if original is not None and name != ORIGINAL:
            change = (
                answers.window.change_from(original.window)
                if self._as_clips
                else answers.frame.change_from(original.frame)
            )
        return Figures(
            videos=len(self._videos),
            frames=collector.frames,
            frame_accuracy=answers.frame.result(),
            window_accuracy=answers.window.result(),
            clip_accuracy=answers.clip.result(),
            accuracy_change=change,
            frozen_accuracy=self._frozen.result(),
            fidelity=answers.fidelity.result() if original is not None else None,
            operations=collector.operations(),
            layers=collector.layers(),
            deltas=collector.deltas.result(),
        )
