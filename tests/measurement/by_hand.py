"""Effective MACs by brute force: masks go through a copy of the layer whose weights are all one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from deltafine.measurement import Probe
from deltafine.measurement.collector import Collector


def macs_that_meet(layer: Any, mask: np.ndarray) -> np.ndarray:
    """MACs of a plain (not separable) layer that meet the elements of mask (frames, ...): (frames,) integers."""
    config = {**layer.get_config(), "dtype": "float64", "activation": "linear"}
    copy = type(layer).from_config(config)
    copy.build((None, *mask.shape[1:]))
    for weight in copy.weights:
        weight.assign(np.full(weight.shape, 0.0 if weight.name == "bias" else 1.0))
    outputs = np.asarray(copy(mask.astype("float64")))
    return np.rint(outputs.sum(axis=tuple(range(1, outputs.ndim)))).astype(np.int64)


def stages(layer: Any, x: np.ndarray) -> list[tuple[Any, np.ndarray]]:
    """The plain layers that a layer is made of, each with its own input."""
    ranks = {keras.layers.SeparableConv1D: 1, keras.layers.SeparableConv2D: 2}
    rank = ranks.get(type(layer))
    if rank is None:
        return [(layer, x)]
    depthwise = getattr(keras.layers, f"DepthwiseConv{rank}D")(
        layer.kernel_size, layer.strides, layer.padding, layer.depth_multiplier, use_bias=False
    )
    depthwise.build((None, *x.shape[1:]))
    depthwise.set_weights([np.asarray(layer.depthwise_kernel)])
    pointwise = getattr(keras.layers, f"Conv{rank}D")(layer.filters, 1)
    return [(depthwise, x), (pointwise, np.asarray(depthwise(x)))]


def changes(clips: np.ndarray) -> np.ndarray:
    """Where (batch, time, ...) differs from the frame before; nowhere in first frames."""
    changed = np.zeros(clips.shape, bool)
    for frame in range(1, clips.shape[1]):
        changed[:, frame] = clips[:, frame] != clips[:, frame - 1]
    return changed


def collect(model: Any, *pieces_of_streams: list[np.ndarray]) -> Collector:
    """Measure streams, each a list of pieces (batch, time, height, width, channels) that follow each other.

    ``model`` is a clip model, or a probe of one.
    """
    collector = Collector(model if isinstance(model, Probe) else Probe(model))
    for pieces in pieces_of_streams:
        state = None
        for frames in pieces:
            piece = collector.probe.run(frames, state)
            state = piece.state
            collector.update(piece)
    return collector


def whole_numbers(model: Any, seed: int = 0) -> Any:
    """Give a model weights from -2 to 2, so that float arithmetic on small whole numbers is exact."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(generator.integers(-2, 3, weight.shape))
    return model


def sparse_video(shape: tuple[int, ...], seed: int = 0, change: float = 0.1) -> np.ndarray:
    """Whole numbers 0 to 3 (batch, time, ...), many of them 0, of which a few change from frame to frame."""
    generator = np.random.default_rng(seed)
    frames = [generator.integers(0, 4, (shape[0], *shape[2:])) * (generator.random((shape[0], *shape[2:])) < 0.5)]
    for _ in range(shape[1] - 1):
        redrawn = generator.random(frames[-1].shape) < change
        frames.append(np.where(redrawn, generator.integers(0, 4, frames[-1].shape), frames[-1]))
    return np.stack(frames, axis=1).astype("float32")
