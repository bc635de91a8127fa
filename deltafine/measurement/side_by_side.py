"""Measuring models on the same video: as continuous streams (the headline) and as clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from deltafine.document.figures import Figures, Measurement
from deltafine.errors import DeltafineError
from deltafine.measurement.collector import Collector
from deltafine.measurement.output import Output
from deltafine.measurement.probe import Probe
from deltafine.measurement.quality import Quality
from deltafine.measurement.records import Record, nested, part_of
from deltafine.workers import ALONE, Workers, from_bytes, to_bytes

ORIGINAL = "original"
VALUES_AT_ONCE = 32 * 224 * 224 * 3
"""Input values that a measured batch may hold: bounds the memory of measuring."""

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
    output: Output | None = None,
    progress: Progress | None = None,
    workers: Workers = ALONE,
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
        output: how predictions are read; default: as probabilities of classes.
        progress: told how far the measurement is.
        workers: who measure: each some of the videos, and some of the batches of clips; all get the same figures, which
            are those that one of them would come to.

    Returns:
        Figures per model: on whole videos as streams with all state carried along, and on clips of T frames.

    Raises:
        DeltafineError: no video is long enough to be measured, or the models take different frames.

    Examples:
        >>> models = {"refined": keras.models.load_model("run/refined.keras")}
        >>> found = deltafine.measure(models, deltafine.open_dataset("videos/"), frames=4)
        >>> 0 < found["refined"].streams.operations.mac_density < 1
        True
    """
    probes = {name: Probe(model) for name, model in models.items()}
    how: Any = {"split": split, "fps": fps, "output": output, "progress": progress, "workers": workers}
    streamed = measure_streams(probes, streams or data, **how)
    clipped = measure_clips(probes, data, frames=frames, **how)
    return {name: Measurement(streams=streamed[name], clips=clipped[name]) for name in models}


