"""What a student is taught by: labels, the original's answers, and what the original's last layers see.

An answer is a few numbers in a frame. What it is made of is many more, and says in which direction a wrong answer lies.
Source: FitNets, Romero et al. 2015, arXiv 1412.6550.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.model import graph
from deltafine.model.clip_model import with_time
from deltafine.model.further_inputs import answered, inputs_of
from deltafine.model.macs import mac_layers
from deltafine.model.tensor_products import operands_of
from deltafine.refinement.training.losses import Loss

LAYERS = 2
"""So many of the last layers with MACs are looked at."""
LEAST_VARIANCE = 0.01
"""Of the mean square: what hardly varies is not measured by how much it does."""


@dataclass(frozen=True)
class Features:
    """What goes into the last layers with MACs, as the student is to have it.

    Attributes:
        weight: of it in the loss, beside the answers.
        places: paths of these layers.
        variances: of what goes into each of them, over the frames, mean over its values.
    """

    weight: float
    places: tuple[str, ...]
    variances: tuple[float, ...]

    @classmethod
    def measured(
        cls, weight: float, original: keras.Model, student: keras.Model, videos: Sequence[np.ndarray]
    ) -> Features:
        """Of the original on videos (frames, height, width, channels), where the student has the layers as well.

        Args:
            weight: of the features in the loss.
            original, student: clip models.
            videos: pixels as the models take them.
        """
        model = with_time(original)
        theirs = set(_paths(with_time(student)))
        places = [path for path in _paths(model) if path in theirs][-LAYERS:]
        seen = [_run(model, tf.cast(video[None], tf.float32), places, training=False)[1] for video in videos]
        variances = []
        for layer in zip(*seen, strict=True):
            values = np.concatenate([np.asarray(tf.cast(one, tf.float32)) for one in layer])
            spread = float(values.var(axis=0, dtype=np.float64).mean())
            variances.append(max(spread, LEAST_VARIANCE * float(np.square(values, dtype=np.float64).mean()), 1e-12))
        return cls(weight, tuple(places), tuple(variances))

    def distance(self, found: Sequence[Any], wanted: Sequence[Any]) -> Any:
        """Mean over the layers of half the squared difference over the variance, as between answers in numbers."""
        distances = [
            tf.reduce_mean(tf.square(tf.cast(here, tf.float32) - tf.cast(there, tf.float32))) / (2 * variance)
            for here, there, variance in zip(found, wanted, self.variances, strict=True)
        ]
        return tf.add_n(distances) / len(distances)


class Teaching:
    """A student beside its teacher.

    Args:
        student: (batch, time, ...) to predictions along time.
        teacher: the same of the original, or None where nothing of it is followed.
        loss: of labels and answers.
        features: what is followed beside answers, if anything.
    """

    def __init__(
        self, student: keras.Model, teacher: keras.Model | None, loss: Loss, features: Features | None = None
    ) -> None:
        self._student, self._teacher, self._loss = student, teacher, loss
        self._features = features if teacher is not None and features is not None and features.places else None

    def original(self, clips: Any) -> tuple[Any | None, list[Any]]:
        """The original's answers on a batch of clips, None without a teacher; and what its last layers see."""
        if self._teacher is None:
            return None, []
        if self._features is None:
            return tf.stop_gradient(answered(self._teacher, clips)), []
        answers, seen = _run(self._teacher, clips, self._features.places, training=False)
        return tf.stop_gradient(answers), [tf.stop_gradient(one) for one in seen]

    def loss(self, clips: Any, original: tuple[Any | None, list[Any]], labels: Any) -> tuple[Any, Any]:
        """The student's predictions on the same clips, and the loss; for use within a tape and a stream."""
        answers, wanted = original
        if self._features is None:
            predictions = answered(self._student, clips, training=True)
            return predictions, self._loss(predictions, answers, labels)
        predictions, found = _run(self._student, clips, self._features.places, training=True)
        task = self._loss(predictions, answers, labels)
        return predictions, task + self._features.weight * self._features.distance(found, wanted)


def _run(model: keras.Model, clips: Any, places: Sequence[str], *, training: bool) -> tuple[Any, list[Any]]:
    """Predictions, and what goes into each of the layers."""
    found: dict[str, Any] = {}

    @tf.autograph.experimental.do_not_convert
    def observe(path: str, _operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _outputs: Any) -> None:
        if path in places:
            found[path] = operands_of(args, kwargs)[0]

    (predictions,) = graph.run(model, inputs_of(model, clips), observe, training=training)
    return predictions, [found[path] for path in places]


def _paths(model: keras.Model) -> list[str]:
    """Of the layers with MACs, in order of computation."""
    time, *frame = graph.frames_input(model).shape[1:]
    return [entry.path for entry in mac_layers(model, (1, *frame) if time is None else None)]
