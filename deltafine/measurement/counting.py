"""Counting what is there and what has changed in the tensors of a model: integers per frame.

Measuring should cost little beside predicting, and a pass over the values costs as much as a cheap layer. So on a CPU
NumPy counts, in blocks that stay in the processor's cache: masks have a byte per value, and up to eight bytes are added
up as one number; where numba works, masks of all but delta layers have a bit per value (``bit_counting``). From
a GPU it would take longer to fetch the values, so there the graph counts (``graph_counting``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from deltafine.layers import DeltaActivation
from deltafine.runtime.numba_there import why_no_numba

if TYPE_CHECKING:
    import tensorflow as tf

    from deltafine.measurement.bit_counting import Planes

FIRST_FAN = 5
"""Rows of counts that each layer has; after these, two for each fan-out."""
BLOCK = 1 << 18
"""Values that are looked at together."""
SAMPLES = 64
"""A look at so many values of a frame mostly shows already that they need multiplications."""
_WORDS = {8: np.uint64, 4: np.uint32, 2: np.uint16, 1: np.uint8}


@dataclass(frozen=True)
class IntoDelta:
    """What a delta layer made a tensor of, as arrays or tensors.

    Attributes:
        true: what went into it, shaped as what it sent.
        threshold: broadcasts to one frame.
    """

    true: np.ndarray | tf.Tensor
    threshold: np.ndarray | tf.Tensor


@dataclass
class Questions:
    """What is asked about one tensor (batch, time, ..., channels) of a model.

    Attributes:
        fans: fan-outs of the layers with MACs that take it; each broadcasts to one frame or, where it differs from
            step to step, with time first to (time, frame).
        layer: the delta layer that it is the output of.
    """

    fans: list[np.ndarray]
    layer: DeltaActivation | None = None
    _weights: list[_Weights] | None = field(default=None, repr=False)
    _planes: Planes | None = field(default=None, repr=False)

    @property
    def quantised(self) -> bool:
        """Whether it is made of whole numbers of thresholds."""
        return self.layer is not None and self.layer.rule.quantises

    @property
    def by_channel(self) -> bool:
        """Whether a fan-out differs between channels."""
        return any(fan.shape[-1] != 1 for fan in self.fans)

    def weights(self, space: Sequence[int], groups: int) -> list[_Weights]:
        """The fan-outs as weights of so many groups of channels a position."""
        if self._weights is None:
            self._weights = [_Weights.of(fan, space, groups) for fan in self.fans]
        return self._weights

    def planes(self, space: Sequence[int], channels: int) -> Planes:
        """The fan-outs as planes of bits."""
        if self._planes is None:
            from deltafine.measurement.bit_counting import Planes

            self._planes = Planes.of(self.fans, space, channels)
        return self._planes


@dataclass(frozen=True)
class _Weights:
    """A fan-out: ``divisor`` times ``values`` (steps of time or 1, positions * groups), or times 1 for all if None."""

    divisor: int
    values: np.ndarray | None = None
    most: int = 0  # the sum of the values of a step, at most

    @classmethod
    def of(cls, fan: np.ndarray, space: Sequence[int], groups: int) -> _Weights:
        if fan.size == 1:
            return cls(int(fan.reshape(())))
        steps = fan if fan.ndim > len(space) + 1 else fan[None]
        values = np.broadcast_to(steps, (len(steps), *space, groups)).reshape(len(steps), -1)
        divisor = max(1, int(np.gcd.reduce(fan, axis=None)))
        return cls(divisor, values // divisor, int(values.sum(axis=1).max()) // divisor)


def count(
    questions: Questions, value: np.ndarray, *, into_delta: IntoDelta | None = None, before: np.ndarray | None = None
) -> list[np.ndarray]:
    """Count in one tensor.

    Args:
        questions: what is asked.
        value: (batch, time, ..., channels).
        into_delta: of the output of a delta layer, what it was made of.
        before: where a video goes on, the frame before the first one, (batch, ..., channels).

    Returns:
        Integers (rows, batch, time): elements that are not 0, elements that differ from the frame before, positions
        where any does, whether all values are -1, 0 or 1 (so that layers behind only add), whether those of the frame
        before are too, and for each fan-out the MACs that meet elements that are not 0, and that have changed. A first
        frame has changed nowhere. NaN differs from everything.

        Of a delta layer then integers (batch, time, channels), positions that have changed; floats (batch, time),
        the sum of |sent - true| / threshold; and if it is quantised, (2,), the lowest and the highest level.
    """
    batch, time, *space, channels = value.shape
    row = value.reshape(batch * time, -1, channels)
    is_delta = into_delta is not None
    before = None if before is None else before.reshape(batch, -1, channels)
    ternary = _are_ternary(row).reshape(batch, time)
    ternary_before = np.zeros((batch, 1), bool) if before is None else _are_ternary(before)[:, None]
    twice = ternary & np.concatenate([ternary_before, ternary[:, :-1]], axis=1)
    if not why_no_numba() and not is_delta and row.dtype == np.float32 and row.flags.c_contiguous:
        from deltafine.measurement import bit_counting

        nonzero, changed, positions = bit_counting.count(row, before, time, questions.planes(space, channels))
        sums = [nonzero[:, 0], changed[:, 0]]
        weighted = [column for pair in zip(nonzero.T[1:], changed.T[1:], strict=True) for column in pair]
    else:
        masks = _Masks(row.shape, by_channel=questions.by_channel)
        changes = _Masks(row.shape, by_channel=questions.by_channel, over_positions=is_delta)
        _compare(row, before, time, masks, changes)
        sums, positions = [masks.sums, changes.sums], changes.positions()
        weights = questions.weights(space, masks.sizes.shape[-1])
        weighted = [of.weighted(weight) for weight in weights for of in (masks, changes)]
    rows = [*sums, positions, ternary, twice, *weighted]
    found = [np.stack([of_frames.reshape(batch, time).astype(np.int64) for of_frames in rows])]
    if into_delta is not None:
        true, threshold = into_delta.true.reshape(row.shape), into_delta.threshold
        thresholds = (
            np.broadcast_to(threshold, (*space, channels)).reshape(row.shape[1:]) if threshold.ndim else threshold
        )
        found += [
            changes.channels.reshape(batch, time, channels),
            _distances(row, true, thresholds).reshape(batch, time),
        ]
        found += [_levels(row, thresholds)] if questions.quantised else []
    return found


class _Masks:
    """Counts of a mask (frames, positions, channels) that is never there as a whole.

    Args:
        shape: of the mask.
        by_channel: channels are to stay apart in ``sizes``.
        over_positions: fill ``channels``.

    Attributes:
        sizes: (frames, positions, groups) bytes, how many channels of each group are true; as few groups as bytes
            can count.
        channels: (frames, channels), at how many positions a channel is true.
    """

    def __init__(self, shape: Sequence[int], *, by_channel: bool, over_positions: bool = False) -> None:
        frames, positions, channels = shape
        self._over_positions = over_positions
        self._first, *self._others = [1] if by_channel else _folds(channels)
        self._largest = math.prod([self._first, *self._others])
        self.sizes = np.zeros((frames, positions, channels // self._first), np.uint8)
        self.channels = np.zeros((frames, channels), np.int64)

    def add(self, frames: slice, positions: slice, mask: np.ndarray) -> None:
        """Count a block of the mask."""
        self.sizes[frames, positions] = _sums_of(self._first, mask.view(np.uint8))
        if self._over_positions:
            self.channels[frames] += _sums_over_positions(mask)

    def finish(self) -> None:
        """All of the mask was seen."""
        for fold in self._others:
            self.sizes = _sums_of(fold, self.sizes)

    @cached_property
    def sums(self) -> np.ndarray:
        """(frames,), once all of the mask was seen."""
        return self.sizes.reshape(len(self.sizes), -1).sum(axis=1, dtype=np.uint32)

    def weighted(self, weights: _Weights) -> np.ndarray:
        """(frames,) sums, each group of channels times its weight."""
        if weights.values is None:
            return self.sums.astype(np.int64) * weights.divisor
        sizes = self.sizes.reshape(-1, *weights.values.shape)
        # 32-bit floats are faster, and exact where all sums are whole numbers below 2**24.
        kind = np.float32 if self._largest * weights.most < 2**24 else np.int64
        sums = np.einsum("btg,tg->bt", sizes, weights.values, dtype=kind, casting="unsafe")
        return sums.reshape(-1).astype(np.int64) * weights.divisor

    def positions(self) -> np.ndarray:
        """(frames,) positions where any channel is true."""
        return np.count_nonzero(self.sizes.any(axis=-1) if self.sizes.shape[-1] > 1 else self.sizes[..., 0], axis=1)


def _compare(row: np.ndarray, before: np.ndarray | None, time: int, nonzero: _Masks, changed: _Masks) -> None:
    """See which values are not 0, and which differ from the frame before; block by block, while they are in cache."""
    for frames, positions in _blocks(row.shape):
        values = row[frames, positions]
        nonzero.add(frames, positions, np.not_equal(values, 0))
        start = max(frames.start, 1)
        if start < frames.stop:
            pairs = row[start : frames.stop, positions], row[start - 1 : frames.stop - 1, positions]
            changed.add(slice(start, frames.stop), positions, np.not_equal(*pairs))
    starts = slice(None, None, time)
    changed.sizes[starts] = changed.channels[starts] = 0  # pairs that span two clips
    if before is not None:
        for clips, positions in _blocks(before.shape):
            mask = np.not_equal(row[starts][clips, positions], before[clips, positions])
            changed.add(slice(clips.start * time, clips.stop * time, time), positions, mask)
    nonzero.finish()
    changed.finish()


def _blocks(shape: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Frames and positions of blocks; the same for every frame, wherever it stands."""
    frames, positions, channels = shape
    size = positions * channels
    some_frames, some_positions = max(1, BLOCK // size), max(1, BLOCK // channels)
    for frame in range(0, frames, some_frames):
        for start in range(0, positions, some_positions):
            yield slice(frame, min(frame + some_frames, frames)), slice(start, min(start + some_positions, positions))


def _folds(channels: int) -> list[int]:
    """How many bytes are added up at a time, one time after the other, to sum over channels with no sum above 255."""
    folds: list[int] = []
    while True:
        left, largest = channels // math.prod(folds), math.prod(folds)
        fold = next((fold for fold in (8, 4, 2, left) if left % fold == 0 and largest * fold < 256), 1)
        if fold == 1:
            return folds or [1]
        folds.append(fold)


def _sums_of(fold: int, sizes: np.ndarray) -> np.ndarray:
    """Sums, below 256, of as many neighbours on the last axis of an array of bytes."""
    if fold not in _WORDS:  # sums of all neighbours, then those wanted: faster than reducing so short an axis
        flat = sizes.reshape(-1)
        total = flat[: flat.size - fold + 1].copy()
        for index in range(1, fold):
            total += flat[index : index + total.size]
        return total[::fold].reshape(*sizes.shape[:-1], -1)
    words = sizes.view(_WORDS[fold])
    kind = words.dtype.type
    # Multiplied by 1 + 256 + 256**2 ..., all bytes of a word meet in its last one.
    return np.asarray((words * kind(int.from_bytes(b"\1" * fold))) >> kind(8 * (fold - 1))).astype(np.uint8)


def _sums_over_positions(mask: np.ndarray) -> np.ndarray:
    """(frames, positions, channels) bool to (frames, channels), several channels being added up as one number."""
    fold = next(fold for fold in _WORDS if mask.shape[-1] % fold == 0)
    words = mask.view(_WORDS[fold])
    starts = np.arange(0, words.shape[1], 255)  # so many fit into a byte
    sums = np.add.reduceat(words, starts, axis=1, dtype=words.dtype)
    return sums.view(np.uint8).sum(axis=1, dtype=np.int64)


def _are_ternary(row: np.ndarray) -> np.ndarray:
    """(frames,) bool: whether all values of a frame are -1, 0 or 1."""
    flat = row.reshape(len(row), -1)

    def all_ternary(values: np.ndarray) -> np.ndarray:
        return ((values == 0) | (np.abs(values) == 1)).all(axis=-1)

    only = all_ternary(flat[:, :: max(1, flat.shape[1] // SAMPLES)])
    for frame in np.flatnonzero(only):
        only[frame] = all_ternary(flat[frame])
    return np.asarray(only)


def _distances(sent: np.ndarray, true: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(frames,) sums of |sent - true| / threshold over rows (frames, positions, channels)."""
    sums = np.zeros(len(sent))
    with np.errstate(all="ignore"):  # broken values show in the sum
        for block in _blocks(sent.shape):
            distance = sent[block].astype(np.float32, copy=False) - true[block].astype(np.float32, copy=False)
            np.abs(distance, out=distance)
            distance /= thresholds[block[1]] if thresholds.ndim else thresholds
            sums[block[0]] += distance.reshape(len(distance), -1).sum(axis=1)
    return sums


def _levels(sent: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The lowest and the highest of sent / threshold, as the whole numbers that they are but for rounding."""
    extremes = np.stack([sent.min(axis=0), sent.max(axis=0)]).astype(np.float32, copy=False)
    lowest, highest = np.round(extremes / thresholds)
    return np.array([lowest.min(), highest.max()], np.float64)
