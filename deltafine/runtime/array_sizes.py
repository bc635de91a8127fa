"""How much memory arrays hold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def owned_bytes(arrays: Iterable[np.ndarray]) -> int:
    """Bytes of the arrays that own the memory of those given, each counted once."""
    owners = {}
    for array in arrays:
        while isinstance(array.base, np.ndarray):
            array = array.base
        owners[id(array)] = array
    return sum(array.nbytes for array in owners.values())
