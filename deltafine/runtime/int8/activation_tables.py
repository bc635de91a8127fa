"""Activations of bytes: a table of what comes out, for sums in fine levels."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.activation_functions import ACTIVATIONS, BY_POSITION
from deltafine.runtime.int8.grids import MOST, Grid, grid_of
from deltafine.runtime.plan import Finish

_LARGEST = (4095, 16383, 65535)
"""Of places in a table: the smallest table that is fine enough is taken. 4 KiB are finer than most activations need."""
_COARSEST = 2
"""Levels between neighbouring entries: what comes out is off by at most half of it, beside its own rounding."""
_NEAREST, _LOOKS = 1e-6, 4096


def table_of(finish: Finish, grid: Grid, multiple: int, farthest: float) -> tuple[Grid, np.ndarray] | None:
    """What an activation makes of numbers, in bytes.

    Args:
        finish: with the activation.
        grid: of what comes out.
        multiple: of which its levels are multiples, from that of 0 on.
        farthest: the largest magnitude that numbers can have.

    Returns:
        How numbers are places in the table, and the table, uint8. Numbers beyond its ends give what these give. None
        where no table is fine enough: the activation looks at other channels as well, or has steps.
    """
    if finish.activation in BY_POSITION:
        return None

    def levels(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            y = np.asarray(ACTIVATIONS[finish.activation](x, *finish.parameters), np.float64)
            near = np.rint(y / (float(grid.scale) * multiple)) * multiple + grid.zero
        return np.clip(near, 0, MOST)  # of NaN, NaN

    far = np.geomspace(_NEAREST, 1, _LOOKS) * farthest
    looks = np.concatenate([-far[::-1], [0.0], far])
    found = levels(looks)
    if np.isnan(found).any():
        return None
    changes = np.flatnonzero(np.diff(found))
    low, high = (looks[changes[0]], looks[changes[-1] + 1]) if len(changes) else (0.0, 1.0)
    for largest in _LARGEST:
        given = grid_of(float(low), float(high), most=largest)
        table = levels((np.arange(largest + 1) - given.zero) * float(given.scale))
        if np.abs(np.diff(table)).max() <= _COARSEST * multiple:
            return given, table.astype(np.uint8)
    return None
