"""Videos and arrays of strangers: used as far as they go, or listed with a reason, or refused in a sentence."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import strategies as st

from deltafine.errors import DeltafineError
from deltafine.video import Limits, open_dataset
from tests.fuzz.harness import FEW, MANY, fuzz
from tests.fuzz.mutations import changed_bytes
from tests.video.painted import write_video

how_many = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])

LIMITS = Limits(frames=2000, pixels=1 << 22, seconds=8)


def use(file: Path) -> None:
    """Read what a file holds in every way; refuse it when nothing of it can be used."""
    data = open_dataset(file, limits=LIMITS, validation=0.5)
    data.scan()
    if not any(data.index(video) for video in data.videos):
        raise DeltafineError(f"Nothing is left: {data.problems[0].reason}.")
    for _, pieces in data.streams(None, size=(8, 8)):
        for frames, _ in pieces:
            assert frames.shape[1:] == (8, 8, 3)
    for batch in data.clips(None, size=(8, 8), frames=1):
        assert len(batch)


@how_many
def test_encoded_videos(tmp_path: Path, examples: int) -> None:
    kinds = {".mp4": ("libx264", "yuv420p"), ".avi": ("mjpeg", "yuvj420p"), ".mkv": ("ffv1", "yuv420p")}
    kinds |= {".webm": ("libvpx", "yuv420p"), ".ts": ("mpeg2video", "yuv420p"), ".gif": ("gif", "rgb8")}
    seeds = {
        suffix: write_video(tmp_path / f"seed{suffix}", 6, codec=codec, pixels=pixels).read_bytes()
        for suffix, (codec, pixels) in kinds.items()
    }
    inputs = st.sampled_from(sorted(seeds)).flatmap(
        lambda suffix: st.tuples(st.just(suffix), changed_bytes([seeds[suffix]]))
    )

    def read(content: tuple[str, bytes]) -> None:
        file = tmp_path / f"fuzzed{content[0]}"
        file.write_bytes(content[1])
        use(file)

    counts = fuzz(inputs, read, examples)
    assert counts["refused"] > examples / 10


def arrays() -> list[bytes]:
    """HDF5 files of both forms, plain and compressed."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 5, 3), np.uint8)
    found = []
    for options in ({}, {"compression": "gzip", "chunks": (1, 2, 6, 5, 3)}):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("frames", data=frames, **options)
            file["labels"] = [0, 1, 0]
            file.create_dataset("classes", data=["run", "walk"], dtype=h5py.string_dtype())
            file.create_dataset("splits", data=["train", "validation", "train"], dtype=h5py.string_dtype())
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for number in range(3):
            video = file.create_dataset(f"videos/{number}", data=frames[number])
            video.attrs.update({"label": number % 2, "rate": 10.0})
    return [*found, buffer.getvalue()]


@how_many
def test_arrays_in_hdf5(tmp_path: Path, examples: int) -> None:
    file = tmp_path / "data.h5"

    def read(content: bytes) -> None:
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        use(file)

    counts = fuzz(changed_bytes(arrays()), read, examples)
    assert counts["refused"] > examples / 10
    assert counts["taken"] > examples / 50
