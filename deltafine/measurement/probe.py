"""Running a clip model and counting, frame by frame, what happens in it.

The counts are taken at the inputs of the layers that multiply and accumulate, and at the outputs of delta layers,
while the model runs once. They are integers; a long video is fed piece by piece, with all state carried along, and
gives the same counts as in one piece.

A network that takes clips is fed window by window. Its layers count by their own steps of time, as many as are left of
the window's frames where they stand; a layer whose input has no time axis any more has one step, the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation, Stream
from deltafine.measurement import counting
from deltafine.measurement.counted_tensor import CountedTensor
from deltafine.measurement.factors import NOTHING, OUTPUTS, factors
from deltafine.measurement.product_counting import Pair
from deltafine.model import graph
from deltafine.model.clip_model import times_of_calls, window_of, with_time
from deltafine.model.further_inputs import inputs_of, packed_shape, picture_shape
from deltafine.model.macs import MacLayer, all_entries
from deltafine.model.tensor_products import operands_of
from deltafine.model.time_axis import Steps

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
class PlaceCounts:
    """What was counted at one place; integer arrays of shape (batch, steps of time) unless said otherwise.

    ``changed``, ``changed_positions`` and ``macs_delta`` compare a frame with the one before; they are 0 where
    there is none (``Piece.steady`` tells).
    """

    nonzero: np.ndarray
    changed: np.ndarray
    changed_positions: np.ndarray
    macs_spatial: np.ndarray
    macs_delta: np.ndarray
    ternary: np.ndarray  # bool: whether all values are -1, 0 or 1
    ternary_twice: np.ndarray  # bool: whether those of the frame before are too
    channel_changed: np.ndarray | None = None  # delta layers: (batch, time, channels), changed positions
    staleness: np.ndarray | None = None  # delta layers: sums over elements of |sent - true| / threshold
    lowest_level: float | None = None  # delta layers with levels: sent / threshold, the least and the greatest
    highest_level: float | None = None


@dataclass
class Piece:
    """One batch of clips, or one piece of a continuous video, as it went through a model."""

    predictions: np.ndarray  # (batch, time, ...)
    counts: list[PlaceCounts]  # in the order of Probe.layers + Probe.deltas
    steady: np.ndarray  # (batch, frames, or 1 for a window) bool: whether it has one before it
    state: list[tf.Tensor] = field(repr=False)  # to go on with
    features: np.ndarray | None = None  # (batch, steps of time, values): some of what the last layer with MACs takes
    held: np.ndarray | None = None  # (batch, frames, or 1 for a window) bool: left out, see ``held_runs``

    def steady_at(self, counts: PlaceCounts) -> np.ndarray:
        """(batch, steps) bool: whether a step at this place has one before it; all but the first of a clip do."""
        steady = np.ones(counts.changed.shape, bool)
        steady[:, :1] = self.steady[:, :1]
        return steady

    def compared_at(self, counts: PlaceCounts) -> np.ndarray:
        """(batch, steps) bool: those of ``steady_at`` that the model ran on."""
        steady = self.steady_at(counts)
        return steady if self.held is None else steady & ~self.held


class Probe:
    """A clip model, ready to be measured.

    Args:
        clip_model: as ``deltafine.model.insert_deltas`` makes it; (batch, time, height, width, channels) in, and
            further inputs, if any.
        in_graph: count on the device that the model runs on; default: where there is a GPU.

    Attributes:
        clip_model: the model as it was given.
        layers: places with MACs, in the order in which they run.
        deltas: delta layers, in the order in which they run.
        frame_shape: (height, width, channels) of the pictures that it takes.
        window: frames that a network that takes clips sees at once, which are then counted as one; None for a
            per-frame network.

    Raises:
        DeltafineError: the model is no clip model with one output.
    """

    def __init__(self, clip_model: keras.Model, *, in_graph: bool | None = None) -> None:
        self.clip_model = clip_model
        self.window = window_of(clip_model)
        self.model = with_time(clip_model)
        self._times = None if self.window is None else times_of_calls(self.model)
        self.layers: list[Place] = []
        self.deltas: list[Place] = []
        self.delta_layers: list[DeltaActivation] = []
        self._in_graph = bool(tf.config.list_logical_devices("GPU")) if in_graph is None else in_graph
        self._taken: list[_Taken] = []
        self.frame_shape = picture_shape(clip_model)
        sample = (1, *self.frame_shape) if self.window is None else None
        self._entries = {entry.path: entry for entry in all_entries(self.model, sample)}
        frames = tf.TensorSpec((None, self.window, *packed_shape(clip_model)), tf.float32)
        self._fresh = tf.function(lambda clips: self._run(clips, None), input_signature=[frames], autograph=False)
        self._fresh.get_concrete_function()
        self._continued = tf.function(self._run, reduce_retracing=True, autograph=False)

    def run(self, frames: np.ndarray, state: list[tf.Tensor] | None = None, *, after_cut: bool = False) -> Piece:
        """Measure frames (batch, time, height, width, channels), any number type, pixels as the model takes them.

        A model with further inputs finds their values in further lines, see ``deltafine.video.further_values``.

        With ``state`` of the previous piece, goes on where that ended; else every clip starts fresh. With
        ``after_cut``, that piece was of another video: the first frame counts as one that has none before it.

        Raises:
            DeltafineError: the model puts frames into the batch in a way that is not understood.
        """
        clips = tf.cast(tf.convert_to_tensor(frames), tf.float32)
        run = self._fresh(clips) if state is None else self._continued(clips, state)
        predictions, counted, state_after, features = run
        steady = np.ones((len(frames), frames.shape[1] if self.window is None else 1), bool)
        if state is None or after_cut:
            steady[:, 0] = False
        arrays = [[rows.numpy() for rows in of_tensor] for of_tensor in counted]
        counts = [_counts(arrays, taken) for taken in self._taken]
        for place, of_place in zip(self.layers + self.deltas, counts, strict=True):
            if len(of_place.changed) != len(frames):
                raise DeltafineError(
                    f"Layer '{place.name}' runs over frames that plain operations put into the batch, so they cannot "
                    "be told from clips; models exported as quantized with send-on-delta do so: measure the refined "
                    "model itself, or its stripped form."
                )
        return Piece(predictions.numpy(), counts, steady, state_after, *(values.numpy() for values in features))

    def _run(
        self, clips: tf.Tensor, state: list[tf.Tensor] | None
    ) -> tuple[tf.Tensor, list[list[tf.Tensor]], list[tf.Tensor], list[tf.Tensor]]:
        self.layers, self.deltas, self.delta_layers = [], [], []
        tensors: list[CountedTensor | Pair] = []
        at_layers: list[_Taken] = []
        at_deltas: list[_Taken] = []
        into_last: list[tf.Tensor] = []
        sent: dict[str, tf.Tensor] = {}

        def by_step(time: Steps | None, value: tf.Tensor) -> tf.Tensor:
            """(batch, steps of time, ...)"""
            if self._times is not None and time is None:
                return value[:, None]
            if time is not None and not time.folded:
                return value
            return tf.reshape(value, (tf.shape(clips)[0], -1, *value.shape[1:]))

        def tensor_of(time: Steps | None, value: tf.Tensor, *, restarts: bool = False) -> int:
            """A tensor that goes to several layers is looked at once."""
            for index, known in enumerate(tensors):
                if isinstance(known, CountedTensor) and known.value is value and known.time == time:
                    return index
            tensors.append(CountedTensor(value, by_step(time, value), time, restarts=restarts))
            return len(tensors) - 1

        def observe_product(entry: MacLayer, time: Steps | None, operands: list[tf.Tensor], outputs: tf.Tensor) -> None:
            assert entry.product is not None
            time = time if time is not None and time.folded else None  # else it goes over time
            flags = entry.product.constant
            pair = Pair(entry.product, [v if c else by_step(time, v) for v, c in zip(operands, flags, strict=True)])
            made = math.prod(by_step(time, outputs).shape[2:])
            macs, steps = entry.product.dense_macs, 1 if time is None else time.steps
            place = Place(entry.path, type(entry.layer).__name__, pair.elements, pair.positions, steps * macs, made)
            at_layers.append(_Taken((len(tensors),), 0))
            self.layers.append(place if self._times is None else replace(place, step_macs=(macs,) * steps))
            tensors.append(pair)

        def observe_whole(entry: MacLayer, time: Steps | None, operands: list[tf.Tensor], outputs: Any) -> None:
            """A layer of which it is not known which MACs are needed: all of them, where anything changes."""
            time = time if time is not None and time.folded else None  # else it may go over time
            steps = 1 if time is None else time.steps
            macs = (entry.dense_macs or 0) // steps
            indices = tuple(dict.fromkeys(tensor_of(time, value) for value in operands))
            shapes = [by_step(time, value).shape[2:] for value in operands]
            elements, positions = (sum(math.prod(shape[:end]) for shape in shapes) for end in (None, -1))
            given = [value.shape[1:] for value in keras.tree.flatten(outputs) if tf.is_tensor(value)]
            made = sum(math.prod(size or 1 for size in shape) for shape in given)
            place = Place(entry.path, type(entry.layer).__name__, elements, positions, steps * macs, made)
            at_layers.append(_Taken(indices, whole=macs))
            self.layers.append(place if self._times is None else replace(place, step_macs=(macs,) * steps))

        def observe(
            path: str, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any
        ) -> None:
            if isinstance(operation, DeltaActivation):
                time = self._time_at(path, args[0])
                index = tensor_of(time, outputs, restarts=operation.restarts)
                sent[path] = outputs
                of_layer = tensors[index]
                assert isinstance(of_layer, CountedTensor)
                of_layer.of_delta_layer(operation, by_step(time, args[0]))
                self.deltas.append(_delta_place(path, operation, of_layer.frames))
                self.delta_layers.append(operation)
                at_deltas.append(_Taken((index,)))
                return
            entry = self._entries.get(path)
            if entry is None or not entry.covered or entry.layer is not operation:
                return
            if entry.inside is not None:
                graph.run(entry.inside.function, entry.inside.inputs(args, kwargs), observe, prefix=f"{path}/")
                return
            operands = operands_of(args, kwargs)
            if entry.whole:
                flowing = [value for value in operands if tf.is_symbolic_tensor(value)]  # all but constants
                operands = [value if len(value.shape) > 1 else value[:, None] for value in flowing]
                into_last[:] = [by_step(self._time_at(path, operands[0]), operands[0])]
                observe_whole(entry, self._time_at(path, operands[0]), operands, outputs)
                return
            constant = (False,) if entry.product is None else entry.product.constant
            changing = operands[constant.index(False)]
            into_last[:] = [by_step(self._time_at(path, changing), changing)]
            if entry.product is not None:
                observe_product(entry, self._time_at(path, outputs), operands, outputs)
                return
            for factor in factors(entry, operands[0], sent):
                time = self._time_at(path, factor.value)
                restarts = factor.restarts and time is not None and not time.folded
                index = tensor_of(time, factor.value, restarts=restarts)
                tensor = tensors[index]
                assert isinstance(tensor, CountedTensor)
                made = by_step(self._time_at(path, outputs), outputs) if factor.writes == OUTPUTS else tensor.frames
                written = 0 if factor.writes == NOTHING else math.prod(made.shape[2:])
                place = _mac_place(factor.name, entry, tensor.frames, written)
                self.layers.append(self._with_macs(place, factor.fan, time, factor.value.shape[1:]))
                at_layers.append(_Taken((index,), tensor.into_layer(factor.fan)))

        with Stream(state, measuring=True) as stream:
            (predictions,) = graph.run(self.model, inputs_of(self.model, clips), observe)
        self._taken = at_layers + at_deltas
        counted = [tensor.count(in_graph=self._in_graph) for tensor in tensors]
        return predictions, counted, stream.state, [_some(features) for features in into_last]

    def _time_at(self, path: str, value: tf.Tensor) -> Steps | None:
        """Where a value has its time; inside a layer that was opened as the layer has it, if the value still may."""
        if self._times is None:
            return None
        outer = path
        while outer not in self._times:
            outer = outer.rpartition("/")[0]
        time = self._times[outer]
        if time is None or time.folded or outer == path:
            return time
        return time if len(value.shape) >= 3 and value.shape[1] == time.steps else None

    def _with_macs(self, place: Place, fan: np.ndarray, time: Steps | None, shape: Sequence[int]) -> Place:
        """The place with its MACs per frame; or per window, and at each of its steps."""
        macs = np.broadcast_to(fan, shape)
        if self._times is None:
            return replace(place, dense_macs=int(macs.sum(dtype=np.int64)))
        if time is not None and not time.folded:
            steps = macs.reshape(len(macs), -1).sum(axis=1, dtype=np.int64).tolist()
        else:
            steps = [int(macs.sum(dtype=np.int64))] * (1 if time is None else time.steps)
        return replace(place, dense_macs=sum(steps), step_macs=tuple(steps))


def probe_of(model: keras.Model | Probe) -> Probe:
    """A probe of a clip model; one that is there already is taken, since to make one traces the whole model."""
    return model if isinstance(model, Probe) else Probe(model)


@dataclass(frozen=True)
class _Taken:
    """Of which tensors a place has its counts.

    Attributes:
        tensors: one, or of a layer that is counted as a whole all that it takes.
        fan: which of its fan-outs; None of a delta layer.
        whole: MACs per step of a layer that is counted as a whole.
    """

    tensors: tuple[int, ...]
    fan: int | None = None
    whole: int | None = None


def _some(frames: tf.Tensor) -> tf.Tensor:
    """At most ``MOST_FEATURES`` values of each frame (batch, steps, ...), spread evenly over it, float32."""
    size = math.prod(frames.shape[2:])
    flat = tf.reshape(tf.cast(frames, tf.float32), (tf.shape(frames)[0], -1, size))
    if size <= MOST_FEATURES:
        return flat
    return tf.gather(flat, np.linspace(0, size - 1, MOST_FEATURES).round().astype(np.int64), axis=-1)


def _counts(arrays_of: list[list[np.ndarray]], taken: _Taken) -> PlaceCounts:
    """What ``counting.count`` found, for one layer that takes the tensor; or for the delta layer that gives it."""
    arrays, fan = arrays_of[taken.tensors[0]], taken.fan
    rows = arrays[0]
    if taken.whole is not None:
        of_all = [arrays_of[tensor][0][: counting.FIRST_FAN] for tensor in taken.tensors]
        nonzero, changed, changed_positions, *_ = np.sum(of_all, axis=0)
        all_macs, never = np.full_like(nonzero, taken.whole), np.zeros(nonzero.shape, bool)
        return PlaceCounts(
            nonzero, changed, changed_positions, all_macs, all_macs * (changed > 0), never, np.zeros_like(never)
        )
    nonzero, changed, changed_positions, ternary, ternary_twice = rows[: counting.FIRST_FAN]
    if fan is not None:
        spatial, delta = rows[counting.FIRST_FAN + 2 * fan :][:2]
        return PlaceCounts(nonzero, changed, changed_positions, spatial, delta, ternary != 0, ternary_twice != 0)
    none, never = np.zeros_like(nonzero), np.zeros(nonzero.shape, bool)
    levels = arrays[3].tolist() if len(arrays) > 3 else (None, None)
    return PlaceCounts(nonzero, changed, changed_positions, none, none, never, never, arrays[1], arrays[2], *levels)


def _mac_place(name: str, entry: MacLayer, sequence: tf.Tensor, written: int) -> Place:
    elements = math.prod(sequence.shape[2:])
    positions = math.prod(sequence.shape[2:-1])
    return Place(name, type(entry.layer).__name__, elements, positions, dense_macs=0, output_elements=written)


def _delta_place(path: str, layer: DeltaActivation, sent: tf.Tensor) -> Place:
    elements = int(np.prod(sent.shape[2:]))
    return Place(path, type(layer).__name__, elements, elements // sent.shape[-1], 0, elements)
