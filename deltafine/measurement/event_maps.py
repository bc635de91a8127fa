"""Where in the picture events happen: at the inputs of the layers with MACs, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.layers import Stream
from deltafine.model import graph
from deltafine.model.clip_model import frame_layers
from deltafine.model.fan_out_counts import is_covered
from deltafine.model.further_inputs import inputs_of


@dataclass(frozen=True)
class EventMap:
    """Changes at the input of one layer.

    Attributes:
        layer: its path.
        share: (frames, height, width), channels that differ from the frame before / channels; 0 in the first frame.
    """

    layer: str
    share: np.ndarray


def event_maps(clip_model: keras.Model, frames: np.ndarray) -> list[EventMap]:
    """Run a clip model on one clip and see where the inputs of its layers change.

    Args:
        clip_model: as ``insert_deltas`` makes it.
        frames: (time, height, width, channels), pixels as the model takes them.

    Returns:
        A map for every call of a covered layer whose input has height and width, in the order in which they run.
    """
    per_frame = keras.Model(clip_model.inputs, [layer.output for layer in frame_layers(clip_model)])
    found: list[EventMap] = []

    def observe(
        path: str, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: tf.Tensor
    ) -> None:
        if is_covered(operation) and len(args[0].shape) == 4:
            values = args[0].numpy()
            share = np.zeros(values.shape[:3], np.float32)
            share[1:] = np.count_nonzero(values[1:] != values[:-1], axis=-1) / values.shape[-1]
            found.append(EventMap(path, share))

    with Stream():
        graph.run(per_frame, inputs_of(per_frame, tf.cast(frames[None], tf.float32)), observe)
    return found
