"""Rows by a panel of weights: as many output channels as a tile computes at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.tiles import ROWS, VECTORS, row_tile


def _of_vectors(vectors: int) -> Any:
    """``rows`` rows by one panel of so many vectors, in tiles as large as they can be; see ``row_tile``."""
    most = ROWS[vectors]
    whole = row_tile(most, vectors)
    half, quarter, single = row_tile(max(most // 2, 1), vectors), row_tile(2, vectors), row_tile(1, vectors)
    middle = most // 2

    @kernel
    def compute(
        arena: np.ndarray, base: int, offsets: np.ndarray, first: int, rows: int, links: np.ndarray, runs: int,
        run_count: int, run_length: int, weights: np.ndarray, weight: int, out: np.ndarray, place: int, pitch: int,
    ) -> None:  # fmt: skip
        i = 0
        while rows - i >= most:
            whole(
                arena, base, offsets, first + i, links, runs, run_count, run_length, weights, weight, out,
                place + i * pitch, pitch,
            )  # fmt: skip
            i += most
        while rows - i >= middle:
            half(
                arena, base, offsets, first + i, links, runs, run_count, run_length, weights, weight, out,
                place + i * pitch, pitch,
            )  # fmt: skip
            i += middle
        while rows - i >= 2:
            quarter(
                arena, base, offsets, first + i, links, runs, run_count, run_length, weights, weight, out,
                place + i * pitch, pitch,
            )  # fmt: skip
            i += 2
        if rows > i:
            single(
                arena, base, offsets, first + i, links, runs, run_count, run_length, weights, weight, out,
                place + i * pitch, pitch,
            )  # fmt: skip

    return compute


FOUR, TWO = VECTORS[0], VECTORS[-2]
four_vectors, two_vectors, one_vector = _of_vectors(FOUR), _of_vectors(TWO), _of_vectors(VECTORS[-1])
