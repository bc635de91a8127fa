"""Running a clip model and counting, frame by frame, what happens in it.

The counts are taken at the inputs of the layers that multiply and accumulate, and at the outputs of delta layers.
They are integers, counted in the graph while the model runs once; a long video is fed piece by piece, with all
state carried along, and gives the same counts as in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation, Stream
from deltafine.measurement.counting import Frames, count_events
from deltafine.model import graph
from deltafine.model.fan_out import fan_out, is_covered, stages

FRAME_PREDICTIONS = "frame_predictions"
"""Name of the layer of a clip model whose output is one prediction per frame."""


@dataclass(frozen=True)
class Place:
    """Where counts are taken: one operation of one call of a layer with MACs, or one call of a delta layer."""

    name: str
    kind: str
    elements: int  # of one frame
    positions: int  # of one frame
    dense_macs: int  # per frame; 0 for a delta layer
    output_elements: int  # of one frame


@dataclass
class Counts:
    """What was counted at one place; integer arrays of shape (batch, time) unless said otherwise.

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
    staleness: float | None = None  # delta layers: sum over elements of |sent - true| / step
    lowest_level: float | None = None  # delta layers with levels: sent / step, the least and the greatest
    highest_level: float | None = None


@dataclass
class Piece:
    """One batch of clips, or one piece of a continuous video, as it went through a model."""

    predictions: np.ndarray  # (batch, time, ...)
    counts: list[Counts]  # in the order of Probe.layers + Probe.deltas
    steady: np.ndarray  # (batch, time) bool: whether the frame has one before it
    state: list[Any] = field(repr=False)  # to go on with


class Probe:
    """A clip model, ready to be measured.

    Args:
        clip_model: as ``deltafine.model.insert_deltas`` makes it; (batch, time, height, width, channels) in.

    Attributes:
        layers: places with MACs, in the order in which they run.
        deltas: delta layers, in the order in which they run.

    Raises:
        DeltafineError: the model does not take clips and give one prediction per frame.
    """

    def __init__(self, clip_model: Any) -> None:
        if FRAME_PREDICTIONS not in {layer.name for layer in clip_model.layers}:
            raise DeltafineError(
                f"Model '{clip_model.name}' has no layer '{FRAME_PREDICTIONS}' to measure: make a clip model of one "
                "that takes single frames and gives one output, with insert_deltas."
            )
        self.model = keras.Model(clip_model.inputs, clip_model.get_layer(FRAME_PREDICTIONS).output)
        self.layers: list[Place] = []
        self.deltas: list[Place] = []
        self.delta_layers: list[DeltaActivation] = []
        self._fans: dict[str, Any] = {}
        self.frame_shape: tuple[int, int, int] = tuple(clip_model.inputs[0].shape[2:])
        frames = tf.TensorSpec((None, None, *self.frame_shape), tf.float32)
        self._fresh = tf.function(lambda clips: self._run(clips, None), input_signature=[frames])
        self._fresh.get_concrete_function()
        self._continued = tf.function(self._run, reduce_retracing=True)

    def run(self, frames: np.ndarray, state: list[Any] | None = None) -> Piece:
        """Measure frames (batch, time, height, width, channels), any number type, pixels as the model takes them.

        With ``state`` of the previous piece, goes on where that ended; else every clip starts fresh.
        """
        clips = tf.cast(tf.convert_to_tensor(frames), tf.float32)
        predictions, raw, state_after = self._fresh(clips) if state is None else self._continued(clips, state)
        steady = np.ones(frames.shape[:2], bool)
        if state is None:
            steady[:, 0] = False
        counts = [Counts(**{name: value.numpy() for name, value in place.items()}) for place in raw]
        return Piece(predictions.numpy(), counts, steady, state_after)

    def _run(self, clips: Any, state: list[Any] | None) -> tuple[Any, list[dict[str, Any]], list[Any]]:
        shape = tf.shape(clips)

        def by_clip(value: Any) -> Any:
            return tf.reshape(value, (shape[0], shape[1], *value.shape[1:]))

        self.layers, self.deltas, self.delta_layers = [], [], []
        layer_counts: list[dict[str, Any]] = []
        delta_counts: list[dict[str, Any]] = []
        counted: list[tuple[Any, Frames]] = []

        def frames_of(value: Any) -> Frames:
            """A tensor that goes to several layers is counted once."""
            known = next((frames for tensor, frames in counted if tensor is value), None)
            if known is None:
                known = Frames(by_clip(value))
                counted.append((value, known))
            return known

        def observe(path: str, operation: Any, args: tuple[Any, ...], outputs: Any) -> None:
            if isinstance(operation, DeltaActivation):
                self.deltas.append(_delta_place(path, operation, outputs))
                self.delta_layers.append(operation)
                frames = frames_of(outputs)
                delta_counts.append(count_events(operation, by_clip(args[0]), by_clip(outputs), frames))
            elif is_covered(operation):
                for stage, value in _stage_inputs(operation, args[0]):
                    place, fan = _mac_place(path, operation, stage, args[0], value, outputs)
                    self.layers.append(place)
                    frames = frames_of(value)
                    layer_counts.append({**frames.counts(fan), **frames.multiplier_free()})

        with Stream(state, count_events=False) as stream:
            (predictions,) = graph.run(self.model, [clips], observe)
        return predictions, layer_counts + delta_counts, stream.state


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


def _mac_place(path: str, layer: Any, stage: str | None, x: Any, value: Any, output: Any) -> tuple[Place, Any]:
    fan = fan_out(layer, x.shape[1:], stage=stage)
    elements = int(np.prod(value.shape[1:]))
    place = Place(
        name=f"{path}/{stage}" if stage else path,
        kind=type(layer).__name__,
        elements=elements,
        positions=elements // value.shape[-1],
        dense_macs=int(np.broadcast_to(fan, value.shape[1:]).sum(dtype=np.int64)),
        output_elements=0 if stage == "depthwise" else int(np.prod(output.shape[1:])),
    )
    return place, fan


def _delta_place(path: str, layer: DeltaActivation, output: Any) -> Place:
    elements = int(np.prod(output.shape[1:]))
    return Place(path, type(layer).__name__, elements, elements // output.shape[-1], 0, elements)
