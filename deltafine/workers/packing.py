"""Arrays as bytes, which workers can give each other."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as bytes."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The arrays again."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
