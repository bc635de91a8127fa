from __future__ import annotations

import keras
import numpy as np
import pytest

from deltafine.layers.time import FoldTime, TimeLast, TimeMean, UnfoldTime


def folded_and_back(length: int | None, dtype: str = "float32"):
    clips = keras.Input((length, 4, 3), dtype=dtype)
    frames, clock = FoldTime(dtype=dtype)(clips)
    return keras.Model(clips, [frames, clock, UnfoldTime(dtype=dtype)(frames, clock)])


@pytest.mark.parametrize("length", [None, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_unfolding_undoes_folding(length, dtype, tmp_path):
    model = folded_and_back(length, dtype)
    model.save(tmp_path / "model.keras")
    clips = np.random.default_rng(0).integers(0, 255, (2, 5, 4, 3)).astype(dtype)
    for candidate in (model, keras.models.load_model(tmp_path / "model.keras")):
        frames, clock, back = candidate(clips)
        np.testing.assert_array_equal(frames, clips.reshape(10, 4, 3))
        np.testing.assert_array_equal(clock, np.arange(5))
        np.testing.assert_array_equal(back, clips)
        assert keras.backend.standardize_dtype(back.dtype) == dtype


def test_the_clock_has_a_static_length_where_the_clip_length_is_known():
    _, clock, back = folded_and_back(5).output
    assert clock.shape == (5,)
    assert back.shape == (None, 5, 4, 3)
    assert folded_and_back(None).output[1].shape == (None,)


def test_the_mean_and_the_last_frame_of_a_clip():
    clips = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_allclose(TimeMean()(clips), clips.mean(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(TimeLast()(clips), clips[:, -1])
    assert TimeMean()(keras.Input((None, 3))).shape == TimeLast()(keras.Input((None, 3))).shape == (None, 3)
