"""The answers of a model with several outputs, side by side in one vector per frame.

What a model answers is moved about, held, cut into pieces and put together again in many places, which need not know
of what it consists. So the outputs are laid out one after the other, flat, as one vector of values; whoever looks into
it takes them apart again by their parts. An output that is large, or whose numbers are, counts no more than another:
each is looked at on the scale of its own spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deltafine.errors import DeltafineError

SMALLEST_SPREAD = 1e-3
"""The least spread that a number counts with, as a share of the largest of its output: one that never varies must
count too."""
SMALLEST_OF_SIZE = 1e-2
"""The same for a whole output among several, as a share of its root mean square: one that hardly varies is not a
scale."""


@dataclass(frozen=True)
class PartLabels:
    """What the labels of one of several outputs are.

    Attributes:
        classes: how many, where they are classes and the output gives scores of these; 0 where they are numbers.
        certain: whether they cannot be numbers: of one score for 0 and 1, only the model's answers tell.
        probabilities: of classes: whether the scores are probabilities, not logits.
    """

    classes: int = 0
    certain: bool = True
    probabilities: bool = True


@dataclass(frozen=True)
class OutputPart:
    """One of several outputs.

    Attributes:
        name: of a dict of outputs its key, and otherwise the layer that makes it.
        shape: of its answer to one frame, or window; the last axis are its numbers, those before it positions.
        weight: how much it counts, beside the others.
        labels: those that the videos have for it; None where they have none.
    """

    name: str
    shape: tuple[int, ...]
    weight: float = 1.0
    labels: PartLabels | None = None

    @property
    def size(self) -> int:
        """Values of one answer."""
        return math.prod(self.shape)


def split(values: np.ndarray, parts: Sequence[OutputPart]) -> list[np.ndarray]:
    """Answers (..., values), laid out, as one array (..., *shape) for each part."""
    ends = np.cumsum([part.size for part in parts])[:-1]
    pieces = np.split(values, ends, axis=-1)
    return [piece.reshape(*values.shape[:-1], *part.shape) for piece, part in zip(pieces, parts, strict=True)]


def by_name(values: np.ndarray, parts: Sequence[OutputPart]) -> dict[str, np.ndarray]:
    """The same by the names of the parts."""
    return {part.name: piece for part, piece in zip(parts, split(values, parts), strict=True)}


def shares(parts: Sequence[OutputPart]) -> np.ndarray:
    """(values,): how much each value counts, so that the weights of a part add up to its share; 1 in all."""
    whole = sum(part.weight for part in parts)
    return np.concatenate([np.full(part.size, part.weight / whole / part.size) for part in parts])


def spreads(predictions: np.ndarray, parts: Sequence[OutputPart]) -> np.ndarray:
    """(values,): how much each number of each output varies over frames and positions.

    Args:
        predictions: (frames, values), laid out.
        parts: of which they consist.
    """
    found = []
    for part, piece in zip(parts, split(np.asarray(predictions, np.float64), parts), strict=True):
        numbers = piece.reshape(-1, part.shape[-1])
        variance = floored(numbers.var(0), np.square(numbers).mean(0))
        found.append(np.tile(np.sqrt(variance), part.size // part.shape[-1]))
    return np.concatenate(found)


def floored(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Variances of the numbers of one output among several, none so small that it is no scale.

    Args:
        variance: of each of its numbers.
        squares: the mean square of each.
    """
    least = max(SMALLEST_SPREAD**2 * variance.max(), SMALLEST_OF_SIZE**2 * float(squares.mean()))
    return np.maximum(variance, least or 1.0)


def weighted(parts: Sequence[OutputPart], given: Sequence[str]) -> tuple[OutputPart, ...]:
    """The parts with weights that the user gives, as ``name=weight``.

    Raises:
        DeltafineError: one cannot be read, or names no output; or all of them are 0.
    """
    weights: dict[str, float] = {}
    for text in given:
        name, sign, number = text.rpartition("=")
        try:
            weight = float(number) if sign else math.nan
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise DeltafineError(f"The output weight '{text}' cannot be read: give NAME=WEIGHT, such as size=0.5.")
        if name not in {part.name for part in parts}:
            known = f"its outputs are {listed(parts)}" if parts else "it has a single output, which needs none"
            raise DeltafineError(f"The model has no output '{name}' to give a weight: {known}.")
        weights[name] = weight
    found = tuple(replace(part, weight=weights.get(part.name, part.weight)) for part in parts)
    if found and not any(part.weight for part in found):
        raise DeltafineError("All output weights are 0, so nothing would be followed: give one of them more.")
    return found


def listed(parts: Sequence[OutputPart]) -> str:
    """The names of the outputs, for messages."""
    return ", ".join(f"'{part.name}'" for part in parts)
