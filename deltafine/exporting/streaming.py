"""The streaming form: one frame and the state in, one prediction and the new state out.

A Keras model with plain layers, from which the files of all formats are made. Inputs, by name:

- ``frame``, (1, height, width, channels), pixels as the refined model takes them;
- ``first``, (1, 1): 1 in the first frame of a stream, when the state does not matter, else 0;
- ``state_NAME`` for each delta layer that remembers: what it sent in the frame before.

Outputs: ``prediction``, or one name for each of several outputs; and ``new_state_NAME``, the next frame's
``state_NAME``. Without a delta layer that remembers there are neither states nor ``first``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from deltafine.errors import DeltafineError
from deltafine.exporting.forms import PlainCopy, constant
from deltafine.layers import DeltaActivation
from deltafine.layers.rules.identity import Identity
from deltafine.model import graph
from deltafine.model.clip_model import frame_layers
from deltafine.model.cloning import clone
from deltafine.model.further_inputs import refuse_further_inputs
from deltafine.model.insert import delta_layers
from deltafine.model.layer_names import Names

FRAME, FIRST, STATE, NEW = "frame", "first", "state_", "new_"

Call = Callable[[dict[str, np.ndarray]], Mapping[str, Any]]
"""What a receiver makes of named inputs."""


def export_streaming(refined: keras.Model) -> keras.Model:
    """A refined clip model as a network of one frame with its state as inputs and outputs.

    Raises:
        DeltafineError: there are no delta layers, or the network takes clips.
    """
    if not delta_layers(refined):
        raise DeltafineError(f"Model '{refined.name}' has no delta layers: give the refined model of a run.")
    if not frame_layers(refined):
        raise DeltafineError(
            f"Model '{refined.name}' takes clips, so it has no streaming form: export it as stripped or quantized."
        )
    refuse_further_inputs(refined, "has no streaming form: export it as stripped or quantized, or as plan")
    return _StreamingCopy().export(refined)


@dataclass(frozen=True)
class Streaming:
    """A network in streaming form, and what it was made of.

    Attributes:
        model: as ``export_streaming`` gives it.
        refined: the clip model.
    """

    model: keras.Model
    refined: keras.Model

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shape of each input, for one stream."""
        return {tensor.name: (1, *tensor.shape[1:]) for tensor in self.model.inputs}

    def player(self, call: Call) -> Callable[[np.ndarray, bool], list[np.ndarray]]:
        """Plays streams with a receiver: from a frame, and whether it is the first, to the predictions, flat."""
        states = [name for name in self.inputs if name.startswith(STATE)]
        (pixels,) = (tensor.dtype for tensor in self.model.inputs if tensor.name == FRAME)
        held: dict[str, np.ndarray] = {}

        def step(frame: np.ndarray, first: bool) -> list[np.ndarray]:
            if first:
                held.update({name: np.zeros(self.inputs[name], "float32") for name in states})
            given = {FRAME: np.asarray(frame[None], pixels), FIRST: np.full((1, 1), first, "float32"), **held}
            found = call({name: given[name] for name in self.inputs})
            held.update({name: np.asarray(found[f"{NEW}{name}"]) for name in states})
            return [np.asarray(found[name])[0] for name in prediction_names(self.refined)]

        return step


def prediction_names(model: keras.Model) -> list[str]:
    """A name for each output of a model, flat: its key in a dictionary, else ``prediction``, with its place."""
    structure = graph.output_structure(model)
    places = keras.tree.flatten(structure)
    if len(places) == 1 and not isinstance(structure, dict):
        return ["prediction"]
    if isinstance(structure, dict) and not any(keras.tree.is_nested(inner) for inner in structure.values()):
        return [_plain(str(key)) for key in keras.tree.flatten({key: key for key in structure})]
    return [f"prediction_{place}" for place in range(len(places))]


class _StreamingCopy(PlainCopy):
    """Nested models are opened, so that the states in them are inputs and outputs of the whole."""

    def __init__(self) -> None:
        super().__init__("streaming", None)
        self._states: dict[str, keras.KerasTensor] = {}
        self._new: dict[str, keras.KerasTensor] = {}
        self._first: keras.KerasTensor | None = None
        self._path = ""
        self._names = Names()

    def export(self, refined: keras.Model) -> keras.Model:
        names = self._names
        (source,) = graph.input_tensors(refined)
        frame = names.input(names.free(FRAME), (None, *source.shape[2:]), source.dtype)
        names.free(FIRST)  # taken from now on
        outputs = self._outputs(refined, [frame], names)
        inputs = {FRAME: frame, **({} if self._first is None else {FIRST: self._first}), **self._states}
        given = dict(zip(prediction_names(refined), outputs, strict=True))
        model = names.model(inputs, {**given, **self._new}, refined.name)
        self._give_weights()
        return model

    def _call_nested(
        self, name: str, model: keras.Model, values: list[Any], kwargs: dict[str, Any], names: Names
    ) -> Any:
        outside, self._path = self._path, f"{self._path}{name}_"
        outputs = self._outputs(model, values, names)
        self._path = outside
        return keras.tree.pack_sequence_as(graph.output_structure(model), outputs)

    def _copy(self, operation: Any, names: Names) -> Any:
        if id(operation) in self._clones:
            return self._clones[id(operation)][1]
        if isinstance(operation, keras.layers.Layer) and not isinstance(operation, keras.layers.Lambda):
            made = clone(operation, name=names.free(_plain(f"{self._path}{operation.name}")))
            self._clones[id(operation)] = (operation, made)
            return names.keep(made)
        name = names.free(operation.name)
        if name == operation.name:
            return names.keep(operation)
        made = type(operation).from_config(operation.get_config())  # one of another level that is called so, too
        made.name = name
        return names.keep(made)

    def _delta(
        self, name: str, layer: DeltaActivation, value: keras.KerasTensor, frames: int | None = None
    ) -> keras.KerasTensor:
        rule, threshold = layer.rule, constant(layer.threshold)
        if isinstance(rule, Identity):
            return value
        x = value if value.dtype == "float32" else ops.cast(value, "float32")
        sent = rule.first(x, threshold, layer.granularity, ops)
        if rule.has_memory:
            if any(size is None for size in x.shape[1:]):
                raise DeltafineError(
                    f"Delta layer '{self._path}{name}' sends values of shape {x.shape[1:]}, which depends on the "
                    "frame, so its state has no size: refine a model whose input has one."
                )
            state = self._state(_plain(f"{STATE}{self._path}{name}"), x.shape)
            first = ops.reshape(self._first, (-1, *[1] * (len(x.shape) - 1))) > 0.5
            sent = ops.where(first, sent, rule.advance(state, x, threshold, layer.granularity, ops))
            self._new[f"{NEW}{state.name}"] = sent
        return sent if value.dtype == "float32" else ops.cast(sent, value.dtype)

    def _state(self, wanted: str, shape: tuple[int | None, ...]) -> keras.KerasTensor:
        if self._first is None:
            self._first = self._names.input(FIRST, (None, 1), "float32")
        name = self._names.free(wanted)
        self._states[name] = self._names.input(name, (None, *shape[1:]), "float32")
        return self._states[name]


def _plain(name: str) -> str:
    """A name that every receiver takes."""
    return re.sub(r"\W", "_", name)
