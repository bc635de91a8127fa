"""A refined model with plain Keras layers only, for use without deltafine.

Forms:

- ``stripped``: the per-frame network with its refined weights, no thresholds; for runtimes that decide for
  themselves what to skip, or for use as an ordinary network.
- ``quantized``: the per-frame network that sends what its rule sends, for rules without memory (``quantize``).
- ``quantized`` for rules with memory (``send-on-delta``), which hold values from frame to frame: a clip network of
  fixed length that holds them with plain operations, one frame after the other.
- ``streaming``: one frame and the state in, one prediction and the new state out (``streaming.py``).

A network that takes clips takes clips in the first two forms, and has no streaming one.

The quantized forms predict what the refined model predicts, to the last bit on the same machine; in mixed precision
only as far as TensorFlow fuses both graphs alike, and with recurrent layers, which are unrolled, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from deltafine.errors import DeltafineError
from deltafine.exporting.export_format import FORMS
from deltafine.layers import DeltaActivation
from deltafine.layers.rules import EventRule
from deltafine.layers.rules.identity import Identity
from deltafine.layers.state_deltas import DeltaStates, without_state_deltas
from deltafine.layers.time import FoldTime, TimeLast, TimeMean, UnfoldTime
from deltafine.model import graph
from deltafine.model.clip_model import frame_layers
from deltafine.model.cloning import clone
from deltafine.model.insert import delta_layers
from deltafine.model.layer_names import Names
from deltafine.model.recurrent_steps import RecurrentStep
from deltafine.model.rewrite import weights_of_layer


def export_plain(refined: keras.Model, form: str = "stripped", *, frames: int | None = None) -> keras.Model:
    """A copy of a refined clip model that loads without deltafine.

    Args:
        refined: a clip model with delta layers.
        form: ``"stripped"``, ``"quantized"`` or ``"streaming"``.
        frames: clip length of the quantized form of a rule with memory; that of the model if it has one.

    Returns:
        A Keras model of one frame, ``(batch, ...)`` in, one prediction per frame out; for a rule with memory,
        quantized, and for a network that takes clips, of one clip, with the refined model's own input and output.
        Streaming, what ``deltafine.exporting.streaming.export_streaming`` gives.

    Raises:
        DeltafineError: unknown form, no delta layers, the clip length is needed and missing, or the network takes
            clips and is to be streaming.
    """
    if form not in FORMS:
        raise DeltafineError(f"The form must be one of {', '.join(FORMS)}, not '{form}'.")
    deltas = delta_layers(refined)
    if not deltas:
        raise DeltafineError(f"Model '{refined.name}' has no delta layers: give the refined model of a run.")
    if form == "streaming":
        from deltafine.exporting.streaming import export_streaming

        return export_streaming(refined)
    whole = not frame_layers(refined)
    length = None
    holding = [layer.rule.name for layer in deltas.values() if form == "quantized" and layer.rule.has_memory]
    if whole or holding:
        length = graph.frames_input(refined).shape[1] or frames
        if length is None:
            raise DeltafineError(
                f"Model '{refined.name}' takes clips of any length, and needs one to be exported: give --frames."
                if whole
                else f"The rule {holding[0]} holds values from frame to frame, so its quantized form needs a clip "
                "length: give --frames, or use --form streaming or stripped."
            )
    return PlainCopy(form, length).export(refined)


class PlainCopy:
    """Walks the clip model and calls clones of everything but deltafine's own layers."""

    def __init__(self, form: str, length: int | None) -> None:
        self._form = form
        self._length = length
        self._clones: dict[int, tuple[keras.layers.Layer, keras.layers.Layer]] = {}
        self._nested: dict[int, keras.Model] = {}

    def export(self, refined: keras.Model) -> keras.Model:
        names = Names()
        inputs = [self._input(tensor, names) for tensor in graph.input_tensors(refined)]
        model = names.model(
            keras.tree.pack_sequence_as(graph.input_structure(refined), inputs),
            keras.tree.pack_sequence_as(graph.output_structure(refined), self._outputs(refined, inputs, names)),
            refined.name,
        )
        self._give_weights()
        return model

    def _give_weights(self) -> None:
        for old, new in self._clones.values():
            for source, target in zip(weights_of_layer(old), new.weights, strict=True):
                target.assign(source)

    def _input(self, tensor: keras.KerasTensor, names: Names) -> keras.KerasTensor:
        shape = (self._length, *tensor.shape[2:]) if self._length else tensor.shape[2:]
        return names.input(tensor.name, (None, *shape), tensor.dtype)

    def _outputs(self, model: keras.Model, inputs: list[keras.KerasTensor], names: Names) -> list[keras.KerasTensor]:
        """What the operations of a graph give, called on other inputs; those that are the user's keep their names."""

        def call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._call(name, node, args, kwargs, names)

        return graph.walk(model, inputs, call)

    def _call(self, name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], names: Names) -> Any:
        operation = node.operation
        # In place of the clock goes the number of frames, None where all there is are frames.
        if isinstance(operation, FoldTime):
            clips = args[0]
            return (ops.reshape(clips, (-1, *clips.shape[2:])), clips.shape[1]) if self._length else (clips, None)
        if isinstance(operation, UnfoldTime):
            return _unfolded(*args)
        if isinstance(operation, TimeMean | TimeLast):
            return self._end(operation, args[0])
        if isinstance(operation, DeltaActivation):
            return self._delta(name, operation, *args)
        if graph.is_graph(operation):
            return self._call_nested(name, operation, graph.nested_inputs(operation, args, kwargs), kwargs, names)
        if isinstance(operation, DeltaStates) and self._form != "stripped":
            return self._unrolled(operation, args[0], names)
        return self._copy(operation, names)(*args, **kwargs)

    def _unrolled(self, layer: DeltaStates, clips: keras.KerasTensor, names: Names) -> Any:
        """A recurrent layer step by step, as its states are held from one to the next."""
        by_step = ops.unstack(clips, axis=1)
        if layer.go_backwards:
            by_step.reverse()
        one = RecurrentStep(layer, clips.shape[2:], names, f"{layer.name}_")
        states, outputs = one.start(by_step[0]), []
        held: dict[str, keras.KerasTensor] = {}

        def send(product: str, value: keras.KerasTensor) -> keras.KerasTensor:
            delta = layer.state_deltas.get(product)
            if delta is None or isinstance(delta.rule, Identity):
                return value
            how = (constant(delta.threshold), delta.granularity, ops)
            x = value if value.dtype == "float32" else ops.cast(value, "float32")
            if product in held:
                held[product] = delta.rule.advance(held[product], x, *how)
            else:
                held[product] = delta.rule.first(x, *how)
            return held[product] if value.dtype == "float32" else ops.cast(held[product], value.dtype)

        for inputs in by_step:
            output, states = one(inputs, states, send)
            outputs.append(output)
        result = ops.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]
        return [result, *states] if layer.return_state else result

    def _copy(self, operation: Any, names: Names) -> Any:
        """The operation that is called in place of one: a clone of a layer; what has no weights, itself."""
        if not isinstance(operation, keras.layers.Layer) or isinstance(operation, keras.layers.Lambda):
            return names.keep(operation)
        if id(operation) not in self._clones:
            plain = without_state_deltas(operation) if isinstance(operation, DeltaStates) else clone(operation)
            self._clones[id(operation)] = (operation, plain)
        return names.keep(self._clones[id(operation)][1])

    def _end(self, layer: TimeMean | TimeLast, value: keras.KerasTensor) -> keras.KerasTensor:
        if not self._length:
            return value
        value = ops.cast(value, layer.compute_dtype)
        return ops.mean(value, axis=1) if isinstance(layer, TimeMean) else value[:, -1]

    def _call_nested(
        self, name: str, model: keras.Model, values: list[Any], kwargs: dict[str, Any], names: Names
    ) -> Any:
        """A nested model without its clock."""
        tensors = graph.input_tensors(model)
        kept = [index for index, value in enumerate(values) if isinstance(value, keras.KerasTensor)]
        if id(model) not in self._nested:
            inside = Names()
            inputs = [inside.input(tensors[i].name, tensors[i].shape, tensors[i].dtype) for i in kept]
            filled = dict(zip(kept, inputs, strict=True))
            given = [filled.get(index, value) for index, value in enumerate(values)]
            self._nested[id(model)] = inside.model(inputs, self._outputs(model, given, inside), model.name)
        called = {"training": kwargs["training"]} if kwargs.get("training") is not None else {}
        outputs = keras.tree.flatten(names.keep(self._nested[id(model)])([values[index] for index in kept], **called))
        return keras.tree.pack_sequence_as(graph.output_structure(model), outputs)

    def _delta(
        self, name: str, layer: DeltaActivation, value: keras.KerasTensor, frames: int | None = None
    ) -> keras.KerasTensor:
        if self._form == "stripped" or isinstance(layer.rule, Identity):
            return value
        rule, threshold = layer.rule, constant(layer.threshold)
        x = value if value.dtype == "float32" else ops.cast(value, "float32")
        if self._length:
            held = _held(rule, layer.granularity, _unfolded(x, frames), threshold)
            sent = ops.reshape(held, (-1, *x.shape[1:])) if frames else held
        else:
            sent = rule.first(x, threshold, layer.granularity, ops)
        return sent if value.dtype == "float32" else ops.cast(sent, value.dtype)


def _held(
    rule: EventRule, granularity: str, clips: keras.KerasTensor, threshold: float | np.ndarray
) -> keras.KerasTensor:
    """(batch, time, ...), each frame held until it changes."""
    held = [rule.first(clips[:, 0], threshold, granularity, ops)]
    for frame in range(1, clips.shape[1]):
        held.append(rule.advance(held[-1], clips[:, frame], threshold, granularity, ops))
    return ops.stack(held, axis=1)


def _unfolded(frames: keras.KerasTensor, length: int | None) -> keras.KerasTensor:
    return ops.reshape(frames, (-1, length, *frames.shape[1:])) if length else frames


def constant(threshold: keras.Variable) -> float | np.ndarray:
    """The thresholds as a constant that a saved graph can hold: a number, or an array."""
    values = np.asarray(threshold, "float32")
    return float(values) if values.ndim == 0 else values


def frames_of(clips: np.ndarray, model: keras.Model) -> Sequence[np.ndarray]:
    """Clips as the exported model takes them: one by one, or frame by frame."""
    per_frame = len(graph.frames_input(model).shape) == clips.ndim - 1
    rows = clips.reshape(-1, *clips.shape[2:]) if per_frame else clips
    return [rows[index : index + 1] for index in range(len(rows))]
