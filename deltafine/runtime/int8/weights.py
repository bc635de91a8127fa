"""Weights in 8-bit integers, with a scale for each output channel."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.plan import Operation

LARGEST = 127
MOST_OF_A_PAIR = 128
"""Of two weights that stand side by side in a sum, so much of each sign: 255 times it fits into 16 bits, which is what
processors without dot products of four bytes add two products up in."""


def runs_of(operation: Operation, channels: int) -> tuple[int, int]:
    """Of a convolution, how many runs of inputs that lie side by side make a row, and their length.

    ``channels``: of a group.
    """
    height, width = operation.kernel
    together = operation.groups == 1 and operation.dilation[1] == 1
    return (height, width * channels) if together else (height * width, channels)


def by_outputs(values: np.ndarray, groups: int, outputs: int) -> np.ndarray:
    """What belongs to channels (inputs,) as weights meet it: (inputs / groups, outputs)."""
    return values.reshape(groups, -1).repeat(outputs // groups, axis=0).T


def whole_weights(weights: np.ndarray, runs: int, least_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights as int8, and the scale of each output.

    Args:
        weights: (inputs, outputs), inputs in the order in which they are added up.
        runs: of equal length, in which inputs stand side by side; pairs are counted from the beginning of each.
        least_scale: (outputs,), below which no scale may be.

    Returns:
        int8 (inputs, outputs) and float64 (outputs,). No two of a pair have more than ``MOST_OF_A_PAIR`` of a sign.
    """
    exact = weights.astype(np.float64)
    inputs, outputs = exact.shape
    lines = exact.reshape(runs, inputs // runs, outputs)
    if lines.shape[1] % 2:
        lines = np.concatenate([lines, np.zeros((runs, 1, outputs))], axis=1)
    pairs = lines.reshape(-1, 2, outputs)
    above, below = np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1)
    largest = np.maximum(above, below).max(axis=0, initial=0)  # rounding adds 1 at most
    scale = np.maximum(np.maximum(largest / LARGEST, least_scale), np.finfo(np.float32).tiny)
    return np.rint(exact / scale).astype(np.int8), scale
