"""`deltafine demo`: the example as it is given to a newcomer."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from deltafine import load_report, open_dataset
from deltafine.jobs import demo
from deltafine.jobs.refine import Quiet
from tests.cli.running import Command


def test_the_videos_of_the_demo_are_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CLIPS_PER_CLASS", 2)
    monkeypatch.setattr(demo, "STREAMS", 1)
    example = demo.Example(tmp_path / "m.keras", tmp_path / "videos", tmp_path / "streams")
    demo.write_videos(example, Quiet(), demo.Scene)

    clips = open_dataset(example.data)
    assert clips.classes == demo.SHAPES
    assert len(clips.videos) == 2 * len(demo.SHAPES)
    assert clips.scan() == []
    assert clips.index(clips.videos[0]).count == demo.CLIP_FRAMES  # type: ignore[union-attr]

    streams = open_dataset(example.streams, classes=clips.classes)
    (stream,) = streams.videos
    streams.scan()
    labels = streams.frame_labels(stream)
    assert len(labels) == demo.STREAM_FRAMES
    assert set(labels) == {0, 1, 2}
    assert np.count_nonzero(np.diff(labels)) == demo.STREAM_FRAMES // demo.FRAMES_PER_SHAPE - 1
    with (example.streams / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["video", "frame", "label"]


@pytest.mark.parametrize("shape", demo.SHAPES)
def test_only_noise_and_the_shape_move(shape: str) -> None:
    scene = demo.Scene(np.random.default_rng(0))
    frames = np.stack([scene.frame(shape) for _ in range(30)]).astype(float)
    noise = np.abs(np.diff(frames, axis=0)).mean(axis=-1)
    moving = (noise > 6 * demo.SENSOR_NOISE).mean(axis=(1, 2))
    assert 0 < moving.mean() < 0.05


@pytest.mark.slow
def test_the_demo_runs_from_beginning_to_end(deltafine: Command, tmp_path: Path) -> None:
    done = deltafine("demo", "--out", tmp_path / "demo")
    assert done.code == 0, done.errors
    report = load_report(tmp_path / "demo" / "run")
    original, refined = (report.models[name].streams for name in ("original", "refined"))
    assert original.frame_accuracy is not None
    assert original.frozen_accuracy is not None
    assert refined.frame_accuracy is not None
    # The streams can tell a model that looks from one that does not, and the refined one looks.
    assert original.frozen_accuracy.value < original.frame_accuracy.value - 0.2
    assert refined.frame_accuracy.value > original.frame_accuracy.value - 0.1
    assert refined.operations.mac_density < 0.5 * original.operations.mac_density
    assert "Open" in done.output
