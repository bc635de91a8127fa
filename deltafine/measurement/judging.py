"""Judging answers that may be older than the frame they stand for: by labels, or by the original's answers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.metric import Answered
from deltafine.measurement.output import Output
from deltafine.measurement.records import Record, inner_record, nested
from deltafine.measurement.relative_error import RelativeError

AT_ONCE = 2**16
"""Answers, or values of answers, that are compared at once: bounds the memory that maps take."""

JudgedBy = Literal["accuracy", "error", "fidelity"]


class Judge:
    """Scores of several ways to answer the same frames.

    Args:
        output: how predictions are read.
        labelled: whether answers are judged by labels; else by the original's answers.
        ways: how many there are.
    """

    def __init__(self, output: Output, labelled: bool, ways: int) -> None:
        self._output, self._labelled = output, labelled
        self._right = np.zeros(ways, np.int64)
        self._of = 0
        self._targets = RelativeError(output.parts, to_labels=labelled)
        self._errors: dict[int, np.ndarray] = {}  # by work item: (ways, outputs) sums of squares
        self._ways = ways

    @property
    def judged_by(self) -> JudgedBy:
        if self._output.numbers:
            return "error"
        return "accuracy" if self._labelled else "fidelity"

    @property
    def has_changes(self) -> bool:
        """Whether answers may follow a change of the label."""
        return self._labelled and not self._output.numbers

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        """What is kept of predictions (frames, ..., outputs): numbers as they are, else classes (frames, ...)."""
        return predictions if self._output.numbers else classes_of(predictions)

    def truth(self, answered: Answered) -> np.ndarray | None:
        """What answers to a piece of a stream are compared with, as ``answers`` gives them; None where there is
        nothing.

        Frames without a label are NaN among numbers, as are outputs without one, and below 0 among classes.
        """
        if not self._labelled:
            return None if answered.original is None else self.answers(answered.original[0])
        labels = answered.labels[0]
        if not self._output.numbers:
            return labels
        targets = self._output.targets(np.maximum(labels, 0))
        targets[labels < 0] = np.nan
        return targets

    def scores(self, answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Of answers to some frames: (frames,) how much of each is right; of numbers (frames, outputs) squared
        errors."""
        if self._output.numbers:
            squares = (np.asarray(answers, np.float64).reshape(truth.shape) - truth) ** 2
            if self._labelled and self._output.parts:
                squares = np.nan_to_num(squares)  # of outputs without a label
            summed = squares.reshape(len(squares), -1, squares.shape[-1]).sum(axis=1)
            return np.where(self._known(truth)[:, None], summed, 0.0)
        return (answers == truth).reshape(len(truth), -1).sum(axis=1)

    def scores_of(self, line: np.ndarray, sources: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Of several ways to answer the same frames.

        Args:
            line: answers, as ``answers`` gives them.
            sources: (ways, frames) which of them stands for each frame.
            truth: of these frames.

        Returns:
            (ways, frames), or of numbers (ways, frames, outputs), as ``scores`` gives them.
        """
        at_once = max(1, AT_ONCE // (sources.shape[1] * line[:1].size))
        parts = [sources[begin : begin + at_once] for begin in range(0, len(sources), at_once)]
        found = [self.scores(line[of.ravel()], np.concatenate([truth] * len(of))) for of in parts]
        return np.concatenate([of.reshape(-1, sources.shape[1], *of.shape[1:]) for of in found])

    def expect(self, truth: np.ndarray, work_item: int) -> None:
        """Frames that all ways are judged on, for a work item, by which floating-point sums are kept."""
        if not self._output.numbers:
            self._of += int((truth >= 0).sum())
            return
        known = truth[self._known(truth)]
        self._targets.update(known, known, work_item)

    def _known(self, truth: np.ndarray) -> np.ndarray:
        """(frames,) whether there is something to compare with: a number, or whatever the original answered."""
        return ~np.isnan(truth).all(axis=-1) if self._labelled else np.ones(len(truth), bool)

    def add_scores(self, scores: np.ndarray, work_item: int) -> None:
        """Add scores (ways,), or (ways, outputs), summed over frames."""
        if not self._output.numbers:
            self._right += scores
            return
        self._errors[work_item] = self._errors.get(work_item, 0.0) + scores

    def record(self) -> Record:
        """Everything added up, for :meth:`add` of another one."""
        work_items = sorted(self._errors)
        own = {"right": self._right, "of": np.asarray(self._of), "work_item": np.array(work_items, np.int64)}
        own["errors"] = np.array([self._errors[work_item] for work_item in work_items])
        return nested({"own": own, "targets": self._targets.record()})

    def add(self, record: Record) -> None:
        """Add what another one has added up."""
        own = inner_record(record, "own")
        self._right += own["right"]
        self._of += int(own["of"])
        for work_item, errors in zip(own["work_item"].tolist(), own["errors"], strict=True):
            self._errors[work_item] = self._errors.get(work_item, 0.0) + errors
        self._targets.add(inner_record(record, "targets"))

    def results(self) -> list[float] | None:
        """Of each way: the share that is right, or the error in units of the spread; None if nothing was judged."""
        if self._output.numbers:
            if not self._errors:
                return None
            errors = sum(self._errors[work_item] for work_item in sorted(self._errors))
            return [self._targets.of(one) for one in np.asarray(errors)]
        return [int(right) / self._of for right in self._right] if self._of else None
