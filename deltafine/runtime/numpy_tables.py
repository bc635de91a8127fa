"""Operations by tables in NumPy: values in another order, weighted sums of positions, attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def reached_by_table(
    kind: str, table: np.ndarray, masks: Sequence[np.ndarray], channels: Sequence[int]
) -> np.ndarray:  # fmt: skip
    """(height, width) bool: the output positions of a gather or a blend that a change of the inputs reaches.

    Args:
        kind: ``gather`` or ``blend``.
        table: as ``Operation.table`` names it.
        masks: of each input (height, width) bool.
        channels: of each input.
    """
    if kind == "blend":
        return np.asarray(masks[0].ravel()[table].any(axis=-1))
    if table.ndim == 3:  # value by value: everything is copied
        return np.ones(table.shape[:2], bool)
    by_value = [mask.ravel().repeat(count) for mask, count in zip(masks, channels, strict=True)]
    return np.concatenate([*by_value, np.zeros(1, bool)])[table]


def gathered(table: np.ndarray, inputs: Sequence[np.ndarray], active: np.ndarray, channels: int) -> np.ndarray:
    """(rows, channels) of a gather at the active positions."""
    values = np.concatenate([*(value.ravel() for value in inputs), np.zeros(1, np.float32)])
    places = table[active]
    if table.ndim == 2:
        places = np.where(places[:, None] < 0, -1, places[:, None] + np.arange(channels))
    return values[places]


def blended(table: np.ndarray, factors: np.ndarray, x: np.ndarray, active: np.ndarray) -> np.ndarray:
    """(rows, channels) of a blend at the active positions, added up term by term."""
    flat, places, factors = x.reshape(-1, x.shape[2]), table[active], factors[active]
    rows = np.zeros((len(places), x.shape[2]), np.float32)
    for term in range(table.shape[2]):
        rows += factors[:, term, None] * flat[places[:, term]]
    return rows


def attended(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, heads: int, scale: np.ndarray
) -> np.ndarray:  # fmt: skip
    """(queries, heads * size of values): for each query and head the values, weighted by how well their keys match.

    Args:
        queries: (queries, heads * size); keys and values may have fewer heads, each for several of the queries'.
        keys: (positions, heads * size).
        values: (positions, heads * size).
        heads: of the queries.
        scale: () that multiplies the queries.
    """
    size = queries.shape[1] // heads
    shared = heads // (keys.shape[1] // size)
    by_head = [
        matrix.reshape(len(matrix), count, -1).transpose(1, 0, 2)
        for matrix, count in ((queries * scale, heads), (keys, heads // shared), (values, heads // shared))
    ]
    query, key, value = by_head[0], by_head[1].repeat(shared, axis=0), by_head[2].repeat(shared, axis=0)
    scores = query @ key.transpose(0, 2, 1)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return (scores @ value).transpose(1, 0, 2).reshape(len(queries), -1)
