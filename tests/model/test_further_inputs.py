"""A further input that never changes can be built into the model, as the documentation shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from deltafine.model import delta_layers, find_activations, insert_deltas, select_sites
from deltafine.model.clip_model import with_time
from deltafine.runtime.runtime import DeltaRuntime

PAGE = Path(__file__).parents[2] / "docs" / "refine.md"
BLOCK = re.compile(r"### Further inputs.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_of_a_constant_input_answers_as_the_model_does(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    found: dict[str, Any] = {}
    (example,) = BLOCK.findall(PAGE.read_text())
    keras.utils.set_random_seed(0)
    exec(example, found)
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3)).astype("float32")
    frames = clips.reshape(6, 32, 32, 3)
    expected = np.asarray(found["model"]([frames, np.full((6, 1), 3.2, "float32")])).reshape(2, 3, 1)
    lossless = insert_deltas(found["fixed"], select_sites(find_activations(found["fixed"])), clip_output="per-frame")
    for layer in delta_layers(lossless).values():
        layer.set_threshold(1e-6)
    assert delta_layers(lossless)
    np.testing.assert_allclose(with_time(lossless)(clips, training=False), expected, rtol=1e-4, atol=1e-3)
    lossless.save(tmp_path / "fixed.keras")
    runtime = DeltaRuntime(tmp_path / "fixed.keras")
    answers = [runtime.step(frame.astype(np.uint8)) for frame in clips[0]]
    np.testing.assert_allclose(np.reshape(answers, (3, 1)), expected[0], rtol=1e-4, atol=1e-3)
