"""Pictures in another size: weighted sums of positions, whose weights Keras itself shows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from deltafine.model.trace import Call, Value
from deltafine.runtime.lowering.draft import Lowering

MOST_TERMS, MOST_NUMBERS = 64, 1 << 23
"""Of a sum, and of all sums together; beyond them it is left to Keras."""
CLOSE = 1e-4


def resized(lowering: Lowering, call: Call) -> int | None:
    """The rule of what blends positions, the same in all channels, and down and across one after the other.

    Each line, and each column, of a picture of one channel is seen alone; a picture of noise tells if that was all.
    """
    if len(call.inputs) != 1 or len(call.inputs[0].shape) != 4 or len(call.outputs[0].shape) != 4:
        return None
    (height, width, channels), (rows, columns, made) = (
        value.sample_shape for value in (call.inputs[0], call.outputs[0])
    )
    if channels != made or height * width * max(height, width) > MOST_NUMBERS * 2:
        return None
    try:
        lines = np.broadcast_to(np.eye(height)[:, :, None], (height, height, width))
        down = _seen(call, lines)[:, :, 0].T
        across = _seen(call, np.broadcast_to(np.eye(width)[:, None, :], (width, height, width)))[:, 0].T
        noise = np.random.default_rng(0).random((1, height, width))
        whole = _seen(call, noise)[0]
    except Exception:  # whatever Keras may say of other numbers of channels: it gets the values
        return None
    if whole.shape != (rows, columns) or np.abs(down @ noise[0] @ across.T - whole).max() > CLOSE:
        return None
    (from_y, by_y), (from_x, by_x) = _terms(down), _terms(across)
    terms = from_y.shape[1] * from_x.shape[1]
    if terms > MOST_TERMS or terms * rows * columns > MOST_NUMBERS:
        return None
    places = from_y[:, None, :, None] * width + from_x[None, :, None, :]
    factors = by_y[:, None, :, None] * by_x[None, :, None, :]
    return lowering.add(
        "blend", call.path, (lowering.known[call.inputs[0]],), call.outputs[0].sample_shape,
        table=lowering.array(f"{call.path}:positions", places.reshape(rows, columns, terms).astype(np.int32)),
        weights=lowering.array(f"{call.path}:factors", factors.reshape(rows, columns, terms)),
        layer=type(call.operation).__name__,
    )  # fmt: skip


def _seen(call: Call, pictures: np.ndarray) -> np.ndarray:
    """(pictures, height, width) of what the call makes of pictures of one channel."""

    def given(leaf: Any) -> Any:
        return keras.ops.convert_to_tensor(pictures[..., None], "float32") if isinstance(leaf, Value) else leaf

    args, kwargs = keras.tree.map_structure(given, (call.args, call.kwargs))
    return np.asarray(call.operation(*args, **kwargs))[..., 0].astype(np.float64)


def _terms(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, terms) places and factors of the sums that a matrix (outputs, inputs) stands for; spare ones are 0."""
    count = max(int((matrix != 0).sum(axis=1).max()), 1)
    places = np.zeros((len(matrix), count), np.int64)
    factors = np.zeros((len(matrix), count))
    for row, line in enumerate(matrix):
        (found,) = np.nonzero(line)
        places[row] = np.append(found, np.full(count - len(found), found[0] if len(found) else 0))
        factors[row, : len(found)] = line[found]
    return places, factors
