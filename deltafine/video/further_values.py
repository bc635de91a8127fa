"""Numbers that belong to frames beside their pixels, for models with further inputs.

They come from columns of the list of videos, or are the same in all frames. With a frame (height, width, channels) of
bytes they travel as the bytes of 32-bit floating point numbers, in further lines below its pixels, so that whatever
cuts, stacks or keeps frames does the same with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.video.layouts.common import some
from deltafine.video.layouts.tables import plain

if TYPE_CHECKING:
    from deltafine.video.catalogue import FrameColumns, Video

_BYTES = 4
LARGEST_WHOLE = 1 << 24
"""Up to which 32-bit floating point numbers hold all whole numbers."""


@dataclass(frozen=True)
class Wanted:
    """A number that a model takes with each frame.

    Attributes:
        input: of the model, that it belongs to.
        column: that it comes from.
        whole: whether it has to be a whole number.
        most: whole numbers have to be from 0 and below this; None for any.
    """

    input: str
    column: str
    whole: bool = False
    most: int | None = None

    def refusal(self, value: float) -> str:
        """Why a number cannot be given to the model, as half a sentence; empty where it can."""
        if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
            return "is no finite number"
        if self.whole and (value != round(value) or abs(value) > LARGEST_WHOLE):
            return f"is no whole number, as the input '{self.input}' takes them"
        if self.most is not None and not 0 <= value < self.most:
            return f"is not from 0 to {self.most - 1}, as the embedding of the input '{self.input}' takes them"
        return ""


def wanted_of(name: str, size: int, *, whole: bool = False, most: int | None = None) -> list[Wanted]:
    """The numbers of an input: of the column of its name, or of several, with _0, _1, ... behind it."""
    columns = [name] if size == 1 else [f"{name}_{place}" for place in range(size)]
    return [Wanted(name, column, whole, most) for column in columns]


@dataclass(frozen=True, eq=False)
class FurtherValues:
    """The numbers that frames of a data set have beside their pixels.

    Attributes:
        wanted: what they are.
        rows: (rows, values) float32, NaN where a row has none.
        listing: where they come from, for messages.
        constants: of each, what all frames have; None where it comes from a column.
    """

    wanted: tuple[Wanted, ...]
    rows: np.ndarray
    listing: str
    constants: tuple[float | None, ...]

    @property
    def constant(self) -> bool:
        """Whether all frames have the numbers of the only row."""
        return None not in self.constants

    @cached_property
    def digest(self) -> str:
        """Of names and numbers."""
        import hashlib

        digest = hashlib.blake2b(repr([(one.input, one.column) for one in self.wanted]).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.rows, "<f4").tobytes())
        return digest.hexdigest()

    def at(self, video: Video, numbers: np.ndarray) -> np.ndarray:
        """(n, values) float32 of frames of a video's file by their numbers (n,).

        Raises:
            DeltafineError: a frame has none.
        """
        numbers = np.asarray(numbers)
        rows = np.zeros(len(numbers), np.int64) if self.constant else video.rows_at(numbers)
        values = np.where(rows[:, None] < 0, np.float32(np.nan), self.rows[rows])
        missing = np.argwhere(np.isnan(values))
        if len(missing):
            place, which = (int(one) for one in missing[0])
            raise DeltafineError(
                f"{self.listing} has nothing in the column '{self.wanted[which].column}' for frame {numbers[place]} of "
                f"{video.name}, which the input '{self.wanted[which].input}' of the model needs: fill it in (a row "
                f"without a frame is for all frames of a video), or give --input {self.wanted[which].input}=VALUE."
            )
        return np.asarray(values, np.float32)


def values_for(
    wanted: Sequence[Wanted], columns: FrameColumns | None, given: Mapping[str, Sequence[float]], where: str
) -> FurtherValues | None:
    """What frames have for the inputs of a model; None where it has none.

    Args:
        wanted: what the model takes.
        columns: of the list of videos; None where there is none.
        given: by input, what all frames have; it goes before columns.
        where: the videos, for messages.

    Raises:
        DeltafineError: an input has neither a column nor a number, or what it has is not what the model takes.
    """
    if not wanted:
        return None
    table = columns
    rows = 1 if all(one.input in given for one in wanted) or table is None else len(table.rows)
    found = np.full((rows, len(wanted)), np.nan, np.float32)
    places: dict[str, int] = {}
    for which, one in enumerate(wanted):
        if one.input in given:
            place = places.get(one.input, 0)
            places[one.input] = place + 1
            found[:, which] = given[one.input][place]
            continue
        name = plain(one.column)
        if table is None or name not in table.names:
            has = "has no columns beside labels" if table is None else f"has the columns {_quoted(table.names)}"
            raise DeltafineError(
                f"The model takes '{one.input}' beside its frames, and {where} {has}: name a column of labels.csv or "
                f"manifest.csv '{one.column}', or give --input {one.input}=VALUE."
            )
        found[:, which] = _numbers(one, name, table)
    listing = "--input" if table is None else table.listing
    constants = [float(found[0, which]) if one.input in given else None for which, one in enumerate(wanted)]
    return FurtherValues(tuple(wanted), found, listing, tuple(constants))


def given_values(texts: Sequence[str], wanted: Sequence[Wanted]) -> dict[str, list[float]]:
    """The numbers that the user gives, as ``name=value``, or ``name=value,value`` for a vector, by input.

    Raises:
        DeltafineError: one cannot be read, names no input, or is not what the input takes.
    """
    found: dict[str, list[float]] = {}
    for text in texts:
        name, sign, numbers = text.rpartition("=")
        own = [one for one in wanted if one.input == name]
        try:
            values = [float(number) for number in numbers.split(",")] if sign else []
        except ValueError:
            values = []
        if not values:
            raise DeltafineError(f"The input '{text}' cannot be read: give NAME=VALUE, such as speed=3.5.")
        if not own:
            names = list(dict.fromkeys(one.input for one in wanted))
            known = f"beside its frames it takes {_quoted(names)}" if names else "it takes its frames alone"
            raise DeltafineError(f"The model has no input '{name}' to give {numbers} to: {known}.")
        if len(values) != len(own):
            raise DeltafineError(
                f"The input '{name}' takes {len(own)} {'number' if len(own) == 1 else 'numbers'} for a frame, not "
                f"{len(values)}: give --input {name}={','.join(['VALUE'] * len(own))}."
            )
        for one, value in zip(own, values, strict=True):
            if why := one.refusal(value):
                raise DeltafineError(f"The number {value:g} of --input {text} {why}.")
        found[name] = values
    return found


def by_input(wanted: Sequence[Wanted], values: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers (count,) of a frame by the names of the inputs."""
    found: dict[str, list[float]] = {}
    for one, value in zip(wanted, values.tolist(), strict=True):
        found.setdefault(one.input, []).append(value)
    return {name: np.array(numbers, np.float32) for name, numbers in found.items()}