def measure_streams(
    probes: Mapping[str, Probe],
    data: Any,
    *,
    split: str = "validation",
    fps: float | None = None,
    spliced: bool = False,
    output: Output | None = None,
    progress: Progress | None = None,
    workers: Workers = ALONE,
) -> dict[str, Figures]:
    """Measure models on whole videos, each one continuous stream; see :func:`measure`.

    With ``spliced``, the videos follow each other as one stream, state carried over every cut: a model that never
    updates cannot pass, even if no video changes its label. Each begins much like the one before ends, as a cut at
    which everything changes would refresh every state. The frames right after a cut count as first frames.

    A spliced stream cannot be shared out: every worker then measures all of it.

    Networks that take clips are shown one window after the other; frames left over at the end are not shown.
    """
    height, width, channels = _frame_shape(probes)
    comparison = _Comparison(probes, output or Output(), spliced=spliced)
    total = len(data.select(split))
    chunk = comparison.window or min(32, max(2, VALUES_AT_ONCE // (height * width * channels)))
    size = (height, width)
    streams = data.streams(split, size=size, channels=channels, chunk=chunk, fps=fps, continued=spliced)

    def measure() -> None:
        for index, (video, pieces) in enumerate(streams):
            if spliced or index % workers.count == workers.index:
                comparison.add_stream(index, pieces, one_label=video.frame_labels is None)
            if progress is not None:
                progress("streams", index + 1, total)

    if spliced:
        measure()
    else:
        comparison.share_out(measure, workers)
    return comparison.figures()


def measure_clips(
    probes: Mapping[str, Probe],
    data: Any,
    *,
    frames: int,
    split: str = "validation",
    fps: float | None = None,
    output: Output | None = None,
    progress: Progress | None = None,
    workers: Workers = ALONE,
) -> dict[str, Figures]:
    """Measure models on clips of T frames, each starting from scratch; see :func:`measure`."""
    height, width, channels = _frame_shape(probes)
    comparison = _Comparison(probes, output or Output(), as_clips=True)
    batch = max(1, VALUES_AT_ONCE // (height * width * channels * frames))
    size = (height, width)
    mine = (workers.index, workers.count)
    source = data.clips(split, frames=frames, size=size, channels=channels, fps=fps, batch=min(batch, 32), batches=mine)
    total = len(range(workers.index, len(source), workers.count))

    def measure() -> None:
        for done, clips in enumerate(source):
            comparison.add_clips(workers.index + done * workers.count, clips)
            if progress is not None:
                progress("clips", done + 1, total)

    comparison.share_out(measure, workers)
    return comparison.figures()


def _frame_shape(probes: Mapping[str, Probe]) -> tuple[int, int, int]:
    shapes = {probe.frame_shape for probe in probes.values()}
    if len(shapes) != 1 or len({probe.window for probe in probes.values()}) != 1:
        raise DeltafineError(f"The models take frames of different shapes ({sorted(shapes)}): measure them apart.")
    return shapes.pop()


class _Comparison:
    """Several models, the same pieces of video."""

    def __init__(
        self, probes: Mapping[str, Probe], output: Output, *, spliced: bool = False, as_clips: bool = False
    ) -> None:
        self._probes = probes
        self._output = output
        self._spliced = spliced
        self._states: dict[str, Any] = dict.fromkeys(probes)
        self._collectors = {name: Collector(probe) for name, probe in probes.items()}
        probe = next(iter(probes.values()))
        self.window = probe.window
        by_window = self.window is not None and probe.model.output_shape[1] != self.window
        self._by_window = by_window
        self._quality = {name: Quality(output, by_window) for name in probes}
        self._frozen = Quality(output, by_window)
        self._videos: set[int] = set()
        self._as_clips = as_clips

    def share_out(self, measure: Callable[[], None], workers: Workers) -> None:
        """Let every worker measure its share, and add up."""
        workers.together(measure)
        if workers.count > 1:
            for number, content in enumerate(workers.gather(to_bytes(self._record()))):
                if number != workers.index:
                    self._add_record(from_bytes(content))

    def _record(self) -> Record:
        parts = {f"collected {number}": one.record() for number, one in enumerate(self._collectors.values())}
        parts |= {f"quality {number}": one.record() for number, one in enumerate(self._quality.values())}
        videos = np.array(sorted(self._videos), np.int64)
        return nested({**parts, "frozen": self._frozen.record(), "": {"videos": videos}})

    def _add_record(self, record: Record) -> None:
        for number, collector in enumerate(self._collectors.values()):
            collector.add(part_of(record, f"collected {number}"))
        for number, quality in enumerate(self._quality.values()):
            quality.merge(part_of(record, f"quality {number}"))
        self._frozen.merge(part_of(record, "frozen"))
        self._videos |= set(part_of(record, "")["videos"].tolist())

    def add_stream(
        self, index: int, pieces: Iterable[tuple[np.ndarray, np.ndarray | None]], *, one_label: bool
    ) -> None:
        states = self._states if self._spliced else dict.fromkeys(self._probes)
        held: np.ndarray | None = None
        for number, (frames, labels) in enumerate(pieces):
            if self.window is not None and len(frames) < self.window:
                break
            first = number == 0
            known = np.full(len(frames), -1, np.int64) if labels is None else labels
            known = np.array([self._output.label_of(known)]) if self._by_window else known
            predictions = {}
            for name, probe in self._probes.items():
                piece = probe.run(frames[None], states[name])
                states[name] = piece.state
                piece.steady[0, 0] &= not first
                self._collectors[name].update(piece)
                predictions[name] = self._output.scores(piece.predictions[0])
            first_seen = predictions[self._reference]
            held = first_seen[:1] if held is None else held
            frozen = np.broadcast_to(held, first_seen.shape)
            self._frozen.add(index, frozen, known, one_label=False, unit=index)
            if ORIGINAL in predictions:
                self._frozen.compare(frozen, predictions[ORIGINAL], index)
            self._add(index, predictions, known, one_label, index)

    @property
    def _reference(self) -> str:
        """The model whose first answer is held as a control: the original, where it is there."""
        return ORIGINAL if ORIGINAL in self._probes else next(iter(self._probes))

    def _add(
        self, video: int, predictions: Mapping[str, np.ndarray], labels: np.ndarray, one_label: bool, unit: int
    ) -> None:
        """Answers about one video: predictions (frames or windows, ...), labels of the same."""
        self._videos.add(video)
        for name, predicted in predictions.items():
            self._quality[name].add(video, predicted, labels, one_label=one_label, unit=unit)
            if ORIGINAL in predictions:
                self._quality[name].compare(predicted, predictions[ORIGINAL], unit)

    def add_clips(self, unit: int, clips: Any) -> None:
        predictions = {}
        for name, probe in self._probes.items():
            piece = probe.run(clips.frames)
            self._collectors[name].update(piece)
            predictions[name] = self._output.scores(piece.predictions)
        for row, video in enumerate(clips.videos):
            one_label = clips.frame_labels is None
            if self._by_window:
                labels = clips.labels[row : row + 1]
            else:
                labels = np.full(clips.frames.shape[1], clips.labels[row]) if one_label else clips.frame_labels[row]
            of_clip = {name: predicted[row] for name, predicted in predictions.items()}
            self._add(int(video), of_clip, labels, one_label, unit)
            if not self._by_window:
                first = predictions[self._reference][row, :1]
                self._frozen.add(int(video), first, clips.labels[row : row + 1], one_label=False, unit=unit)
            for name, predicted in predictions.items():
                self._quality[name].add_clip(int(video), predicted[row], int(clips.labels[row]))

    def figures(self) -> dict[str, Figures]:
        if not self._videos:
            raise DeltafineError(
                "Nothing was measured: no video of the validation split could be read"
                + ("." if self.window is None else f", or none has the {self.window} frames of a window.")
            )
        return {name: self._figures_of(name) for name in self._probes}

    def _figures_of(self, name: str) -> Figures:
        collector = self._collectors[name]
        return Figures(
            videos=len(self._videos),
            frames=collector.frames,
            **self._quality[name].figures(self._quality.get(ORIGINAL), self._frozen, as_clips=self._as_clips),
            operations=collector.operations(),
            layers=collector.layers(),
            deltas=collector.deltas.result(),
        )
