"""Measuring models on the same video: as continuous streams (the headline) and as clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.document.controls import Controls
from deltafine.document.figures import Figures, Measurement
from deltafine.errors import DeltafineError
from deltafine.measurement.collector import Collector
from deltafine.measurement.given_inputs import give_inputs
from deltafine.measurement.held_runs import run_held
from deltafine.measurement.metric import Answered, Metric, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.probe import Piece, Probe, probe_of
from deltafine.measurement.recordings import Known, recording_of
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.score import Score
from deltafine.measurement.scoring import ScoredVideo
from deltafine.measurement.sensitivity_runs import SensitivityRuns
from deltafine.measurement.simple_controls import ORIGINAL, SimpleControls
from deltafine.video.whole_videos import rows_of
from deltafine.workers import ALONE, Workers, from_bytes, to_bytes

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from deltafine.video import Dataset
    from deltafine.video.catalogue import Split, Video
    from deltafine.video.clips import Batch


VALUES_AT_ONCE = 32 * 224 * 224 * 3
"""Input values that a measured batch may hold: bounds the memory of measuring."""

Labelled = tuple[np.ndarray, np.ndarray | None]
"""Frames of a stream and their labels."""

Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total)."""


def measure(
    models: Mapping[str, keras.Model],
    data: Dataset,
    *,
    frames: int = 8,
    streams: Dataset | None = None,
    split: Split = "validation",
    fps: float | None = None,
    output: Output | None = None,
    metrics: Sequence[Metric] = (),
    every: Mapping[str, int] | None = None,
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
        metrics: measured beside those that are registered (``deltafine.measurement.metrics``).
        every: by name, models that run on every k-th frame alone and hold their answers; all frames are judged.
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
    how: Any = {"split": split, "fps": fps, "output": output, "metrics": metrics}
    how |= {"every": every, "progress": progress, "workers": workers}
    return _measure(models, data, frames, streams or data, {}, how)[0]


def measure_with_controls(
    models: Mapping[str, keras.Model | Probe],
    data: Dataset,
    frames: int,
    *,
    streams: Dataset | None = None,
    refined_held: Sequence[int] = (),
    sensitivity: SensitivityRuns | None = None,
    **how: Any,
) -> tuple[dict[str, Measurement], Controls | None]:
    """As :func:`measure`, and what simpler ways to save reach on the streams; None without anything to judge by.

    Args:
        models, data, frames, streams, how: as for :func:`measure`; probes are taken for models.
        refined_held: for which k the refined model is measured on every k-th frame as well, which takes 1/k of the
            time that it takes on all.
        sensitivity: filled with what multiplied thresholds give on some of the frames.
    """
    controls = {"controlled": True, "refined_held": refined_held, "sensitivity": sensitivity}
    return _measure(models, data, frames, streams or data, controls, how)


def _measure(
    models: Mapping[str, keras.Model | Probe],
    data: Dataset,
    frames: int,
    streams: Dataset,
    controls: Mapping[str, Any],
    how: Mapping[str, Any],
) -> tuple[dict[str, Measurement], Controls | None]:
    probes = {name: probe_of(model) for name, model in models.items()}
    with _given_inputs(next(iter(probes.values())).clip_model, data, streams):
        streamed, found = _on_streams(probes, streams, **how, **controls)
        clipped = measure_clips(probes, data, frames=frames, **how)
    return {name: Measurement(streams=streamed[name], clips=clipped[name]) for name in models}, found


@contextmanager
def _given_inputs(model: keras.Model, *sets: Dataset) -> Iterator[None]:
    """Within, frames of data sets come with what a model takes beside them; as before afterwards."""
    bare = [one for one in sets if one.further is None]
    try:
        give_inputs(model, (), *bare)
        yield
    finally:
        for one in bare:
            one.give_further(None)


def measure_streams(
    probes: Mapping[str, Probe],
    data: Dataset,
    *,
    split: Split = "validation",
    fps: float | None = None,
    spliced: bool = False,
    output: Output | None = None,
    metrics: Sequence[Metric] = (),
    original: Callable[[np.ndarray], np.ndarray] | None = None,
    progress: Progress | None = None,
    workers: Workers = ALONE,
) -> dict[str, Figures]:
    """Measure models on whole videos, each one continuous stream; see :func:`measure`.

    Pieces of one file that follow each other without a gap are one stream.

    ``original`` gives the original's predictions for frames (batch, time, height, width, channels), where it is not
    measured itself.

    With ``spliced``, the videos follow each other as one stream, state carried over every cut: a model that never
    updates cannot pass, even if no video changes its label. Each begins much like the one before ends, as a cut at
    which everything changes would refresh every state. The frames right after a cut count as first frames.

    A spliced stream cannot be shared out: every worker then measures all of it.

    Networks that take clips are shown one window after the other; frames left over at the end are not shown.
    """
    how: Any = {"split": split, "fps": fps, "spliced": spliced, "output": output, "metrics": metrics}
    return _on_streams(probes, data, original=original, progress=progress, workers=workers, **how)[0]


def _on_streams(
    probes: Mapping[str, Probe],
    data: Dataset,
    *,
    split: Split = "validation",
    fps: float | None = None,
    spliced: bool = False,
    output: Output | None = None,
    metrics: Sequence[Metric] = (),
    every: Mapping[str, int] | None = None,
    controlled: bool = False,
    refined_held: Sequence[int] = (),
    sensitivity: SensitivityRuns | None = None,
    original: Callable[[np.ndarray], np.ndarray] | None = None,
    progress: Progress | None = None,
    workers: Workers = ALONE,
) -> tuple[dict[str, Figures], Controls | None]:
    height, width, channels = _frame_shape(probes)
    comparison = _Comparison(probes, output or Output(), metrics, spliced=spliced, every=every, original=original)
    videos = data.select(split)
    count = len(videos) if spliced else len(rows_of(videos))
    if controlled:
        labelled = any(video.label is not None or video.frame_labels is not None for video in videos)
        score = next((metric for metric in metrics if isinstance(metric, Score)), None)
        comparison.control(
            labelled=labelled if score is None else score.labelled,
            refined_held=refined_held,
            scoring=None if score is None else score.scoring,
        )
    chunk = comparison.window or min(32, max(2, VALUES_AT_ONCE // (height * width * channels)))
    if sensitivity is not None:
        comparison.multiply_thresholds(sensitivity, metrics, count, chunk)
    how: Any = {"size": (height, width), "channels": channels, "chunk": chunk, "fps": fps}
    streams = data.streams(split, **how, continued=spliced, whole=not spliced)
    frames = sum(len(data.examination.frame_numbers(video, fps)) for video in videos)
    told = _Told(progress or (lambda what, done, total: None), frames)

    def measure() -> None:
        for index, (video, pieces) in enumerate(streams):
            comparison.know(index, video, data.classes)
            numbers = data.examination.frame_numbers(video, fps)
            end = told.done + len(numbers)
            if spliced or index % workers.count == workers.index:
                about = ScoredVideo(video.name, video.path, numbers)
                seen = told.counted(pieces)
                comparison.add_stream(index, seen, one_label=video.frame_labels is None, about=about)
            told.reach(end)

    if spliced:
        measure()
    else:
        comparison.share_out(measure, workers)
    return comparison.figures(), comparison.controls()


class _Told:
    """Tells how many frames of all streams are done: a single stream may take hours."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self.done = 0

    def reach(self, done: int) -> None:
        if done != self.done:
            self.done = done
            self._progress("streams, frames", done, self._total)

    def counted(self, pieces: Iterable[Labelled]) -> Iterator[Labelled]:
        for piece in pieces:
            yield piece
            self.reach(self.done + len(piece[0]))


def measure_clips(
    probes: Mapping[str, Probe],
    data: Dataset,
    *,
    frames: int,
    split: Split = "validation",
    fps: float | None = None,
    output: Output | None = None,
    metrics: Sequence[Metric] = (),
    every: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    workers: Workers = ALONE,
) -> dict[str, Figures]:
    """Measure models on clips of T frames, each starting from scratch; see :func:`measure`."""
    height, width, channels = _frame_shape(probes)
    comparison = _Comparison(probes, output or Output(), metrics, as_clips=True, every=every)
    batch = max(1, VALUES_AT_ONCE // (height * width * channels * frames))
    size = (height, width)
    mine = (workers.index, workers.count)
    source = data.clips(split, frames=frames, size=size, channels=channels, fps=fps, batch=min(batch, 32), batches=mine)
    total = len(range(workers.index, len(source), workers.count))
    for number, video in enumerate(data.videos):
        comparison.know(number, video, data.classes)

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
        self,
        probes: Mapping[str, Probe],
        output: Output,
        metrics: Sequence[Metric],
        *,
        spliced: bool = False,
        as_clips: bool = False,
        original: Callable[[np.ndarray], np.ndarray] | None = None,
        every: Mapping[str, int] | None = None,
    ) -> None:
        self._original = original
        self._probes = probes
        self._output = output
        self._spliced = spliced
        self._states: dict[str, list[tf.Tensor] | None] = dict.fromkeys(probes)
        probe = next(iter(probes.values()))
        self.window = probe.window
        self._by_window = self.window is not None and probe.model.output_shape[1] != self.window
        self._known: dict[int, Known] = {}
        self._subjects = {
            name: Subject(probe, output, self._by_window, as_clips, name == ORIGINAL, self._known)
            for name, probe in probes.items()
        }
        self._collectors = {name: Collector(subject, metrics) for name, subject in self._subjects.items()}
        self._every = every or {}
        self._controls: SimpleControls | None = None
        self._sensitivity: SensitivityRuns | None = None
        self._videos: set[int] = set()

    def know(self, number: int, video: Video, classes: Sequence[str]) -> None:
        """Tell the name of the video of a number, and so its recording."""
        self._known[number] = Known(video.name, recording_of(video.name, classes, video.group))

    def control(self, **how: Any) -> None:
        """Find what simpler ways to save reach, too; see ``SimpleControls``."""
        self._controls = SimpleControls(self._subjects, **how)

    def multiply_thresholds(self, runs: SensitivityRuns, metrics: Sequence[Metric], streams: int, piece: int) -> None:
        """Find what multiplied thresholds give, too."""
        runs.start(self._subjects, metrics, streams, piece)
        self._sensitivity = runs

    def share_out(self, measure: Callable[[], None], workers: Workers) -> None:
        """Let every worker measure its share, and add up."""
        workers.together(measure)
        if workers.count > 1:
            for number, content in enumerate(workers.gather(to_bytes(self._record()))):
                if number != workers.index:
                    self._add_record(from_bytes(content))

    def _record(self) -> Record:
        models = {f"model {number}": one.record() for number, one in enumerate(self._collectors.values())}
        controls = {} if self._controls is None else {"controls": self._controls.record()}
        if self._sensitivity is not None:
            controls["sensitivity"] = self._sensitivity.record()
        return nested({**models, **controls, "videos": {"numbers": np.array(sorted(self._videos), np.int64)}})

    def _add_record(self, record: Record) -> None:
        for number, collector in enumerate(self._collectors.values()):
            collector.add(inner_record(record, f"model {number}"))
        if self._controls is not None:
            self._controls.add(inner_record(record, "controls"))
        if self._sensitivity is not None:
            self._sensitivity.add(inner_record(record, "sensitivity"))
        self._videos |= set(inner_record(record, "videos")["numbers"].tolist())

    def add_stream(
        self,
        index: int,
        pieces: Iterable[Labelled],
        *,
        one_label: bool,
        about: ScoredVideo | None = None,
    ) -> None:
        about = about or ScoredVideo("")
        if self._by_window and self.window is not None:
            about = about.by_window(self.window)
        states = self._states if self._spliced else dict.fromkeys(self._probes)
        held: np.ndarray | None = None
        if self._controls is not None:
            self._controls.begin()
        if self._sensitivity is not None:
            self._sensitivity.begin(index)
        for number, (frames, labels) in enumerate(pieces):
            if self.window is not None and len(frames) < self.window:
                break
            known = np.full(len(frames), -1, np.int64) if labels is None else labels
            known = np.array([self._output.label_of(known)]) if self._by_window else known
            shown = {}
            for model in self._probes:
                shown[model], states[model] = self._run(model, frames[None], states[model], after_cut=number == 0)
            of_video: Any = {"one_label": one_label, "name": about.name, "about": about}
            answers = self._answers(frames[None], shown, known[None], np.array([index]), index, **of_video)
            first_seen = answers[self._reference].predictions
            held = first_seen[:, :1] if held is None else held
            control = replace(
                answers[self._reference], predictions=np.broadcast_to(held, first_seen.shape), one_label=False
            )
            self._update(shown, answers, control)
            if self._controls is not None:
                self._controls.update(frames, answers, index)
            if self._sensitivity is not None:

                def run(model: str, state: Any, shown: np.ndarray = frames[None]) -> tuple[Piece, Any]:
                    return self._run(model, shown, state)

                self._sensitivity.update(run, answers, control, len(frames), index)

    def _run(self, name: str, frames: np.ndarray, state: Any, *, after_cut: bool = False) -> tuple[Piece, Any]:
        """What a model does with frames, and the state to go on with."""
        probe, every = self._probes[name], self._every.get(name, 1)
        if every > 1:
            return run_held(probe, frames, state, every)
        piece = probe.run(frames, state, after_cut=after_cut)
        return piece, piece.state

    def add_clips(self, work_item: int, clips: Batch) -> None:
        shown = {name: self._run(name, clips.frames, None)[0] for name in self._probes}
        one_label = clips.frame_labels is None
        if self._by_window:
            labels = clips.labels[:, None]
        elif clips.frame_labels is None:
            labels = np.repeat(clips.labels[:, None], clips.frames.shape[1], axis=1)
        else:
            labels = clips.frame_labels
        videos = np.asarray(clips.videos)
        answers = self._answers(
            clips.frames, shown, labels, videos, work_item, one_label=one_label, clip_labels=clips.labels
        )
        control = None
        if not self._by_window:  # the answer to the first frame, as if it were that to the clip
            whole = answers[self._reference].predictions
            control = Answered(whole[:, :1], clips.labels[:, None], videos, work_item)
            if self._output.truth is not None:  # a frame may have no label of an output, and the next one has
                control = Answered(np.broadcast_to(whole[:, :1], whole.shape), labels, videos, work_item)
        self._update(shown, answers, control)

    def _answers(
        self,
        frames: np.ndarray,
        shown: Mapping[str, Piece],
        labels: np.ndarray,
        videos: np.ndarray,
        work_item: int,
        **how: Any,
    ) -> dict[str, Answered]:
        scores = {name: self._output.scores(piece.predictions) for name, piece in shown.items()}
        original = scores.get(ORIGINAL)
        if original is None and self._original is not None:
            original = self._output.scores(self._original(frames))
        return {
            name: Answered(of_model, labels, videos, work_item, original, **how) for name, of_model in scores.items()
        }

    @property
    def _reference(self) -> str:
        """The model whose first answer is held as a control: the original, where it is there."""
        return ORIGINAL if ORIGINAL in self._probes else next(iter(self._probes))

    def _update(self, shown: Mapping[str, Piece], answers: Mapping[str, Answered], control: Answered | None) -> None:
        for name, piece in shown.items():
            self._collectors[name].update(piece, answers[name], control)
            self._videos |= set(answers[name].videos.tolist())

    def controls(self) -> Controls | None:
        """What simpler ways to save reach; None where that was not asked for, or cannot be judged."""
        return None if self._controls is None else self._controls.result()

    def figures(self) -> dict[str, Figures]:
        if not self._videos:
            raise DeltafineError(
                "Nothing was measured: no video of the validation split could be read"
                + ("." if self.window is None else f", or none has the {self.window} frames of a window.")
            )
        return {name: collector.figures(len(self._videos)) for name, collector in self._collectors.items()}
