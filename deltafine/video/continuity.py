"""Which video may be the continuation of which: the one that begins most like the other ends.

Data sets of clips are mostly cut out of longer videos. Put together again, as far as that goes, the clips show a
network what it will see in a continuous video: a scene that goes on, instead of cuts at which everything changes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import numpy as np

from deltafine.video.catalogue import Video
from deltafine.video.examination import Examination
from deltafine.video.frames import UnreadableVideo
from deltafine.video.prefetch import ordered
from deltafine.video.reading import Reader

ROWS_AT_ONCE = 256
CANDIDATES = 8
"""Videos among which the one before is looked for."""


class Continuity:
    """The first and the last picture of every video, and how alike they are.

    Videos that cannot be read, or are empty, are left out.

    Args:
        examination: of the videos, all of which were read through.
        reader: gives their frames.
        videos: by number.
        fps: rate at which frames are taken.
        workers: reading threads.
    """

    def __init__(
        self, examination: Examination, reader: Reader, videos: Mapping[int, Video], fps: float | None, workers: int
    ) -> None:
        def ends(number: int) -> tuple[int, np.ndarray | None]:
            video = videos[number]
            if examination.index(video) is None or not len(shown := examination.frame_numbers(video, fps)):
                return number, None
            if len(videos) == 1:
                return number, np.zeros((2, 1))  # nothing that it could be compared with
            try:
                return number, reader.ends(video, int(shown[0]), int(shown[-1]))
            except UnreadableVideo as error:
                examination.note_problem(video, str(error))
                return number, None

        found = [(number, pair) for number, pair in ordered(ends, videos, workers=workers) if pair is not None]
        self._numbers = [number for number, _ in found]
        pictures = np.stack([pair for _, pair in found]).astype(np.float64) if found else np.empty((0, 2, 1))
        self._firsts, self._lasts = pictures[:, 0], pictures[:, 1]

    @functools.cached_property
    def chain(self) -> list[int]:
        """All videos in an order in which each begins much like the one before ends: the closest are joined first."""
        places = range(len(self._numbers))
        pairs = [
            (float(distance), int(one), place)
            for place, (nearest, distances) in enumerate(self._nearest())
            for one, distance in zip(nearest, distances, strict=True)
        ]
        after: dict[int, int] = {}
        begins = {place: place for place in places}  # of the pieces made so far, by where they end
        ends = {place: place for place in places}  # the other way round
        for _, one, following in sorted(pairs):
            if one in begins and following in ends and begins[one] != following:
                begin, end = begins.pop(one), ends.pop(following)
                begins[end], ends[begin], after[one] = begin, end, following
        order: list[int] = []
        while ends:  # join the pieces, each with the nearest that is left
            left = list(ends)
            at = int(_distances(self._lasts[order[-1:]], self._firsts[left])[0].argmin()) if order else 0
            place: int | None = left[at]
            del ends[left[at]]
            while place is not None:
                order.append(place)
                place = after.get(place)
        return [self._numbers[place] for place in order]

    def _nearest(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For every video some others that end most like it begins, and their distances, the nearest first."""
        for begin in range(0, len(self._numbers), ROWS_AT_ONCE):
            distances = _distances(self._firsts[begin : begin + ROWS_AT_ONCE], self._lasts)
            rows = np.arange(len(distances))
            distances[rows, begin + rows] = np.inf  # the video itself
            count = min(CANDIDATES, len(self._lasts) - 1)
            for row in distances if count else ():
                near = np.flatnonzero(row <= np.partition(row, count - 1)[count - 1])
                nearest = near[np.argsort(row[near], kind="stable")][:count]
                yield nearest, row[nearest]


def _distances(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) squared distances of (n, values) and (m, values)."""
    squares = np.square(ones).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    distances: np.ndarray = squares - 2 * ones @ others.T
    return distances
