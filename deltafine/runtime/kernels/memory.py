"""The arrays that kernels work on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Memory(NamedTuple):
    """What one stream computes with. The first group is the model's and shared by its streams, the second its state.

    Attributes:
        weights: float32, packed weights, scales, shifts, steps and parameters.
        fans: int32 fan-outs.
        links: int64, lists of inputs and of offsets.
        tensors: int64 (tensors, TENSOR_COLUMNS).
        arena: float32, every value with the zeros around it.
        masks: uint8, 1 for each position that changed in this frame.
        counts: int32, how many channels of it changed.
        changed: int64 per tensor, positions that changed.
        sums: float64, what convolutions by events have added up.
        before: float32, the inputs that these sums stand for.
        scratch: float32, rows being computed.
        active: int64, positions being computed.
        offsets: int64, where each of them reads.
        targets: int64, where each of them is written.
        line: int64, as bits, which positions of a line changed; 0 but while it is looked at.
        chosen: int64, channels that changed at one position.
        changes: float64, by how much they did.
        stale: int64 per tensor, quiet frames to wait for before its ``sums`` are taken anew; 0 while they hold, -1 when
            it is time.
    """

    weights: np.ndarray
    fans: np.ndarray
    links: np.ndarray
    tensors: np.ndarray
    arena: np.ndarray
    masks: np.ndarray
    counts: np.ndarray
    changed: np.ndarray
    sums: np.ndarray
    before: np.ndarray
    scratch: np.ndarray
    active: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    line: np.ndarray
    chosen: np.ndarray
    changes: np.ndarray
    stale: np.ndarray
