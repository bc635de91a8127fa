"""The RMS that steps are relative to, against the same in NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas
from deltafine.refinement.thresholds.calibration import activation_rms, threshold_unit
from tests.small_runs import SIZE, small_model


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


@pytest.fixture(scope="module")
def batches() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (videos, 5, SIZE, SIZE, 3), dtype=np.uint8) for videos in (3, 1)]


def test_rms_is_that_of_all_frames_of_all_batches(model: Any, batches: list[np.ndarray]) -> None:
    sites = find_activations(model)
    found = activation_rms(insert_deltas(model, sites, DeltaSettings(initial_threshold=1e-9)), batches)
    frames = np.concatenate([batch.reshape(-1, SIZE, SIZE, 3) for batch in batches]).astype("float32")
    outputs = {"input": frames}
    for name in ("relu1", "conv2"):
        part = keras.Model(model.input, model.get_layer(name).output)
        outputs[name] = np.asarray(part(frames))
    expected = {}
    for site in sites:
        if site.selected:
            values = outputs[site.name.split(":")[0].split("/")[0]].astype("float64")
            expected[site.delta_name] = np.sqrt(np.mean(values**2, axis=(0, 1, 2)))
    assert found.keys() == expected.keys()
    assert len(found) == 3
    for path, values in expected.items():
        np.testing.assert_allclose(found[path], values, rtol=1e-4)


def test_a_steps_unit_is_the_layers_rms_or_each_channels_own(model: Any) -> None:
    rms = np.array([3.0, 4.0, 0.0])
    of_layer = np.sqrt(25 / 3)
    for threshold_per, expected in (("layer", of_layer), ("channel", [3.0, 4.0, of_layer / 10])):
        clip_model = insert_deltas(model, find_activations(model), DeltaSettings(threshold_per=threshold_per))
        layer = next(iter(delta_layers(clip_model).values()))
        np.testing.assert_allclose(threshold_unit(layer, rms), expected)
