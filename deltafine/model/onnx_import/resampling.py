"""Pictures of another size that no layer of Keras makes: each row, and each column, a weighted sum of a few others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np

from deltafine.model.onnx_import.onnx_step import Step
from deltafine.model.onnx_import.placed import Placed

MODES = ("nearest", "linear", "cubic")
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")

_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
}


def resampled(step: Step, x: Placed, target: list[int], scales: list[float], mode: str, coordinates: str) -> Placed:
    """The picture in another size.

    Args:
        step: the operator.
        x: with its channels last.
        target: the new size of each axis of the picture.
        scales: of each axis.
        mode: one of ``MODES``.
        coordinates: one of ``COORDINATES``.
    """
    value = x.value
    for axis, (size, scale) in enumerate(zip(target, scales, strict=True), 1):
        if size == value.shape[axis] and scale == 1:
            continue
        at = _positions(value.shape[axis], size, scale, coordinates)
        places, factors = _terms(step, at, mode)
        places = np.clip(places, 0, value.shape[axis] - 1)
        spread = [1] * len(value.shape)
        spread[axis] = size
        terms = []
        for place, factor in zip(places, factors, strict=True):
            if np.any(factor):
                term = step.operation(keras.ops.take, value, place.tolist(), axis=axis)
                if not np.all(factor == 1):
                    term = step.operation(keras.ops.multiply, term, factor.reshape(spread).astype("float32"))
                terms.append(term)
        value = terms[0] if len(terms) == 1 else keras.layers.Add(name=step.name())(terms)
    return replace(x, value=value, positive=x.positive and mode != "cubic")


def _positions(old: int, new: int, scale: float, coordinates: str) -> np.ndarray:
    """Where each new row lies between the old ones, in float32 as ONNX Runtime computes it."""
    rows, by = np.arange(new, dtype="float32"), np.float32(scale)
    if coordinates == "align_corners":
        return rows * np.float32(old - 1) / np.float32(max(new - 1, 1))
    if coordinates == "asymmetric":
        return rows / by
    if coordinates == "pytorch_half_pixel" and new == 1:
        return rows * 0
    return (rows + np.float32(0.5)) / by - np.float32(0.5)


def _terms(step: Step, at: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Places and factors, (terms, rows) each."""
    if mode == "nearest":
        kind = step.attribute("nearest_mode", "round_prefer_floor")
        return _ROUNDINGS[kind](at).astype(int)[None], np.ones((1, len(at)))
    first = np.floor(at)
    beyond = (at - first).astype("float64")
    if mode == "linear":
        return np.stack([first, first + 1]).astype(int), np.stack([1 - beyond, beyond])
    a = step.attribute("cubic_coeff_a", -0.75)

    def near(d: np.ndarray) -> np.ndarray:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: np.ndarray) -> np.ndarray:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    factors = np.stack([far(1 + beyond), near(beyond), near(1 - beyond), far(2 - beyond)])
    return np.stack([first - 1, first, first + 1, first + 2]).astype(int), factors
