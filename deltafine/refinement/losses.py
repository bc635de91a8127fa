"""What training minimises beside the penalty: the labels' loss and the distance to the original model."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

SMALLEST_PROBABILITY = 1e-7


def are_probabilities(predictions: np.ndarray) -> bool:
    """Whether predictions (..., classes) are probabilities, not logits: within 0..1, and summing to 1."""
    inside = bool(np.all(predictions >= 0) and np.all(predictions <= 1 + 1e-5))
    return inside and (predictions.shape[-1] == 1 or np.allclose(predictions.sum(-1), 1, atol=1e-3))


def divergence(original: np.ndarray, predictions: np.ndarray, probabilities: bool) -> float:
    """Mean Kullback-Leibler divergence, in nats, of class predictions (frames, classes) from the original's."""
    loss = ClassificationLoss(probabilities, distill=1.0)
    log_t, log_p = loss.log_probabilities(original), loss.log_probabilities(predictions)
    return float(tf.reduce_mean(tf.reduce_sum(tf.exp(log_t) * (log_t - log_p), axis=-1)))


class ClassificationLoss:
    """Cross-entropy to the labels and to the original model's answers, frame by frame.

    Args:
        probabilities: whether the model gives probabilities (else logits).
        distill: share of the original's answers, 0 to 1; clips without a label use them alone.
    """

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
