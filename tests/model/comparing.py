"""Comparing a rewritten model with the original, frame by frame."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites

IDENTITY = DeltaSettings(rule="identity")


def with_identity_deltas(model: Any, **options: Any) -> Any:
    """The clip model with an identity delta layer behind the input and every activation, gates and head too."""
    everything = select_sites(find_activations(model), at=["*"])
    return insert_deltas(model, everything, IDENTITY, **{"clip_output": "per-frame", **options})


def assert_frames_identical(model: Any, clip_model: Any, clips: Any) -> None:
    """Per-frame outputs of the clip model equal the model's on the same frames to the last bit."""
    frames = keras.tree.map_structure(lambda clip: clip.reshape(-1, *clip.shape[2:]), clips)
    expected = model.predict(frames, verbose=0)
    found = clip_model.predict(clips, verbose=0)
    keras.tree.assert_same_structure(found, expected)
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(one.reshape(other.shape), other)


def assert_identical_also_when_reloaded(model: Any, clips: Any, folder: Any, **options: Any) -> Any:
    """Insert identity layers everywhere, compare, save, load, compare again; the clip model."""
    clip_model = with_identity_deltas(model, **options)
    assert_frames_identical(model, clip_model, clips)
    clip_model.save(folder / "clips.keras")
    assert_frames_identical(model, keras.models.load_model(folder / "clips.keras"), clips)
    return clip_model