def lines_for(count: int, line_bytes: int) -> int:
    """Lines of so many bytes that hold so many numbers."""
    return -(-_BYTES * count // line_bytes)


def packed(frames: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Frames with their numbers.

    Args:
        frames: (..., height, width, channels) uint8, or numbers of any other type.
        values: (..., count) float32.

    Returns:
        (..., height + lines, width, channels) of the frames' type.
    """
    *lead, _, width, channels = frames.shape
    count = values.shape[-1]
    lines = lines_for(count, width * channels)
    bytes_ = np.zeros((*lead, lines * width * channels), np.uint8)
    bytes_[..., : _BYTES * count] = np.ascontiguousarray(values, "<f4").view(np.uint8)
    below = bytes_.reshape(*lead, lines, width, channels).astype(frames.dtype, copy=False)
    return np.concatenate([frames, below], axis=-3)


def unpacked(frames: np.ndarray, height: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (..., height, width, channels), a view, and numbers (..., count) float32 of what ``packed`` gave."""
    lead = frames.shape[:-3]
    below = np.asarray(frames[..., height:, :, :], np.uint8).reshape(*lead, -1)[..., : _BYTES * count]
    return frames[..., :height, :, :], np.ascontiguousarray(below).view("<f4").astype(np.float32, copy=False)


def _numbers(wanted: Wanted, name: str, table: FrameColumns) -> np.ndarray:
    """(rows,) of a column, NaN where a cell is empty."""
    found = np.full(len(table.rows), np.nan, np.float32)
    for row, cell in enumerate(table.cells(name)):
        if not cell:
            continue
        try:
            value = float(cell)
        except ValueError:
            raise DeltafineError(
                f"The column '{name}' of {table.listing} has {some([repr(cell)])}, which is no number, and the input "
                f"'{wanted.input}' of the model takes numbers: correct it."
            ) from None
        if why := wanted.refusal(value):
            raise DeltafineError(f"The column '{name}' of {table.listing} has {cell}, which {why}: correct it.")
        found[row] = value
    return found


def _quoted(names: Sequence[str]) -> str:
    return some([f"'{name}'" for name in names if name], most=8)
