"""Where in the picture events happen."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from deltafine.measurement.event_maps import event_maps
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites


def test_a_map_shows_which_positions_of_a_layers_input_changed():
    model = keras.Sequential(
        [
            keras.Input((6, 8, 2)),
            layers.Conv2D(4, 3, padding="same", name="first"),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        ]
    )
    frames = np.zeros((4, 6, 8, 2), "uint8")
    frames[1, 2, 3, 0] = 9  # one channel of one position, there and back again
    frames[3, 5, 7] = 9  # both channels
    (found,) = event_maps(insert_deltas(model, []), frames)
    assert found.layer == "first"
    expected = np.zeros((4, 6, 8))
    expected[1:3, 2, 3] = 0.5
    expected[3, 5, 7] = 1
    np.testing.assert_array_equal(found.share, expected)


def test_what_a_delta_layer_holds_back_is_no_event():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(1, 3, name="conv")])
    sites = select_sites(find_activations(model), at=["input"])
    frames = np.arange(6, dtype="uint8")[:, None, None, None] * np.ones((1, 4, 4, 1), "uint8")
    (found,) = event_maps(insert_deltas(model, sites, DeltaSettings(initial_threshold=2.0)), frames)
    assert found.share.mean(axis=(1, 2)).tolist() == [0, 0, 1, 0, 1, 0]
