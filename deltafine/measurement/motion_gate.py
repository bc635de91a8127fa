"""The motion gate: how good the original is if it runs only where the picture has changed enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deltafine.document.controls import GatePoint
from deltafine.measurement.held_answers import sources
from deltafine.measurement.judging import Judge
from deltafine.measurement.metric import Answered
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.scored_ways import ScoredWays
from deltafine.measurement.scoring import Scoring
from deltafine.runtime.numba_there import why_no_numba

THRESHOLDS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 32.0)
"""Mean absolute differences of pixels, 0 to 255."""

MOST_IN_32_BITS = (2**32 - 1) // 255
"""Bytes whose sum fits."""


class MotionGate:
    """Scores of a network that runs on the first frame of a stream, and then on each frame whose mean absolute
    difference to the frame that it ran on last exceeds a threshold.

    Of a network that takes clips a window counts as a frame; what is held is its last answer.

    Args:
        output, labelled: as for ``Judge``.
        thresholds: of 0 to 255, ascending.
        scoring: judges answers in place of accuracy, error and fidelity, if anything does.
    """

    def __init__(
        self,
        output: Output,
        labelled: bool,
        thresholds: tuple[float, ...] = THRESHOLDS,
        scoring: Scoring | None = None,
    ) -> None:
        self._thresholds = thresholds
        self.judge = Judge(output, labelled, len(thresholds))
        self._scored = None if scoring is None else ScoredWays(scoring, labelled, output, len(thresholds))
        self._ran = np.zeros(len(thresholds), np.int64)
        self._of = 0
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._before: np.ndarray | None = None  # (rows, bytes) the frames that the network ran on last
        self._last = np.full(len(self._thresholds), -1, np.int64)  # by threshold: which of them; below 0: none yet
        self._held: np.ndarray | None = None  # (ways, ...) its answers
        self._seen, self._last_run = 0, np.zeros(len(self._thresholds), np.int64)
        if self._scored is not None:
            self._scored.begin()

    def update(self, frames: np.ndarray, answered: Answered, work_item: int, *, window: bool = False) -> None:
        """Judge the next piece of a stream.

        Args:
            frames: (frames, height, width, channels) uint8 at the model's input size.
            answered: what the network answered to them, one row.
            work_item: by which floating-point sums are kept.
            window: whether the frames went through the network at once.
        """
        truth = self.judge.truth(answered)
        if truth is None:
            return
        answers = self.judge.answers(answered.predictions[0])
        pictures, ways = frames[None] if window else frames, len(self._thresholds)
        held = answers[:1].repeat(ways, axis=0) if self._held is None else self._held
        own = ways + np.arange(len(pictures))
        source = self._runs(pictures, own)
        self._ran += (source == own).sum(axis=1)
        self._of += len(pictures)
        before, last = self._last_run, source[:, -1]
        self._last_run = np.where(last < ways, before, self._seen + last - ways)
        line = np.concatenate([held, answers])
        self._held = line[np.where(last == own[-1], len(line) - 1, last)]
        if self._scored is not None:
            ran = np.where(source < ways, before[:, None], self._seen + source - ways)
            self._scored.update(answered.predictions[0], answered, sources(ran, self._seen, len(answers)))
        else:
            if window:
                source = np.where(source == own, ways + np.arange(len(answers)), source)
            self.judge.expect(truth, work_item)
            self.judge.add_scores(self.judge.scores_of(line, source, truth).sum(axis=1), work_item)
        self._seen += len(pictures)

    def _runs(self, pictures: np.ndarray, own: np.ndarray) -> np.ndarray:
        """(ways, frames) which frame was run on last: the number of the way, before these, or one of ``own``."""
        frames = np.ascontiguousarray(pictures).reshape(len(pictures), -1)
        before = frames[:0] if self._before is None else self._before
        last = np.empty((len(self._last), len(frames)), np.int64)
        compiled_or_not()(frames, before, self._last, np.array(self._thresholds), last)
        kept, self._last = np.unique(self._last, return_inverse=True)
        ran = kept >= len(before)
        self._before = np.concatenate([before[kept[~ran]], frames[kept[ran] - len(before)]])
        ways = np.arange(len(last))[:, None]
        return np.where(last < len(before), ways, own[0] + last - len(before))

    def record(self) -> Record:
        return nested({"gate": {"ran": self._ran, "of": np.asarray(self._of)}, "judge": self._judges.record()})

    def add(self, record: Record) -> None:
        gate = inner_record(record, "gate")
        self._ran += gate["ran"]
        self._of += int(gate["of"])
        self._judges.add(inner_record(record, "judge"))

    @property
    def _judges(self) -> Judge | ScoredWays:
        return self._scored or self.judge

    def points(self) -> list[GatePoint]:
        """For each threshold; nothing if no answer was judged."""
        found = self._judges.results()
        if found is None:
            return []
        return [
            GatePoint(threshold=threshold, share=int(ran) / self._of, quality=quality)
            for threshold, ran, quality in zip(self._thresholds, self._ran, found, strict=True)
        ]


def follow(frames: np.ndarray, before: np.ndarray, last: np.ndarray, thresholds: np.ndarray, ran: np.ndarray) -> None:
    """Where a network runs that sees a frame only if it differs enough from the frame that it ran on last.

    Args:
        frames: (frames, bytes).
        before: (rows, bytes), frames that it ran on before.
        last: (ways,), the row of ``before`` that each way ran on last; below 0: none yet. After ``before`` come
            ``frames``; filled with what holds after these.
        thresholds: (ways,), ascending; of the mean absolute difference.
        ran: (ways, frames), filled with what each way ran on last, counted as in ``last``, once it has seen a frame.
    """
    rows = len(before)
    for number, frame in enumerate(frames):
        differences = {
            row: mean_difference(frame, before[row] if row < rows else frames[row - rows]) if row >= 0 else np.inf
            for row in set(last.tolist())
        }
        last[np.array([differences[row] for row in last.tolist()]) > thresholds] = rows + number
        ran[:, number] = last


def compiled_or_not() -> Callable[..., None]:
    """``follow``, compiled where numba works."""
    if why_no_numba():
        return follow
    from deltafine.measurement import gate_runs

    return gate_runs.follow  # type: ignore[no-any-return]


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two arrays of bytes, exactly."""
    difference = np.maximum(one, other)
    difference -= np.minimum(one, other)
    fast = np.uint32 if one.size <= MOST_IN_32_BITS else np.uint64  # NumPy adds faster in 32 bits
    return int(difference.sum(dtype=fast)) / one.size
