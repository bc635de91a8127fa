"""The delta layer: passes on what changed enough, holds the rest, and is paid for every event."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import ops

from deltafine.layers.events import EventDensity, over_channels
from deltafine.layers.replica_shard import uniform
from deltafine.layers.rules import GRANULARITIES, RuleLike, rule_of, stored_rule
from deltafine.layers.rules.sequence import held_backwards
from deltafine.layers.stream import current_stream

Shape: TypeAlias = tuple[int | None, ...]
THRESHOLD_SCOPES = ("layer", "channel", "neuron")
RENAMED = {
    "unit": "granularity",
    "step_per": "threshold_per",
    "initial_step": "initial_threshold",
    "train_step": "train_threshold",
}
"""Names in the configurations of models that earlier versions saved."""
SMALLEST_LOG_THRESHOLD, LARGEST_LOG_THRESHOLD = math.log(1e-9), math.log(1e9)


@keras.saving.register_keras_serializable(package="deltafine")
class DeltaActivation(keras.layers.Layer):
    """Hold each activation until it changes by a threshold (Yousefzadeh and Sifalakis, arXiv 2107.07305, section 3).

    Forward, frame t of a clip becomes the value last *sent*; an *event* is a frame at which something is sent.
    Everything linear behind the layer then needs to be computed only where an event happened.

    Call with ``(x, clock)`` where ``x`` is (batch * time, ..., channels) and ``clock`` has one entry per frame of
    a clip (see ``deltafine.layers.FoldTime``), or with ``x`` alone where it is (batch, time, ..., channels).
    The output is shaped as ``x``.

    In training, the layer adds ``penalty`` times the mean expected number of events per element (frames 2..T) to
    the model's losses. A clip of one frame adds 0. (Rule ``"l1"`` adds its mean |x| over all frames instead.)

    Its metric ``events`` counts what was sent, exactly; a model's ``fit`` shows it as ``<layer name>_density``.

    Args:
        rule: ``"send-on-delta"``, ``"quantize"``, ``"identity"``, ``"paper"``, ``"l1"``, or an instance of an
            ``deltafine.layers.EventRule`` of one's own; as an attribute the instance, whatever was given.
        granularity: ``"element"``, every (pixel, channel) for itself; or ``"pixel"``, all channels of a position at
            once, when the root mean square of their changes, in thresholds, reaches 1.
        threshold_per: one threshold for the ``"layer"``, per ``"channel"`` or per ``"neuron"`` (one frame's element).
        initial_threshold: threshold to start from, > 0, in units of the activation; scalar or broadcastable to the
            thresholds' shape.
        penalty: coefficient of the penalty; a variable, so that a controller can steer it.
        random_start: while training, start each clip from a state as stale as it will be in a stream: what
            seeing the clip backwards, from up to a threshold off its last frame, leaves behind.
        train_threshold: whether the optimiser may change the thresholds.
        seed: seed of the random start.

    Raises:
        ValueError: for an unknown rule, granularity or scope, or a threshold that is not positive and finite.

    Examples:
        >>> layer = deltafine.DeltaActivation(initial_threshold=0.5)
        >>> x = np.array([0.0, 0.25, 1.0, 1.25, 0.25], "float32").reshape(1, 5, 1)  # one clip of five frames
        >>> layer(x)[0, :, 0].numpy().tolist()
        [0.0, 0.0, 1.0, 1.0, 0.25]
    """

    restarts = False
    """Whether it begins anew in every clip, also where a stream goes on."""

    def __init__(
        self,
        rule: RuleLike = "send-on-delta",
        granularity: str = "element",
        threshold_per: str = "layer",
        initial_threshold: npt.ArrayLike = 1.0,
        penalty: float = 0.0,
        random_start: bool = True,
        train_threshold: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_choice("granularity", granularity, GRANULARITIES)
        _check_choice("threshold_per", threshold_per, THRESHOLD_SCOPES)
        thresholds = _positive("initial_threshold", initial_threshold)
        self.rule = rule_of(rule)
        self.granularity = granularity
        self.threshold_per = threshold_per
        self.initial_threshold = thresholds.tolist()
        self.initial_penalty = float(penalty)
        self.random_start = bool(random_start)
        self.train_threshold = bool(train_threshold)
        self.seed = int(seed)
        self.supports_masking = True
        self.events = EventDensity(name=f"{self.name}_density")
        self._noise = keras.random.SeedGenerator(seed) if random_start and self.rule.has_memory else None

    def build(self, x_shape: Shape, clock_shape: Shape | None = None) -> None:
        frame_shape = tuple(x_shape)[1 if clock_shape is not None else 2 :]
        shape: tuple[Any, ...] = ()
        if self.threshold_per == "channel":
            shape = frame_shape[-1:]
        elif self.threshold_per == "neuron":
            shape = frame_shape
        if None in shape:
            raise ValueError(
                f"{self.name}: threshold_per={self.threshold_per!r} needs a static shape, the input is {x_shape}"
            )
        logarithms = np.broadcast_to(np.log(self.initial_threshold), shape)
        self.log_threshold = self.add_weight(
            shape=shape,
            initializer=lambda shape, dtype=None: tf.constant(logarithms, dtype=dtype),
            name="log_threshold",
            trainable=self.train_threshold and self.rule.uses_threshold,
            dtype="float32",
            autocast=False,
        )
        self.penalty = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.initial_penalty),
            name="penalty",
            trainable=False,
            dtype="float32",
            autocast=False,
        )
        self.built = True

    @property
    def threshold(self) -> tf.Tensor:
        """Threshold, > 0 by its parametrisation as the exponential of a bounded trainable variable."""
        return tf.exp(
            tf.clip_by_value(tf.convert_to_tensor(self.log_threshold), SMALLEST_LOG_THRESHOLD, LARGEST_LOG_THRESHOLD)
        )

    def set_threshold(self, threshold: npt.ArrayLike) -> None:
        """Set the threshold; a scalar or an array broadcastable to the thresholds' shape.

        Raises:
            ValueError: for a threshold that is not positive and finite.
        """
        self.log_threshold.assign(np.broadcast_to(np.log(_positive("threshold", threshold)), self.log_threshold.shape))

    def call(self, x: tf.Tensor, clock: tf.Tensor | None = None, training: bool | None = None) -> tf.Tensor:
        rule, working = self.rule, self._working(x)
        sequence = _by_clip(tf.cast(x, working), clock)
        threshold = tf.cast(self.threshold, working)
        stream = current_stream()
        slot = stream.slot() if stream is not None else None
        start = None if slot is None or slot.start is None else tf.stop_gradient(slot.start)
        true, held_threshold = tf.stop_gradient(sequence), tf.stop_gradient(threshold)
        if training and self._noise is not None and start is None:
            start = self._stale_start(true, held_threshold)
        sent = rule.send(true, held_threshold, self.granularity, start)
        if slot is not None:
            slot.end = sent[:, -1]
        self._settle(sequence, sent, threshold, slot.start if slot is not None else None, training=training)
        output = sent if stream is not None and stream.measuring else rule.output(sequence, sent, threshold)
        output = tf.reshape(output, tf.shape(x))
        whole = tf.as_dtype(self.compute_dtype).is_integer
        return tf.saturate_cast(output, self.compute_dtype) if whole else tf.cast(output, self.compute_dtype)

    @staticmethod
    def _working(x: tf.Tensor) -> tf.DType:
        """Half precision is too coarse to compare changes with a threshold; every value of it is one of float32."""
        return tf.float64 if x.dtype == tf.float64 else tf.float32

    def _settle(
        self,
        true: tf.Tensor,
        sent: tf.Tensor,
        threshold: tf.Tensor,
        carried: tf.Tensor | None,
        *,
        training: bool | None,
    ) -> None:
        """Count the events of all frames, and in training charge for them."""
        stream = current_stream()
        if stream is None or stream.counting:
            self._count(sent, carried)
        if training or (stream is not None and stream.charging):
            expected = tf.cast(self.rule.expected_events(true, sent, threshold, self.granularity), tf.float32)
            count = tf.cast(tf.size(expected), tf.float32)
            self.add_loss(tf.convert_to_tensor(self.penalty) * tf.math.divide_no_nan(tf.reduce_sum(expected), count))

    def _stale_start(self, sequence: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        """Values sent before the first frame of (batch, time, ..., channels): a state as it is within a long video.

        Noise around the first frame alone would be too easy: it averages out in the layers behind. What something
        leaves behind that moved or dimmed is off in the same direction over whole regions.
        """
        last = sequence[:, -1]
        noise = uniform(tf.shape(last), self._noise)
        start = self.rule.first(last + threshold * tf.cast(noise, sequence.dtype), threshold, self.granularity, ops)
        return held_backwards(self.rule, sequence, threshold, self.granularity, start)

    def _count(self, sent: tf.Tensor, carried: tf.Tensor | None) -> None:
        """Count events; in a continued stream, those of the first frame too."""
        before = sent[:, :-1] if carried is None else tf.concat([carried[:, None], sent[:, :-1]], axis=1)
        changed = tf.not_equal(sent[:, 1:] if carried is None else sent, before)
        if self.granularity == "pixel":
            changed = tf.reduce_any(changed, axis=-1)
            events = tf.math.count_nonzero(changed)
        else:
            events = tf.reduce_sum(tf.cast(over_channels(changed), tf.int64))
        elements = tf.size(changed, out_type=tf.int64)
        self.events.update_state(events, elements)

    def compute_output_shape(self, x_shape: Shape, clock_shape: Shape | None = None) -> Shape:
        return x_shape

    def compute_output_spec(
        self, x: keras.KerasTensor, clock: keras.KerasTensor | None = None, training: bool | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DeltaActivation:
        """A layer from its configuration; that of an earlier version has other names.

        Raises:
            DeltafineError: the class of its rule is not known here.
        """
        values = {RENAMED.get(name, name): value for name, value in config.items()}
        if isinstance(values.get("rule"), Mapping):
            values["rule"] = rule_of(values["rule"])  # before Keras, which would turn the error into one of its own
        return super().from_config(values)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rule": stored_rule(self.rule),
            "granularity": self.granularity,
            "threshold_per": self.threshold_per,
            "initial_threshold": self.initial_threshold,
            "penalty": self.initial_penalty,
            "random_start": self.random_start,
            "train_threshold": self.train_threshold,
            "seed": self.seed,
        }


def _by_clip(x: tf.Tensor, clock: tf.Tensor | None) -> tf.Tensor:
    """(batch * time, ...) to (batch, time, ...), time static wherever the clock's length is."""
    if clock is None:
        return x
    frames = clock.shape[0] if clock.shape[0] is not None else tf.shape(clock)[0]
    return (
        tf.reshape(x, tf.concat([[-1, frames], tf.shape(x)[1:]], 0))
        if None in x.shape[1:]
        else tf.reshape(x, [-1, frames, *x.shape[1:]])
    )


def _positive(name: str, threshold: npt.ArrayLike) -> np.ndarray:
    thresholds = np.asarray(threshold, dtype="float64")
    if not (np.all(np.isfinite(thresholds)) and np.all(thresholds > 0)):
        raise ValueError(f"{name} must be positive and finite, got {threshold!r}")
    return thresholds


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
