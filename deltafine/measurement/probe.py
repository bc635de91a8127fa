"""Running a clip model and counting, frame by frame, what happens in it.

The counts are taken at the inputs of the layers that multiply and accumulate, and at the outputs of delta layers,
while the model runs once. They are integers; a long video is fed piece by piece, with all state carried along, and
gives the same counts as in one piece.

A network that takes clips is fed window by window. Its layers count by their own steps of time, as many as are left of
the window's frames where they stand; a layer behind the end of time has one step, the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation, Stream, current_stream
from deltafine.measurement import counting, graph_counting
from deltafine.model import graph
from deltafine.model.clip_model import times_of_calls, window_of, with_time
from deltafine.model.fan_out import fan_out, is_covered, stages

MOST_FEATURES = 4096
"""Values of a frame that are kept of what goes into the last layer with MACs."""


@dataclass(frozen=True)
class Place:
    """Where counts are taken: one operation of one call of a layer with MACs, or one call of a delta layer."""

    name: str
    kind: str
    elements: int  # of one frame, or step
    positions: int  # of one frame, or step
    dense_macs: int  # per frame, or window; 0 for a delta layer
    output_elements: int  # of one frame, or step
    step_macs: tuple[int, ...] = ()  # of each step of a window; () where a step is a frame


@dataclass
class Counts:
    """What was counted at one place; integer arrays of shape (batch, steps of time) unless said otherwise.

    ``changed``, ``changed_positions`` and ``macs_delta`` compare a frame with the one before; they are 0 where
    there is none (``Piece.steady`` tells).
    """

    nonzero: np.ndarray
    changed: np.ndarray
    changed_positions: np.ndarray
    macs_spatial: np.ndarray
    macs_delta: np.ndarray
    units: np.ndarray  # bool: whether all values are -1, 0 or 1
    units_twice: np.ndarray  # bool: whether those of the frame before are too
    channel_changed: np.ndarray | None = None  # delta layers: (batch, time, channels), changed positions
    staleness: np.ndarray | None = None  # delta layers: sums over elements of |sent - true| / step
    lowest_level: float | None = None  # delta layers with levels: sent / step, the least and the greatest
    highest_level: float | None = None


@dataclass
class Piece:
    """One batch of clips, or one piece of a continuous video, as it went through a model."""

    predictions: np.ndarray  # (batch, time, ...)
    counts: list[Counts]  # in the order of Probe.layers + Probe.deltas
    steady: np.ndarray  # (batch, frames, or 1 for a window) bool: whether it has one before it
    state: list[Any] = field(repr=False)  # to go on with
    features: np.ndarray | None = None  # (batch, steps of time, values): some of what the last layer with MACs takes

    def steady_at(self, counts: Counts) -> np.ndarray:
        """(batch, steps) bool: whether a step at this place has one before it; all but the first of a clip do."""
        steady = np.ones(counts.changed.shape, bool)
        steady[:, :1] = self.steady[:, :1]
        return steady


class Probe:
    """A clip model, ready to be measured.

    Args:
        clip_model: as ``deltafine.model.insert_deltas`` makes it; (batch, time, height, width, channels) in.
        in_graph: count on the device that the model runs on; default: where there is a GPU.

    Attributes:
        layers: places with MACs, in the order in which they run.
        deltas: delta layers, in the order in which they run.
        window: frames that a network that takes clips sees at once, which are then counted as one; None for a
            per-frame network.

    Raises:
        DeltafineError: the model is no clip model with one output.
    """

    def __init__(self, clip_model: Any, *, in_graph: bool | None = None) -> None:
        self.window = window_of(clip_model)
        self.model = with_time(clip_model)
        self._times = None if self.window is None else times_of_calls(self.model)
        self.layers: list[Place] = []
        self.deltas: list[Place] = []
        self.delta_layers: list[DeltaActivation] = []
        self._in_graph = bool(tf.config.list_logical_devices("GPU")) if in_graph is None else in_graph
        self._taken: list[tuple[int, int | None]] = []  # of each place: which tensor, which fan-out
        self.frame_shape: tuple[int, int, int] = tuple(clip_model.inputs[0].shape[2:])
        frames = tf.TensorSpec((None, self.window, *self.frame_shape), tf.float32)
        self._fresh = tf.function(lambda clips: self._run(clips, None), input_signature=[frames])
        self._fresh.get_concrete_function()
        self._continued = tf.function(self._run, reduce_retracing=True)

    def run(self, frames: np.ndarray, state: list[Any] | None = None) -> Piece:
        """Measure frames (batch, time, height, width, channels), any number type, pixels as the model takes them.

        With ``state`` of the previous piece, goes on where that ended; else every clip starts fresh.

        Raises:
            DeltafineError: the model puts frames into the batch in a way that is not understood.
        """
        clips = tf.cast(tf.convert_to_tensor(frames), tf.float32)
        run = self._fresh(clips) if state is None else self._continued(clips, state)
        predictions, counted, state_after, features = run
        steady = np.ones((len(frames), frames.shape[1] if self.window is None else 1), bool)
        if state is None:
            steady[:, 0] = False
        arrays = [[part.numpy() for part in of_tensor] for of_tensor in counted]
        counts = [_counts(arrays[tensor], fan) for tensor, fan in self._taken]
        for place, of_place in zip(self.layers + self.deltas, counts, strict=True):
            if len(of_place.changed) != len(frames):
                raise DeltafineError(
                    f"Layer '{place.name}' runs over frames that plain operations put into the batch, so they cannot "
                    "be told from clips; models exported as quantized with send-on-delta do so: measure the refined "
                    "model itself, or its stripped form."
                )
        return Piece(predictions.numpy(), counts, steady, state_after, *(values.numpy() for values in features))

    def _run(self, clips: Any, state: list[Any] | None) -> tuple[Any, list[list[Any]], list[Any], list[Any]]:
        def by_step(path: str, value: Any) -> Any:
            """(batch, steps of time, ...)"""
            time = self._times[path] if self._times is not None else None
            if self._times is not None and time is None:
                return value[:, None]
            if time is not None and not time.folded:
                return value
            return tf.reshape(value, (tf.shape(clips)[0], -1, *value.shape[1:]))

        self.layers, self.deltas, self.delta_layers = [], [], []
        tensors: list[_Tensor] = []
        at_layers: list[tuple[int, int | None]] = []
        at_deltas: list[tuple[int, int | None]] = []
        into_last: list[Any] = []

        def tensor_of(path: str, value: Any) -> int:
            """A tensor that goes to several layers is looked at once."""
            known = next((index for index, tensor in enumerate(tensors) if tensor.value is value), None)
            if known is None:
                tensors.append(_Tensor(value, by_step(path, value)))
                return len(tensors) - 1
            return known

        @tf.autograph.experimental.do_not_convert
        def observe(path: str, operation: Any, args: tuple[Any, ...], outputs: Any) -> None:
            if isinstance(operation, DeltaActivation):
                index = tensor_of(path, outputs)
                tensors[index].of_delta_layer(operation, by_step(path, args[0]))
                self.deltas.append(_delta_place(path, operation, tensors[index].frames))
                self.delta_layers.append(operation)
                at_deltas.append((index, None))
            elif is_covered(operation):
                into_last[:] = [by_step(path, args[0])]
                for stage, value in _stage_inputs(operation, args[0]):
                    fan = fan_out(operation, args[0].shape[1:], stage=stage)
                    index = tensor_of(path, value)
                    place = _mac_place(path, operation, stage, tensors[index].frames, by_step(path, outputs))
                    self.layers.append(self._with_macs(place, fan, path, value.shape[1:]))
                    at_layers.append((index, len(tensors[index].questions.fans)))
                    tensors[index].questions.fans.append(fan)

        with Stream(state, measuring=True) as stream:
            (predictions,) = graph.run(self.model, [clips], observe)
        self._taken = at_layers + at_deltas
        counted = [tensor.count(in_graph=self._in_graph) for tensor in tensors]
        return predictions, counted, stream.state, [_some(features) for features in into_last]

    def _with_macs(self, place: Place, fan: np.ndarray, path: str, shape: Any) -> Place:
        """The place with its MACs per frame; or per window, and at each of its steps."""
        macs = np.broadcast_to(fan, shape)
        if self._times is None:
            return replace(place, dense_macs=int(macs.sum(dtype=np.int64)))
        time = self._times[path]
        if time is not None and not time.folded:
            steps = macs.reshape(len(macs), -1).sum(axis=1, dtype=np.int64).tolist()
        else:
            steps = [int(macs.sum(dtype=np.int64))] * (1 if time is None else time.steps)
        return replace(place, dense_macs=sum(steps), step_macs=tuple(steps))


class _Tensor:
    """A tensor of the model, with what is asked about it; takes a slot of the active stream for its last frame."""

    def __init__(self, value: Any, frames: Any) -> None:
        stream = current_stream()
        assert stream is not None
        slot = stream.slot()
        self.value = value
        self.frames = frames  # (batch, steps of time, ...)
        self.questions = counting.Questions([])
        self._into_delta: list[Any] = []
        self._before = [] if slot.start is None else [slot.start]
        slot.end = frames[:, -1]

    def of_delta_layer(self, layer: DeltaActivation, true: Any) -> None:
        """It is the output of a delta layer, ``true`` (batch, steps of time, ...) is the input."""
        self.questions.layer = layer
        self._into_delta = [true, layer.step]

    def count(self, *, in_graph: bool) -> list[Any]:
        """As ``counting.count``."""
        inputs = [self.frames, *self._into_delta, *self._before]
        if in_graph:
            return graph_counting.count(self.questions, *inputs)
        types = [tf.int64]
        if self.questions.layer is not None:
            types += [tf.int64, tf.float64] + [tf.float64] * self.questions.quantised
        return list(tf.numpy_function(partial(counting.count, self.questions), inputs, types, stateful=False))


def _some(frames: Any) -> Any:
    """At most ``MOST_FEATURES`` values of each frame (batch, steps, ...), spread evenly over it, float32."""
    size = math.prod(frames.shape[2:])
    flat = tf.reshape(tf.cast(frames, tf.float32), (tf.shape(frames)[0], -1, size))
    if size <= MOST_FEATURES:
        return flat
    return tf.gather(flat, np.linspace(0, size - 1, MOST_FEATURES).round().astype(np.int64), axis=-1)


def _counts(arrays: list[np.ndarray], fan: int | None) -> Counts:
    """What ``counting.count`` found, for one layer that takes the tensor; or for the delta layer that gives it."""
    rows = arrays[0]
    nonzero, changed, changed_positions, units, units_twice = rows[: counting.FIRST_FAN]
    if fan is not None:
        spatial, delta = rows[counting.FIRST_FAN + 2 * fan :][:2]
        return Counts(nonzero, changed, changed_positions, spatial, delta, units != 0, units_twice != 0)
    none, never = np.zeros_like(nonzero), np.zeros(nonzero.shape, bool)
    levels = arrays[3].tolist() if len(arrays) > 3 else (None, None)
    return Counts(nonzero, changed, changed_positions, none, none, never, never, arrays[1], arrays[2], *levels)


def _stage_inputs(layer: Any, x: Any) -> list[tuple[str | None, Any]]:
    """The inputs of a layer's MAC operations; a separable convolution has an intermediate one."""
    if len(stages(layer)) == 1:
        return [(None, x)]
    between = keras.ops.depthwise_conv(
        x,
        layer.depthwise_kernel,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    return [("depthwise", x), ("pointwise", between)]


def _mac_place(path: str, layer: Any, stage: str | None, sequence: Any, outputs: Any) -> Place:
    elements = int(np.prod(sequence.shape[2:]))
    return Place(
        name=f"{path}/{stage}" if stage else path,
        kind=type(layer).__name__,
        elements=elements,
        positions=elements // sequence.shape[-1],
        dense_macs=0,
        output_elements=0 if stage == "depthwise" else int(np.prod(outputs.shape[2:])),
    )


def _delta_place(path: str, layer: DeltaActivation, sent: Any) -> Place:
    elements = int(np.prod(sent.shape[2:]))
    return Place(path, type(layer).__name__, elements, elements // sent.shape[-1], 0, elements)
