"""A long training on many clips: memory and the time of a step stay flat. Run with ``-m slow -s``.

``DELTAFINE_SOAK_MINUTES`` says how long; 30 if not given. Memory is the resident size, time the processor time of
all threads from one step to the next, so that other work on the machine counts little.
"""

from __future__ import annotations

import os
import signal
import time
from array import array
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from deltafine import refine
from deltafine.errors import Interrupted
from deltafine.jobs.refine import Quiet
from tests.fuzz.harness import status
from tests.small_runs import write_small_model

pytestmark = pytest.mark.slow

CLIPS, FRAMES, SIZE, VALIDATION = 10_000, 8, 16, 10
MINUTES = float(os.environ.get("DELTAFINE_SOAK_MINUTES", "30"))
WINDOWS = 10


class Recorder(Quiet):
    """Notes memory and processor time at every step, and presses Ctrl-C when time is up."""

    def __init__(self) -> None:
        self.steps = array("d")  # bytes and seconds, one after the other: a list of them would itself grow like a leak
        self._end = 0.0
        self._before = 0.0

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        now = time.process_time()
        if what.startswith("epoch"):
            self._end = self._end or time.monotonic() + 60 * MINUTES
            if self._before:
                self.steps.extend((status("VmRSS"), now - self._before))
            self._before = now
            if time.monotonic() > self._end:
                signal.raise_signal(signal.SIGINT)
        else:
            self._before = 0.0  # what lies between was not a step


def write_clips(path: Path) -> Path:
    """Noise with a brightness that tells two classes apart, and a square that wanders; 10 videos validate."""
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("frames", (CLIPS, FRAMES, SIZE, SIZE, 3), np.uint8)
        labels = np.arange(CLIPS) % 2
        for begin in range(0, CLIPS, 500):
            light = np.where(labels[begin : begin + 500], 170, 70)[:, None, None, None, None]
            still = light + draw.normal(0, 15, (500, 1, SIZE, SIZE, 3))
            moving = still + draw.normal(0, 3, (500, FRAMES, SIZE, SIZE, 3))
            for frame in range(FRAMES):
                moving[:, frame, 4:8, frame : frame + 4] += 60
            frames[begin : begin + 500] = np.clip(moving, 0, 255)
        file["labels"] = labels
        splits = ["validation"] * VALIDATION + ["train"] * (CLIPS - VALIDATION)
        file.create_dataset("splits", data=splits, dtype=h5py.string_dtype())
    return path


def test_memory_and_time_stay_flat(tmp_path: Path) -> None:
    data, model = write_clips(tmp_path / "clips.h5"), write_small_model(tmp_path / "small.keras")
    recorder = Recorder()
    settings: dict[str, Any] = {"frames": FRAMES, "batch": 8, "relative_threshold": 0.5, "checkpoint_minutes": 1.0}
    with pytest.raises(Interrupted):
        refine(model, data, tmp_path / "run", epochs=100_000, listener=recorder, **settings)
    steps = np.array(recorder.steps).reshape(-1, 2)[50:]  # graphs are made and caches filled at first
    assert len(steps) > 20 * WINDOWS
    print(f"\n{len(steps)} steps in {MINUTES:g} minutes, {8 * len(steps) / CLIPS:.1f} times through {CLIPS} clips")
    memory, seconds = ([np.median(part) for part in np.array_split(column, WINDOWS)] for column in steps.T)
    for window in range(WINDOWS):
        print(f"  tenth {window + 1:2}: {memory[window] / 1e6:7.1f} MB, {1000 * seconds[window]:6.2f} ms of CPU time")
    assert memory[-1] < memory[0] + 10e6
    assert np.median(seconds[-3:]) < 1.2 * np.median(seconds[:3])
