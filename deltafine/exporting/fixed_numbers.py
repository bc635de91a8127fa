"""Whole numbers in place of fractions: how a plan in floating point becomes one in integers of stated widths.

A value v of a tensor with ``fraction`` f is held as the whole number nearest v * 2 ** f, in 16 bits. Weights have 8
bits and a fraction for each output channel. What a convolution adds up has 32 bits, and cannot overflow: weights get
fewer digits where it could.
"""

from __future__ import annotations

import math

import numpy as np

STATE_BITS, WEIGHT_BITS, SUM_BITS = 16, 8, 32
LARGEST_STATE, LARGEST_WEIGHT = 2 ** (STATE_BITS - 1) - 1, 2 ** (WEIGHT_BITS - 1) - 1
_LARGEST_SUM = 2 ** (SUM_BITS - 1) - 1
MOST_FRACTION = 30
HEADROOM = 1.25
"""Values that calibration has not seen may be so many times as large as the largest that it has."""


def fraction_of(largest: float) -> int:
    """The most digits behind the point with which a value of this size, and a little more, fits into 16 bits."""
    if largest <= 0:
        return STATE_BITS - 1
    return min(math.floor(math.log2(LARGEST_STATE / (largest * HEADROOM))), MOST_FRACTION)


def whole_weights(weights: np.ndarray, shift: np.ndarray, fraction: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, and what is added to their sums, in whole numbers.

    Args:
        weights: (..., outputs), by output channel.
        shift: (outputs,), in units of the output.
        fraction: of the input.

    Returns:
        Weights int8, what is added int32, and the fraction of each output's weights (outputs,), int32.
    """
    flat = weights.reshape(-1, weights.shape[-1]).astype(np.float64)
    digits = np.zeros(flat.shape[1], np.int32)
    whole = np.zeros(flat.shape, np.int64)
    added = np.zeros(flat.shape[1], np.int64)
    for channel in range(flat.shape[1]):
        column, most = flat[:, channel], float(np.abs(flat[:, channel]).max(initial=0))
        places = MOST_FRACTION - fraction if most == 0 else math.floor(math.log2(LARGEST_WEIGHT / most))
        places = min(places, MOST_FRACTION - fraction)
        while True:
            rounded = np.clip(np.round(column * 2.0**places), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int64)
            constant = round(float(shift[channel]) * 2.0 ** (places + fraction))
            if np.abs(rounded).sum() * (LARGEST_STATE + 1) + abs(constant) <= _LARGEST_SUM:
                break
            places -= 1
        whole[:, channel], added[channel], digits[channel] = rounded, constant, places
    return whole.astype(np.int8).reshape(weights.shape), added.astype(np.int32), digits


def shifted(values: np.ndarray, right: np.ndarray | int) -> np.ndarray:
    """int64 values / 2 ** right, to the nearest whole number, halves upwards; a negative ``right`` shifts left."""
    right = np.asarray(right, np.int64)
    down = np.maximum(right, 0)
    half = np.where(down > 0, np.left_shift(np.int64(1), np.maximum(down - 1, 0)), 0)
    return np.left_shift(np.right_shift(values + half, down), np.maximum(-right, 0))


def divided(values: np.ndarray, by: np.ndarray | int) -> np.ndarray:
    """int64 values divided by a positive whole number, to the nearest, halves upwards."""
    return np.floor_divide(2 * values + by, 2 * np.asarray(by, np.int64))


def limited(values: np.ndarray) -> np.ndarray:
    """Values as the state holds them: those that do not fit are the largest or smallest that do."""
    return np.clip(values, -LARGEST_STATE - 1, LARGEST_STATE)
