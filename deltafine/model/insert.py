"""Insertion: from a per-frame model to a clip model with delta layers.

The graph is walked again, call by call, with clones of the layers, and a delta layer after each selected site.
Nested models stay nested; they take the clock (see ``deltafine.layers.time``) as one more input. Weights
are then copied from old to new layers, by order and shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from deltafine.errors import DeltafineError
from deltafine.layers import DeltaActivation
from deltafine.layers.time import FoldTime, TimeLast, TimeMean, UnfoldTime
from deltafine.model import graph
from deltafine.model.clip_model import CLIP_PREDICTION, FRAME_PREDICTIONS
from deltafine.model.delta_settings import DeltaSettings
from deltafine.model.insertable import require_insertable
from deltafine.model.layer_names import Names
from deltafine.model.rewrite import Rewriter
from deltafine.model.sites import Site
from deltafine.model.time_axis import takes_clips

CLIP_OUTPUTS = ("mean", "last", "per-frame")
_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESCALES: dict[str, tuple[float | list[float], float | list[float]]] = {
    "0..1": (1 / 255, 0.0),
    "-1..1": (1 / 127.5, -1.0),
    "caffe": (1.0, [-123.68, -116.779, -103.939]),
    "torch": (
        [1 / (255 * deviation) for deviation in _DEVIATIONS],
        [-mean / deviation for mean, deviation in zip(_MEANS, _DEVIATIONS, strict=True)],
    ),
}
"""Scale and offset, of all channels or of each of RGB. ``caffe`` and ``torch`` are modes of Keras' preprocessing."""
_BGR = "caffe"
"""The one that gives the channels the other way round as well."""


def insert_deltas(
    model: keras.Model,
    sites: Sequence[Site],
    settings: DeltaSettings | None = None,
    *,
    frames: int | None = None,
    frame_shape: Sequence[int] | None = None,
    clip_output: str = "mean",
    rescale: str | None = None,
) -> keras.Model:
    """Make a clip model of a per-frame model, with a delta layer at every selected site.

    The clip model takes ``(batch, time, ...)``, runs the per-frame network on all frames at once (layer names
    kept), gives ``(batch, time, ...)`` in its layer ``frame_predictions`` and one prediction per clip in
    ``clip_prediction``. For a model with several outputs these names are followed by ``_<output name>``. Further
    inputs of the network, such as a speed, get time as well: ``(batch, time, ...)``.

    A model that takes clips already (an input of rank 5) is rewritten as it stands; ``clip_output`` has no say, and its
    output is ``clip_prediction``.

    Args:
        model: the built per-frame model; not changed.
        sites: from ``find_activations`` or ``select_sites`` on the same model; empty for a clip model without
            delta layers, to compare with.
        settings: settings of the delta layers; the defaults of ``DeltaSettings`` if left out.
        frames: clip length; None for any length, or that of a model that takes clips.
        frame_shape: height, width and channels of the frames, for a model that takes frames of any size.
        clip_output: what one clip's prediction is: the ``"mean"`` over its frames, the ``"last"`` frame's, or
            ``"per-frame"`` for no layer after ``frame_predictions``.
        rescale: ``"0..1"``, ``"-1..1"``, ``"caffe"`` or ``"torch"`` if the model wants its pixels so; the clip model
            then takes 0-255. None if the model takes 0-255 itself.

    Returns:
        A Functional Keras model with the weights and ``trainable`` flags of the original.

    Raises:
        DeltafineError: none of the sites is selected, the model cannot be rewritten (see ``require_insertable``), a
            layer cannot be copied, or an argument is unknown.

    Examples:
        >>> model = keras.models.load_model("model.keras")
        >>> refined = deltafine.insert_deltas(model, deltafine.find_activations(model))
        >>> refined.output_shape
        (None, 2)
    """
    _check(model, sites, frames, clip_output, rescale)
    rewriter = Rewriter([site for site in sites if site.selected], settings or DeltaSettings())
    names = rewriter.names(model, "")
    tensors = graph.input_tensors(model)
    whole = takes_clips(model)
    input_sites = sites[0].plan.input_sites if sites else {}
    pictures = graph.frames_input(model)
    clips = [
        _clip_input(tensor, frames, frame_shape, rescale, whole, names)
        if tensor is pictures or whole
        else names.input(tensor.name, (None, frames, *tensor.shape[1:]), tensor.dtype)
        for tensor in tensors
    ]
    values, clock = [], None
    for tensor, clip in zip(tensors, clips, strict=True):
        label = f"_{tensor.name}" if len(tensors) > 1 else ""
        value = clip
        if not whole:
            value, own_clock = names.make(FoldTime, f"fold_time{label}", dtype=clip.dtype)(clip)
            clock = own_clock if clock is None else clock
        if rescale is not None and tensor is pictures:
            value = _rescaled(value, rescale, names, f"frame_rescaling{label}", tensor.dtype)
        site = input_sites.get(tensor.name, "")
        values.append(rewriter.after(site, value, clock, policy=tensor.dtype, names=names))
    outputs = rewriter.rewrite(model, values, clock, prefix="", names=names)
    labels = [""] if len(outputs) == 1 else [f"_{label}" for label in _output_labels(model)]
    ends = [_end_of(value, clock, clip_output, names, label) for value, label in zip(outputs, labels, strict=True)]
    result = names.model(
        keras.tree.pack_sequence_as(graph.input_structure(model), clips),
        keras.tree.pack_sequence_as(graph.output_structure(model), ends),
        model.name,
    )
    rewriter.finish(model, result)
    return result


