"""Answers and costs frame by frame: where a model is worse than the original, and how a stream goes on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deltafine.document.figures import Timeline, WorstAnswer
from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.metric import Answered, Beside, Metric, Result, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.probe import Piece, Probe
from deltafine.measurement.records import Record

MOST_WORST = 4
"""Frames that are named."""
APART = 32
"""Frames between two of one video that are named."""
MOST_TIMELINES = 3
POINTS = 240
"""Of a timeline at most: of a longer stream, each stands for several frames."""
_MACS, _ANSWER, _ORIGINAL, _TRUTH, _LOST = range(5)


class AnswersOverTime(Metric):
    """On streams of a model that answers per frame, beside the original or labels.

    Five numbers are kept of each frame: its MACs / dense MACs, the model's answer, that of the original, what is right
    (the label, else the original's answer), and what the model is worse by than the original: the probability of what
    is right that it gives less, or the error that it makes more; of maps the share of the positions that are answered
    otherwise. An answer is a class or a number; NaN where it is neither.
    """

    name = "answers-over-time"

    def begin(self, subject: Subject) -> None:
        self._subject = subject
        self._kept = not (subject.as_clips or subject.is_original or subject.probe.window is not None)
        self._videos: dict[int, list[np.ndarray]] = {}  # by video: (5, frames) float64

    def update(self, shown: Shown) -> None:
        videos = shown.answers.videos.tolist()
        if len(videos) > 1:  # pieces of several videos at once cannot be told apart
            self._kept = False
        if not self._kept:
            self._videos.clear()
            return
        rows = [_macs(self._subject.probe, shown.piece), *_answers(shown.answers, self._subject.output)]
        self._videos.setdefault(videos[0], []).append(np.stack(rows))

    def record(self) -> Record:
        return {str(video): np.concatenate(pieces, axis=1) for video, pieces in sorted(self._videos.items())}

    def add(self, record: Record) -> None:
        for video, frames in record.items():
            self._videos.setdefault(int(video), []).append(frames)

    def result(self, beside: Beside) -> Result:
        videos = {video: np.concatenate(pieces, axis=1) for video, pieces in sorted(self._videos.items())}
        return Result({"worst_answers": list(self._worst(videos)), "timelines": list(self._timelines(videos))})

    def _name(self, video: int) -> str:
        known = self._subject.known.get(video)
        return str(video) if known is None else known.name

    def _worst(self, videos: dict[int, np.ndarray]) -> Iterator[WorstAnswer]:
        """The worst frame of each video, the worst of all first; then the second of each, and so on."""
        found: list[tuple[int, float, int, int]] = []
        for video, frames in videos.items():
            lost = np.where(_is_wrong(frames, self._subject.output), _rounded(np.nan_to_num(frames[_LOST])), 0.0)
            for turn in range(MOST_WORST):
                frame = int(lost.argmax())
                if lost[frame] <= 0:
                    break
                found.append((turn, -float(lost[frame]), video, frame))
                lost[max(0, frame - APART) : frame + APART + 1] = 0
        for _, minus_lost, video, frame in sorted(found)[:MOST_WORST]:
            at = videos[video][:, frame]
            answer, original, truth = (_number(at[row]) for row in (_ANSWER, _ORIGINAL, _TRUTH))
            yield WorstAnswer(
                video=self._name(video),
                frame=frame,
                answer=answer,
                original=original,
                truth=truth,
                lost=float(f"{-minus_lost:.4g}"),
            )

    def _timelines(self, videos: dict[int, np.ndarray]) -> Iterator[Timeline]:
        """Of those that lose most in the mean, the worst first, and of the first video."""
        lost = {video: float(_rounded(np.nan_to_num(frames[_LOST]).mean())) for video, frames in videos.items()}
        worst = sorted((video for video in videos if lost[video] > 0), key=lambda video: (-lost[video], video))
        chosen = dict.fromkeys([*worst[: MOST_TIMELINES - 1], *list(videos)[:1]])
        for video in chosen:
            frames = videos[video]
            each = -(-frames.shape[1] // POINTS)
            mean = self._subject.output.numbers
            yield Timeline(
                video=self._name(video),
                frames=frames.shape[1],
                each=each,
                macs=[round(float(part.mean()), 5) for part in _parts(frames[_MACS], each)],
                **{
                    name: [_in_short(part, mean) for part in _parts(frames[row], each)]
                    for name, row in (("answers", _ANSWER), ("original", _ORIGINAL), ("truth", _TRUTH))
                },
            )


def _macs(probe: Probe, piece: Piece) -> np.ndarray:
    """(frames,) effective MACs / dense MACs of a piece of one stream; a first frame is dense."""
    places = probe.layers
    spent = np.zeros(piece.steady.shape[1])
    for counts in piece.counts[: len(places)]:
        of_steps = counts.macs_delta[0]
        spent += of_steps if len(of_steps) == len(spent) else of_steps.sum() / len(spent)
    dense = sum(place.dense_macs for place in places)
    return np.where(piece.steady[0], spent / max(1, dense), 1.0)


def _answers(answers: Answered, output: Output) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(frames,) answers, the original's, what is right, and what is lost; see ``AnswersOverTime``."""
    own, labels = answers.predictions[0], answers.labels[0]
    original = None if answers.original is None else answers.original[0]
    nothing = np.full(len(own), np.nan)
    if own.ndim > 2:  # maps
        return nothing, nothing, nothing, nothing if original is None else _differing(own, original, output)
    if output.numbers:
        return _of_numbers(own, original, labels, output)
    answer = classes_of(own).astype(np.float64)
    same = nothing if original is None else classes_of(original).astype(np.float64)
    truth = np.where(labels >= 0, labels, same)
    right = np.nan_to_num(truth).astype(np.int64)
    lost = (1.0 if original is None else _probability(original, right, output)) - _probability(own, right, output)
    return answer, same, truth, np.where(np.isnan(truth), np.nan, lost)


def _of_numbers(
    own: np.ndarray, original: np.ndarray | None, labels: np.ndarray, output: Output
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    nothing = np.full(len(own), np.nan)
    right = np.full(own.shape, np.nan) if original is None else np.asarray(original, np.float64)
    if output.values:
        right = np.where(labels[:, None] >= 0, output.targets(np.maximum(labels, 0)), right)
    lost = np.abs(own - right).mean(-1)
    if original is not None:
        lost = lost - np.abs(original - right).mean(-1)
    shown = [nothing if one is None or one.shape[-1] != 1 else one[:, 0].astype(np.float64) for one in (own, original)]
    return shown[0], shown[1], right[:, 0] if right.shape[-1] == 1 else nothing, np.asarray(lost, np.float64)


def _differing(own: np.ndarray, original: np.ndarray, output: Output) -> np.ndarray:
    """(frames,) of maps: the share of positions of another class; of numbers the mean difference."""
    apart = np.abs(own - original) if output.numbers else classes_of(own) != classes_of(original)
    return np.asarray(apart.reshape(len(own), -1).mean(-1), np.float64)


def _probability(scores: np.ndarray, classes: np.ndarray, output: Output) -> np.ndarray:
    """(frames,) what scores (frames, classes) give to a class each."""
    scores = np.asarray(scores, np.float64)
    if scores.shape[-1] == 1:
        return np.where(classes == 1, scores[:, 0], 1 - scores[:, 0])
    if not output.probabilities:
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
    known = np.minimum(classes, scores.shape[-1] - 1)
    return np.asarray(np.where(classes < scores.shape[-1], scores[np.arange(len(scores)), known], 0.0))


def _is_wrong(frames: np.ndarray, output: Output) -> np.ndarray:
    """(frames,) whether an answer is not what is right; any number, or map, may be better."""
    if output.numbers:
        return np.ones(frames.shape[1], bool)
    return np.isnan(frames[_ANSWER]) | (frames[_ANSWER] != frames[_TRUTH])


def _rounded(values: np.ndarray) -> np.ndarray:
    """To four digits: the last bits of a prediction, which may differ from run to run, decide nothing."""
    size = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(values), 1e-30))) - 3)
    return np.asarray(np.round(np.round(values / size) * size, 34))


def _parts(values: np.ndarray, each: int) -> list[np.ndarray]:
    return [values[begin : begin + each] for begin in range(0, len(values), each)]


def _in_short(values: np.ndarray, mean: bool) -> float | None:
    """What stands for several answers: their mean, or the most frequent class; None where there is none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    if mean:
        return float(f"{known.mean():.6g}")
    found, counts = np.unique(known, return_counts=True)
    return float(found[counts.argmax()])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.6g}")
