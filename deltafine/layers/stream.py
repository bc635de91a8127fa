"""State carried from one piece of a continuous video to the next.

A network processes a long video piece by piece. What must survive from one piece to the next (the values that
delta layers sent last, the last inputs of measured layers) goes through *slots*, in the order in which the
layers run::

    with Stream(state) as stream:
        predictions = model(piece)
    state = stream.state     # for the next piece

Everything stays a function of tensors: no layer holds variables for it, so several streams can share a model.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

_active = threading.local()


class Slot:
    """The state of one call of one layer: ``start`` from the piece before (or None), ``end`` for the next."""

    def __init__(self, start: tf.Tensor | None) -> None:
        self.start = start
        self.end: tf.Tensor | None = None


class Stream:
    """A context in which layers find the state they left behind.

    Args:
        state: what ``.state`` of the previous piece's stream was; None at the start of a video.
        measuring: no gradients are wanted, so delta layers give what they send without more ado.
        counting: whether delta layers update their ``events`` metric; if not given, unless measuring, since events are
            then counted by other means.
        charging: delta layers charge for expected events as they do in training, though nothing is trained.

    Examples:
        >>> layer, video = deltafine.DeltaActivation(initial_threshold=1.0), np.arange(6.0).reshape(1, 6, 1) * 0.4
        >>> with Stream() as first:
        ...     start = layer(video[:, :3])
        >>> with Stream(first.state) as second:
        ...     rest = layer(video[:, 3:])
        >>> np.array_equal(np.concatenate([start, rest], axis=1), layer(video))
        True
    """

    def __init__(
        self,
        state: Sequence[tf.Tensor] | None = None,
        *,
        measuring: bool = False,
        counting: bool | None = None,
        charging: bool = False,
    ) -> None:
        self.measuring = measuring
        self.charging = charging
        self.counting = not measuring if counting is None else counting
        self._starts = None if state is None else list(state)
        self._slots: list[Slot] = []

    def slot(self) -> Slot:
        """The next layer's slot; layers run in the same order for every piece.

        Raises:
            ValueError: the state has no value for another layer: it is another model's.
        """
        if self._starts is not None and len(self._slots) >= len(self._starts):
            raise ValueError(f"the stream's state holds {len(self._starts)} values, the model needs more of them")
        slot = Slot(None if self._starts is None else self._starts[len(self._slots)])
        self._slots.append(slot)
        return slot

    @property
    def state(self) -> list[tf.Tensor]:
        """The end of every slot, to start the next piece with."""
        return [slot.end for slot in self._slots]

    def __enter__(self) -> Stream:
        if current_stream() is not None:
            raise RuntimeError("a stream is already active in this thread")
        _active.stream = self
        return self

    def __exit__(self, *exception: object) -> None:
        _active.stream = None


def current_stream() -> Stream | None:
    """The stream of this thread, if one is active."""
    return getattr(_active, "stream", None)
