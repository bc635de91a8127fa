"""What calibration tried, kept in a cache so that a later run on the same model and videos, or this one, need not."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.storage import run_files
from deltafine.storage.files import CannotWrite, discard, make_folder, read_small, write_atomically

VERSION = 1
"""Of what a trial does, and of how a path goes on: another one makes what was kept before useless."""
KEPT_EVERY = 20.0
"""Seconds after which what was tried meanwhile is written."""
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class AllocationTrial:
    """What some choice of thresholds gives on the calibration video."""

    divergence: float
    effective_macs: float  # mean per steady frame
    apart: float  # features or logits from the original's, in units of how much these vary


@dataclass(frozen=True)
class PathPoint:
    """Where a path of thresholds is after some steps of descent, and all that is needed to go on.

    Attributes:
        relative: thresholds of the layers in turn, in units of each layer.
        divergence: mean over the steps that led here, in nats per frame.
        mean, square: of the gradients.
    """

    relative: tuple[float, ...]
    divergence: float
    mean: tuple[float, ...]
    square: tuple[float, ...]


class Trials:
    """Trials by the relative thresholds of all layers, 0 where a layer sends every change; and a path that was found.

    Args:
        path: the file that they are kept in; None keeps them in memory alone.

    Attributes:
        known: how many are there from an earlier run.
        path: points in turn, see ``deltafine.refinement.thresholds.descent``.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._found: dict[tuple[float, ...], AllocationTrial] = {}
        self.path: list[PathPoint] = []
        self._written = time.monotonic()
        if path is not None and path.exists():
            self._read(path)
        self.known, self._kept = len(self._found), self._count

    @classmethod
    def of(cls, folder: Path | None, what: Mapping[str, object], videos: Sequence[np.ndarray]) -> Trials:
        """Those in a cache that were made with the same.

        Args:
            folder: the cache, or None.
            what: all that a trial depends on beside the videos, as JSON has it.
            videos: arrays (time, height, width, channels).
        """
        if folder is None:
            return cls()
        digest = hashlib.sha256(json.dumps([VERSION, what], sort_keys=True).encode())
        for video in videos:
            digest.update(f"{video.shape} {video.dtype} ".encode())
            digest.update(np.ascontiguousarray(video).data)
        return cls(folder / f"{run_files.TRIALS}{digest.hexdigest()[:24]}.json")

    def get(self, relative: tuple[float, ...]) -> AllocationTrial | None:
        """What these thresholds gave; None if nobody tried."""
        return self._found.get(relative)

    def put(self, relative: tuple[float, ...], trial: AllocationTrial) -> None:
        """Remember a trial, and write what was tried if that was not done for a while."""
        self._found[relative] = trial
        self._keep_now_and_then()

    def go_on(self, point: PathPoint) -> None:
        """Remember the next point of the path; see :meth:`put`."""
        self.path.append(point)
        self._keep_now_and_then()

    @property
    def _count(self) -> int:
        return len(self._found) + len(self.path)

    def _keep_now_and_then(self) -> None:
        if time.monotonic() - self._written > KEPT_EVERY:
            self.keep()

    def keep(self) -> None:
        """Write them, if there are more than before. A run goes on without; why is said."""
        if self._path is None or self._count == self._kept:
            return
        self._written = time.monotonic()
        found = [[list(relative), *astuple(trial)] for relative, trial in self._found.items()]
        path = [list(astuple(point)) for point in self.path]
        content = json.dumps({"trials": found, "path": path} if path else found).encode()
        try:
            make_folder(self._path.parent)
            write_atomically(self._path, _digest(content).encode() + b"\n" + content)
        except CannotWrite as error:
            warnings.warn(f"The calibration is not kept for later runs: {error}", DeltafineWarning, stacklevel=2)
        else:
            self._kept = self._count

    def _read(self, path: Path) -> None:
        try:
            digest, content = read_small(path, _MOST_BYTES).split(b"\n", 1)
            if digest.decode("ascii", "replace") != _digest(content):
                raise ValueError("it is not what was written")
            read = json.loads(content)
            trials, points = (read["trials"], read["path"]) if isinstance(read, dict) else (read, [])
            found = {
                tuple(map(float, relative)): AllocationTrial(*map(float, figures)) for relative, *figures in trials
            }
            self.path = [
                PathPoint(_floats(relative), float(divergence), _floats(mean), _floats(square))
                for relative, divergence, mean, square in points
            ]
            self._found = found
        except (OSError, ValueError, KeyError, TypeError, DeltafineError) as error:
            discard(path)
            said = f"What was kept is not used, and is made again: {path} ({error})."
            warnings.warn(said, DeltafineWarning, stacklevel=2)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
