"""Networks that carry their own states: as further inputs and outputs, or inside recurrent layers."""

from __future__ import annotations

from typing import Any

import keras

from deltafine.model import graph
from deltafine.model.frame_steps import FrameSteps


def carried_steps(model: keras.Model) -> FrameSteps | None:
    """The steps of a network with states among its inputs: each is also an output, under the name of the input.

    Returns:
        The steps, of which the outputs stand in the order of the model's own; None if not all inputs but one are
        such states.
    """
    tensors = {tensor.name: tensor for tensor in graph.input_tensors(model)}
    outputs = keras.tree.flatten_with_path(graph.output_structure(model))
    after = {path[-1]: output for path, output in outputs if path and path[-1] in tensors}
    frames = [tensor for name, tensor in tensors.items() if name not in after]
    answers = [output for path, output in outputs if not path or path[-1] not in tensors]
    if len(frames) != 1 or not answers or not after:
        return None
    same = all(
        tuple(output.shape[1:]) == tuple(tensors[name].shape[1:]) and output.dtype == tensors[name].dtype
        for name, output in after.items()
    )
    if not same:
        return None
    # A tensor that is given twice, or handed through, is one of its own each time.
    ends = [keras.ops.copy(output) for output in (*answers, *after.values())]
    steps = graph.new_model([*frames, *(tensors[name] for name in after)], ends, model.name)
    return FrameSteps(steps, len(after))


def answers_of(model: keras.Model) -> Any:
    """The structure of the outputs of such a network that are no states: one of them alone, a list, or a dict."""
    tensors = {tensor.name for tensor in graph.input_tensors(model)}
    paths = [path for path, _ in keras.tree.flatten_with_path(graph.output_structure(model))]
    kept = [path for path in paths if not path or path[-1] not in tensors]
    if len(kept) == 1:
        return 0
    named = all(isinstance(path[-1], str) for path in kept)
    return {path[-1]: place for place, path in enumerate(kept)} if named else list(range(len(kept)))


def clip_of(model: keras.Model) -> int:
    """After how many frames recurrent layers begin anew: those of a clip; 0 for never.

    That is so where layers keep their states from call to call, where clips have any length, and where no layer is
    recurrent: causal convolutions read so many frames before each one, in streams as in long clips.
    """
    recurrent = [layer for layer in graph.layers_inside(model) if isinstance(layer, keras.layers.RNN)]
    if not recurrent or any(layer.stateful for layer in recurrent):
        return 0
    return int(graph.input_tensors(model)[0].shape[1] or 0)


def without_kept_states(model: keras.Model) -> keras.Model:
    """The network with layers that begin anew in every clip in place of those with ``stateful=True``."""
    if not any(getattr(layer, "stateful", False) for layer in graph.layers_inside(model)):
        return model

    def anew(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        stateful = isinstance(layer, keras.layers.RNN) and layer.stateful
        return type(layer).from_config({**config, "stateful": False} if stateful else config)

    copy = keras.models.clone_model(model, clone_function=anew)
    copy.set_weights(model.get_weights())
    return copy
