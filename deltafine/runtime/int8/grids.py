"""How bytes stand for numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MOST = 255


@dataclass(frozen=True, eq=False)
class Grid:
    """How a tensor of bytes stands for numbers.

    Attributes:
        scale: the distance of two neighbouring levels, float32; or that of each channel, float32 (channels,).
        zero: the level of 0; or that of each channel, int64 (channels,).
    """

    scale: float | np.ndarray
    zero: int | np.ndarray

    @property
    def by_channel(self) -> bool:
        """Whether channels differ."""
        return np.ndim(self.zero) > 0

    def scales(self, channels: int) -> np.ndarray:
        """float64 (channels,)."""
        return np.broadcast_to(np.asarray(self.scale, np.float64), (channels,))

    def zeros(self, channels: int) -> np.ndarray:
        """int64 (channels,)."""
        return np.broadcast_to(np.asarray(self.zero, np.int64), (channels,))

    def numbers(self, levels: np.ndarray) -> np.ndarray:
        """float32 of levels (..., channels)."""
        return (levels.astype(np.int32) - self.zero).astype(np.float32) * np.asarray(self.scale, np.float32)

    def levels(self, numbers: np.ndarray) -> np.ndarray:
        """uint8 of float32 numbers (..., channels)."""
        per_unit, zero = np.asarray(1 / np.asarray(self.scale), np.float32), np.asarray(self.zero, np.float32)
        near = np.rint(numbers * per_unit) + zero
        return np.where(near > 0, np.minimum(near, np.float32(MOST)), np.float32(0)).astype(np.uint8)  # of NaN, 0


def grid_of(low: float, high: float, least: float = 0.0, most: int = MOST) -> Grid:
    """Levels 0 to ``most`` from ``low`` to ``high``, of which one is 0, and which are at least ``least`` apart."""
    low, high = min(low, 0.0), max(high, 0.0)
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return Grid(float(np.float32(max(least, 1.0))), 0)
    zero = round(-low / span * most)
    needed = max(high / (most - zero) if zero < most else 0.0, -low / zero if zero else 0.0)
    return Grid(float(np.float32(max(needed, least, 1e-30))), zero)


def side_by_side(grids: list[Grid], channels: list[int]) -> Grid:
    """Of tensors that are concatenated along their channels."""
    scale = np.concatenate([grid.scales(count) for grid, count in zip(grids, channels, strict=True)])
    zero = np.concatenate([grid.zeros(count) for grid, count in zip(grids, channels, strict=True)])
    if (scale == scale[0]).all() and (zero == zero[0]).all():
        return Grid(float(scale[0]), int(zero[0]))
    return Grid(scale.astype(np.float32), zero)
