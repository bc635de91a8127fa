"""What measuring costs beside plain predicting of the same clips. Run with ``-m slow -s``.

Both read the same clips from the same video files and run the same model on the same batches; they take turns, and the
median ratio of process time counts. Reading is the same on both sides, and counted apart it shows how much of the ratio
is the network alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from deltafine.measurement import Probe
from deltafine.measurement.side_by_side import measure_clips
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.video import open_dataset
from tests.benchmarks.method.test_step_time import convolutions, mobilenet
from tests.video.painted import write_video

pytestmark = pytest.mark.slow

ROUNDS, FRAMES, VIDEOS = 5, 8, 12
LIMIT = 1.25


def resnet50() -> Any:
    """ResNet50 on 224x224 frames."""
    return keras.applications.ResNet50(weights=None, classes=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of 240x320, as cameras give, over which a square wanders."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        random = np.random.default_rng(number)
        surface = random.normal(110, 25, (240, 320, 3))
        pictures = []
        for frame in range(2 * FRAMES):
            picture = surface + random.normal(0, 3, surface.shape)
            picture[80:160, 9 * frame :][:, :80] += 60
            pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
        write_video(root / f"class{number % 3}" / f"v{number}.avi", pictures=pictures)
    return root


@pytest.mark.parametrize("deltas", [False, True], ids=["original", "with-deltas"])
@pytest.mark.parametrize("make", [convolutions, mobilenet, resnet50])
def test_measuring_costs_at_most_a_quarter_more_than_predicting(
    make: Callable[[], Any], deltas: bool, folder: Path
) -> None:
    model = make()
    sites = select_sites(find_activations(model)) if deltas else []
    clip_model = insert_deltas(model, sites, DeltaSettings(initial_threshold=0.1))
    probes = {"model": Probe(clip_model)}
    height, width, channels = probes["model"].frame_shape
    data = open_dataset(folder, validation=0.25 if make is resnet50 else 0.99)
    batches = list(data.clips("validation", frames=FRAMES, size=(height, width), channels=channels, batch=8))

    class Decoded:
        """The clips once read, given as often as wanted."""

        videos = data.videos
        classes = data.classes

        def clips(self, split: str, **settings: Any) -> Any:
            return batches

    def predict() -> None:
        for batch in batches:
            clip_model.predict_on_batch(batch.frames)

    def predict_from_files() -> None:
        for batch in data.clips("validation", frames=FRAMES, size=(height, width), channels=channels, batch=8):
            clip_model.predict_on_batch(batch.frames)

    work = {
        "predict": predict,
        "measure": lambda: measure_clips(probes, Decoded(), frames=FRAMES),
        "predict from files": predict_from_files,
        "measure from files": lambda: measure_clips(probes, data, frames=FRAMES),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, do in work.items():
            begin = time.process_time()
            do()
            taken[name].append(time.process_time() - begin)
    seconds = {name: np.array(times[1:]) for name, times in taken.items()}  # the first round traces
    alone = float(np.median(seconds["measure"] / seconds["predict"]))
    whole = float(np.median(seconds["measure from files"] / seconds["predict from files"]))
    frames = sum(batch.frames.shape[0] * batch.frames.shape[1] for batch in batches)
    print(
        f"\n{make.__name__}, {'with deltas' if deltas else 'original'}: predicting "
        f"{1000 * np.median(seconds['predict']) / frames:.2f} ms a frame, measuring x{alone:.2f}; "
        f"from files x{whole:.2f}"
    )
    assert whole <= LIMIT
