"""Plays kept plans, and writes all values of every frame, so that two processors can be compared.

    python -m tests.runtime.play_kept FOLDER ENGINE FILE.npz

FOLDER holds run directories as ``tests.kept_plans`` writes them, with ``frames.npy`` in each. Needs NumPy, and numba
for the engine of that name; neither Keras nor TensorFlow.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np

from deltafine.runtime.delta_stream import DeltaStream
from deltafine.runtime.runtime import PRECISIONS, DeltaRuntime

FRESH = "fresh"
"""Of a recomputation of the last frame from scratch, where others have the number of a frame."""


def play(run: Path, engine: str, precision: str) -> dict[str, np.ndarray]:
    """All values as they are kept, by ``"frame tensor"``: floating point, or bytes."""
    runtime = DeltaRuntime(run, engine=engine, precision=precision)
    frames = np.load(run / "frames.npy")
    stream, found = runtime.stream(), {}

    def note(when: object, stream: DeltaStream) -> None:
        for index in range(len(runtime.plan.tensors)):
            found[f"{when} {index}"] = stream.state.as_kept(index).copy()

    for number, frame in enumerate(frames):
        stream.step(frame)
        note(number, stream)
    fresh = runtime.stream()
    fresh.step(frames[-1])
    note(FRESH, fresh)
    return found


def play_all(folder: Path, engine: str) -> dict[str, np.ndarray]:
    """The same of all run directories in a folder, in both precisions, by ``"run precision frame tensor"``."""
    return {
        f"{run.name} {precision} {name}": values
        for run in sorted(folder.iterdir())
        for precision in PRECISIONS
        for name, values in play(run, engine, precision).items()
    }


def instructions(engine: str) -> str:
    """What the kernels take for bytes."""
    if engine == "numpy":
        return "none"
    from deltafine.runtime.kernels.byte_vectors import INSTRUCTIONS

    return INSTRUCTIONS


if __name__ == "__main__":
    np.savez(sys.argv[3], **play_all(Path(sys.argv[1]), sys.argv[2]))  # type: ignore[arg-type]
    loaded = "with Keras" if {"tensorflow", "keras"} & sys.modules.keys() else "without Keras"
    print(f"{platform.machine()}, {instructions(sys.argv[2])}, {loaded}")