def delta_layers(model: keras.Model) -> dict[str, DeltaActivation]:
    """The delta layers of a clip model by path (``Site.delta_name``), nested ones included, in order."""
    return {path: layer for path, layer in graph.all_layers_by_path(model) if isinstance(layer, DeltaActivation)}


def _check(
    model: keras.Model, sites: Sequence[Site], frames: int | None, clip_output: str, rescale: str | None
) -> None:
    if clip_output not in CLIP_OUTPUTS:
        raise DeltafineError(f"clip_output must be one of {', '.join(CLIP_OUTPUTS)}, not '{clip_output}'.")
    if rescale is not None and rescale not in RESCALES:
        raise DeltafineError(f"rescale must be one of {', '.join(RESCALES)} or left out, not '{rescale}'.")
    if frames is not None and frames < 1:
        raise DeltafineError(f"A clip needs at least one frame, not {frames}.")
    if sites and not any(site.selected for site in sites):
        raise DeltafineError("No place for a delta layer is selected.")
    require_insertable(model)


def _clip_input(
    tensor: keras.KerasTensor,
    frames: int | None,
    frame_shape: Sequence[int] | None,
    rescale: str | None,
    whole: bool,
    names: Names,
) -> keras.KerasTensor:
    dtype = tensor.dtype if rescale is None or "float" in tensor.dtype else "float32"
    length, *own = tensor.shape[1:] if whole else (None, *tensor.shape[1:])
    if whole and frames is not None and length not in (None, frames):
        raise DeltafineError(f"The model takes clips of {length} frames, not {frames}: leave the clip length out.")
    if frame_shape is not None:
        if len(own) != len(frame_shape) or any(a not in (None, b) for a, b in zip(own, frame_shape, strict=True)):
            raise DeltafineError(f"Frames of shape {tuple(frame_shape)} do not fit the model's {tuple(own)}.")
        own = list(frame_shape)
    return names.input(tensor.name, (None, frames or length, *own), dtype)


def _rescaled(frames: keras.KerasTensor, rescale: str, names: Names, name: str, dtype: str) -> keras.KerasTensor:
    """Pixels from 0-255, channels last, as the model wants them.

    Raises:
        DeltafineError: the model takes no RGB, and this is a scaling of RGB.
    """
    scale, offset = RESCALES[rescale]
    if isinstance(offset, list) and frames.shape[-1] != len(offset):
        raise DeltafineError(f"The scaling '{rescale}' is for RGB, and the model takes {frames.shape[-1]} channel(s).")
    value = names.make(keras.layers.Rescaling, name, scale=scale, offset=offset, dtype=dtype)(frames)
    return keras.ops.flip(value, axis=-1) if rescale == _BGR else value


def _output_labels(model: keras.Model) -> list[str]:
    """One label per output: its key in a dict of outputs, else its number."""
    paths = keras.tree.flatten_with_path(graph.output_structure(model))
    return ["_".join(str(key) for key in path) for path, _ in paths]


def _end_of(
    value: keras.KerasTensor, clock: keras.KerasTensor | None, clip_output: str, names: Names, label: str
) -> keras.KerasTensor:
    if clock is None:
        # The model has seen the whole clip; only the name is missing.
        return names.make(keras.layers.Identity, f"{CLIP_PREDICTION}{label}", dtype=value.dtype)(value)
    clips = names.make(UnfoldTime, f"{FRAME_PREDICTIONS}{label}", dtype=value.dtype)(value, clock)
    if clip_output == "per-frame":
        return clips
    reduce = TimeMean if clip_output == "mean" else TimeLast
    return names.make(reduce, f"{CLIP_PREDICTION}{label}", dtype="float32")(clips)
