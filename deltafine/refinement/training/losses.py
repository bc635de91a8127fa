"""What training minimises beside the penalty: the labels' loss and the distance to the original model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.measurement.parts import SMALLEST_SPREAD, OutputPart, shares, spreads
from deltafine.measurement.probe import MOST_FEATURES

SMALLEST_PROBABILITY = 1e-7


class Loss(Protocol):
    """What a training minimises for its task; predictions and teacher are (batch, time, ..., outputs)."""

    by_frame: ClassVar[bool]
    """Whether each frame may have a label of its own."""

    def __call__(self, predictions: Any, teacher: Any | None, labels: Any) -> Any:
        """Mean loss of a batch; labels (batch,) or (batch, time) are indices, -1 where there is none."""

    def counted(self, labels: Any, teacher: Any | None) -> Any:
        """What that mean is over, float32, in units that are the same for all shards of a batch."""

    def divergence(self, original: np.ndarray, predictions: np.ndarray) -> float:
        """How far predictions (frames, ..., outputs) are from the original's, in nats per frame."""

    def logits(self, predictions: np.ndarray) -> np.ndarray:
        """What stands behind predictions (frames, ..., outputs), as (frames, values): it varies where they do not."""

    def right(self, predictions: Any, labels: Any) -> Any:
        """Share of the clips with a label (batch,) that are answered right; NaN where that has no meaning."""


class ClassificationLoss:
    """Cross-entropy to the labels and to the original model's answers, frame by frame.

    Args:
        probabilities: whether the model gives probabilities (else logits).
        distill: share of the original's answers, 0 to 1; clips without a label use them alone.
    """

    by_frame: ClassVar[bool] = False

    def __init__(self, probabilities: bool, distill: float) -> None:
        self.probabilities = probabilities
        self.distill = distill

    def __call__(self, predictions: Any, teacher: Any | None, labels: Any) -> Any:
        """Mean loss of a batch.

        Args:
            predictions: (batch, time, classes), the model's.
            teacher: the same of the original model, or None where ``distill`` is 0.
            labels: (batch,) or (batch, time) class indices, -1 where there is none.
        """
        log_p = self.log_probabilities(predictions)
        if len(log_p.shape) > 3:
            # A map of classes: labels say nothing about its positions, the original does.
            log_t = self.log_probabilities(teacher)
            return tf.reduce_mean(tf.reduce_sum(tf.exp(log_t) * (log_t - log_p), axis=-1))
        labels = labels[:, None] if len(labels.shape) == 1 else labels
        labels = tf.broadcast_to(labels, tf.shape(log_p)[:2])
        labelled = tf.cast(labels >= 0, tf.float32)
        # As in the report, a clip's answer is the mean over its frames; each frame counts on its own beside it.
        of_label = -tf.gather(log_p, tf.maximum(labels, 0), axis=-1, batch_dims=2)
        share = self.distill
        if teacher is None:
            return tf.math.divide_no_nan(tf.reduce_sum(labelled * of_label), tf.reduce_sum(labelled))
        log_t = self.log_probabilities(teacher)
        divergence = tf.reduce_sum(tf.exp(log_t) * (log_t - log_p), axis=-1)
        weight = tf.where(labelled > 0, share, 1.0)
        return tf.reduce_mean(weight * divergence + (1 - weight) * of_label)

    def counted(self, labels: Any, teacher: Any | None) -> Any:
        """All clips, or only labels where nothing else is followed."""
        return _counted(labels, teacher)

    def divergence(self, original: np.ndarray, predictions: np.ndarray) -> float:
        """Mean Kullback-Leibler divergence, in nats, of class predictions (frames, ..., classes)."""
        log_t, log_p = self.log_probabilities(original), self.log_probabilities(predictions)
        return float(tf.reduce_mean(tf.reduce_sum(tf.exp(log_t) * (log_t - log_p), axis=-1)))

    def logits(self, predictions: np.ndarray) -> np.ndarray:
        """The logits, less their mean over the classes; of probabilities, as far as float32 holds these."""
        scores = np.asarray(predictions, np.float64)
        if self.probabilities:
            if scores.shape[-1] == 1:
                scores = np.concatenate([1 - scores, scores], axis=-1)
            scores = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
        if scores.shape[-1] > 1:
            scores = scores - scores.mean(-1, keepdims=True)
        return scores.reshape(len(scores), -1)

    def right(self, predictions: Any, labels: Any) -> Any:
        """Share of the labelled clips whose class the mean over the frames names."""
        log_p = self.log_probabilities(predictions)
        if len(log_p.shape) > 3:
            return tf.constant(float("nan"))
        answers = tf.argmax(tf.reduce_mean(log_p, axis=1), axis=-1)
        labelled = tf.cast(labels >= 0, tf.float32)
        hits = labelled * tf.cast(tf.equal(answers, tf.cast(labels, answers.dtype)), tf.float32)
        return tf.reduce_sum(hits) / tf.reduce_sum(labelled)

    def log_probabilities(self, predictions: Any) -> Any:
        """(..., classes) in float32; a single output becomes two classes."""
        predictions = tf.cast(predictions, tf.float32)
        if predictions.shape[-1] == 1:
            if not self.probabilities:
                return tf.concat([tf.math.log_sigmoid(-predictions), tf.math.log_sigmoid(predictions)], -1)
            predictions = tf.concat([1 - predictions, predictions], -1)
        if self.probabilities:
            return tf.math.log(tf.clip_by_value(predictions, SMALLEST_PROBABILITY, 1.0))
        return tf.nn.log_softmax(predictions)


