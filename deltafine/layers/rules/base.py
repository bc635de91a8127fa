"""The contract of every event rule.

A rule says when a value counts as changed, and which gradients training uses in place of that decision. CONTRIBUTING.md
shows a rule of one's own, from the class to the runtime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.layers.rules.changes import change_over_time, likely_events, smooth_relative_change, straight_through
from deltafine.layers.rules.sequence import send_frame_by_frame

if TYPE_CHECKING:
    Values: TypeAlias = np.ndarray | tf.Tensor

GRANULARITIES = ("element", "pixel")


class EventRule(ABC):
    """When a value is sent, and with which gradients that is trained.

    A subclass needs ``name`` and :meth:`advance`; everything else has a default. An instance is accepted wherever the
    name of a built-in rule is. It has no state: what a rule remembers of a stream is what it sent last, which is handed
    to it.

    A subclass is registered with Keras under its module and name, so that a saved model loads once the module has been
    imported. One with parameters overrides :meth:`get_config`.

    Shapes: ``x`` and ``sent`` of one frame are (batch, ..., channels), of a clip (batch, time, ..., channels), in
    float32 or float64, in units of the activation. ``threshold`` is > 0 in the same units and type, and broadcasts
    against one frame without its batch axis. ``granularity`` is ``"element"``, or ``"pixel"`` where all channels of a
    position are sent at once or not at all.

    Attributes:
        name: what reports call the rule; not that of a built-in one.
        uses_threshold: whether the threshold has any effect; it is trained only then.
        has_memory: whether what is sent depends on what was sent before. A rule without memory sends
            ``first(x, ...)`` of every frame.
        quantises: whether what is sent is a whole number of thresholds; reports then say how many bits it needs.
    """

    name: ClassVar[str]
    uses_threshold: ClassVar[bool] = True
    has_memory: ClassVar[bool] = True
    quantises: ClassVar[bool] = False

    @property
    def follows_sensitivity(self) -> bool:
        """Whether its thresholds may be multiplied while a model runs, see ``DeltaStream.sensitivity``.

        Those of a rule with memory say how far off a value may be. Those of one that quantises are the grid that the
        network was trained on.
        """
        return self.uses_threshold and self.has_memory and not self.quantises

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package=cls.__module__)(cls)

    @abstractmethod
    def advance(self, sent: Values, x: Values, threshold: Values, granularity: str, xp: ModuleType) -> Values:
        """The values held after one more frame.

        This is the one definition of the rule: training, measuring, export and the runtime all call it.

        Args:
            sent: the values sent last, shaped as ``x``.
            x: the frame's true values.
            threshold: see the class.
            granularity: ``"element"`` or ``"pixel"``.
            xp: ``numpy`` or ``keras.ops``, to compute with; the values are of the same library.

        Returns:
            Values shaped as ``x``. An element is an event where they differ from ``sent``.
        """

    def first(self, x: Values, threshold: Values, granularity: str, xp: ModuleType) -> Values:
        """The values held after the first frame of a fresh state: ``x`` itself, unless overridden."""
        return x

    def send(self, x: tf.Tensor, threshold: tf.Tensor, granularity: str, start: tf.Tensor | None = None) -> tf.Tensor:
        """The values held at every frame of clips, without gradients: :meth:`first`, then :meth:`advance` in turn.

        To be overridden where all frames can be computed at once.

        Args:
            x: (batch, time, ..., channels).
            threshold: see the class.
            granularity: ``"element"`` or ``"pixel"``.
            start: (batch, ..., channels), values sent before the first frame; None for a fresh state.

        Returns:
            A tensor shaped as ``x``.

        Raises:
            DeltafineError: :meth:`advance` gives values of another shape.
        """
        return send_frame_by_frame(self, x, threshold, granularity, start)

    def output(self, x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        """``sent`` in value, to the bit; with the gradients of the task path.

        By default to ``x`` straight through, and to ``threshold`` as LSQ (Esser et al., arXiv 1902.08153, eq. 3):
        d output / d threshold = (sent - x) / threshold, without their scale of 1 / sqrt(N Q): this is the slope of the
        error in the threshold, on one scale with that of the penalty, so that the two can hold each other.

        Args:
            x, sent: (batch, time, ..., channels).
            threshold: see the class.
        """
        return straight_through(x, sent, threshold)

    def expected_events(self, x: tf.Tensor, sent: tf.Tensor, threshold: tf.Tensor, granularity: str) -> tf.Tensor:
        """A smooth stand-in for the number of events, with gradients to ``x`` and ``threshold``.

        By default tanh(u) of u = |x_t - x_(t-1)| / threshold, near min(1, u), which is exact for a quantiser of
        uniform phase. Not the distance to what was sent last: while training starts from random states, that distance
        is mostly the noise of the start, and its gradient would pull activations towards it.

        Args:
            x, sent: (batch, time, ..., channels).
            threshold, granularity: see the class.

        Returns:
            (batch, time - 1, ..., channels), or one channel for ``granularity="pixel"``; values from 0 to 1.
        """
        if granularity == "element":
            return likely_events(x, threshold)
        return tf.tanh(smooth_relative_change(change_over_time(x), threshold, granularity))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this rule again, as plain values; for the saved model and the run's settings.

        Raises:
            DeltafineError: the rule has parameters and does not override this, so they would be lost.
        """
        if vars(self):
            raise DeltafineError(
                f"{type(self).__name__} has parameters ({', '.join(vars(self))}): give it a get_config() that returns "
                "the arguments that make it again."
            )
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EventRule:
        """The rule that ``get_config`` describes."""
        return cls(**config)

    @property
    def reference(self) -> str:
        """The rule as the setting ``rule`` names it: ``module:Class(argument=value)``."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__module__}:{type(self).__qualname__}" + (f"({arguments})" if arguments else "")

    def __str__(self) -> str:
        return self.name