class RegressionLoss:
    """Squared error to the labels and to the original model's answers, in units of how much the latter vary.

    Half the squared error over the variance is the divergence, in nats, of two normal distributions that far apart.

    Args:
        predictions: the original's, (frames, ..., outputs), from which each output's spread is taken.
        distill: share of the original's answers, 0 to 1; clips without a label use them alone.
        values: the number that each label index stands for; () where labels are not looked at.
        parts: of a model with several outputs, whose predictions are laid out: each has its own spread, and counts by
            its weight, however many values it has.
        truth: (labels, parts), what the labels of several outputs stand for, see ``Output.truth``; None where labels
            are not looked at. Of labels that are classes, the cross-entropy to them counts, in nats, too.

    Raises:
        DeltafineError: the original's predictions never vary.
    """

    by_frame: ClassVar[bool] = True

    def __init__(
        self,
        predictions: np.ndarray,
        distill: float = 1.0,
        values: Sequence[float] = (),
        parts: Sequence[OutputPart] = (),
        truth: np.ndarray | None = None,
    ) -> None:
        spread = np.asarray(predictions, np.float64).reshape(-1, predictions.shape[-1]).std(0)
        self._shares = shares(parts).astype("float32") if parts else None
        if not spread.max() > 0:
            raise DeltafineError(
                "The model predicts the same numbers on every frame of the training videos, so there is nothing to "
                "follow: check --rescale and the videos."
            )
        spread = spreads(predictions, parts) if parts else np.maximum(spread, SMALLEST_SPREAD * spread.max())
        self._spread = spread.astype("float32")
        self.distill = distill
        self._values = np.asarray(values, np.float32)
        self._parts = tuple(parts)
        self._truth = None if truth is None else truth.astype("float32")

    def __call__(self, predictions: Any, teacher: Any | None, labels: Any) -> Any:
        """Mean loss of a batch; see :class:`Loss`."""
        predictions = tf.cast(predictions, tf.float32)
        frames = tf.shape(predictions)[:2]
        labels = tf.broadcast_to(labels[:, None] if len(labels.shape) == 1 else labels, frames)
        if self._truth is not None:
            return self._of_outputs(predictions, None if teacher is None else tf.cast(teacher, tf.float32), labels)
        labelled = tf.cast(labels >= 0, tf.float32) if len(self._values) else tf.zeros(frames)
        to_label = tf.zeros(frames)
        if len(self._values):
            targets = tf.gather(tf.constant(self._values), tf.maximum(labels, 0))
            to_label = self._error(predictions, targets[..., None])
        if teacher is None:
            return tf.math.divide_no_nan(tf.reduce_sum(labelled * to_label), tf.reduce_sum(labelled))
        weight = tf.where(labelled > 0, self.distill, 1.0)
        to_teacher = self._error(predictions, tf.cast(teacher, tf.float32))
        return tf.reduce_mean(weight * to_teacher + (1 - weight) * to_label)

    def counted(self, labels: Any, teacher: Any | None) -> Any:
        """All clips, or only labels where nothing else is followed."""
        return _counted(labels, teacher)

    def divergence(self, original: np.ndarray, predictions: np.ndarray) -> float:
        """Mean of half the squared error over the variance."""
        error = ((np.asarray(predictions, np.float64) - original) / self._spread) ** 2
        return float(np.mean(error if self._shares is None else error @ self._shares) / 2)

    def logits(self, predictions: np.ndarray) -> np.ndarray:
        """The numbers themselves, in units of how much each of them varies."""
        numbers = np.asarray(predictions, np.float64).reshape(len(predictions), -1, predictions.shape[-1])
        if self._shares is None:
            return (numbers / self._spread).reshape(len(numbers), -1)
        kept = np.linspace(0, numbers.shape[-1] - 1, min(numbers.shape[-1], MOST_FEATURES)).round().astype(int)
        scale = np.sqrt(self._shares * len(self._shares)) / self._spread
        return np.asarray(numbers[:, 0, kept] * scale[kept])

    def right(self, predictions: Any, labels: Any) -> Any:
        """NaN: numbers are near or far, not right or wrong."""
        return tf.constant(float("nan"))

    def _of_outputs(self, predictions: Any, teacher: Any | None, labels: Any) -> Any:
        """Mean loss where some of several outputs have labels; the original is followed where there is none.

        Without a teacher, only the labels count, over the frames that have any.
        """
        assert self._shares is not None
        truth = tf.gather(tf.constant(self._truth), tf.maximum(labels, 0))
        truth = tf.where(labels[..., None] >= 0, truth, float("nan"))
        to_teacher = (
            tf.zeros_like(predictions) if teacher is None else tf.square((predictions - teacher) / self._spread) / 2
        )
        whole, first = tf.linalg.matvec(to_teacher, self._shares), 0
        for place, part in enumerate(self._parts):
            of_part = slice(first, first + part.size)
            first += part.size
            if part.labels is None:
                continue
            known = ~tf.math.is_nan(truth[..., place])
            target = tf.where(known, truth[..., place], 0.0)
            to_label = float(self._shares[of_part].sum()) * self._to_label(
                predictions[..., of_part], target, part, of_part
            )
            followed = tf.linalg.matvec(to_teacher[..., of_part], self._shares[of_part])
            whole += tf.where(known, (1 - self.distill) * (to_label - followed), 0.0)
        if teacher is None:
            counted = tf.cast(labels >= 0, tf.float32)
            return tf.math.divide_no_nan(tf.reduce_sum(counted * whole), tf.reduce_sum(counted))
        return tf.reduce_mean(whole)

    def _to_label(self, predictions: Any, target: Any, part: OutputPart, of_part: slice) -> Any:
        """(batch, time), in nats: how far one output is from its labels (batch, time)."""
        assert part.labels is not None
        if not part.labels.classes:
            return tf.square((predictions[..., 0] - target) / self._spread[of_part][0]) / 2
        log_p = ClassificationLoss(part.labels.probabilities, 0.0).log_probabilities(predictions)
        return -tf.gather(log_p, tf.cast(target, tf.int64), axis=-1, batch_dims=2)

    def _error(self, predictions: Any, targets: Any) -> Any:
        """(batch, time): half the squared error over the variance, mean over the outputs and positions."""
        error = tf.square((predictions - targets) / self._spread) / 2
        if self._shares is not None:
            return tf.linalg.matvec(error, self._shares)
        return tf.reduce_mean(error, axis=list(range(2, len(error.shape))))


def _counted(labels: Any, teacher: Any | None) -> Any:
    count = tf.size(labels) if teacher is not None else tf.math.count_nonzero(labels >= 0)
    return tf.cast(count, tf.float32)
