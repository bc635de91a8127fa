"""The plan in whole numbers: an interpreter of its own gives the same bits, and the answers are near the model's."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
import jsonschema
import keras
import numpy as np
import pytest
from hypothesis import given, settings

from deltafine.errors import DeltafineError
from deltafine.exporting.fixed_numbers import divided, fraction_of, shifted, whole_weights
from deltafine.exporting.fixed_player import FixedPlayer
from deltafine.exporting.plan_file import read_both
from deltafine.exporting.writing import write_export
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from tests.exporting.fixed_interpreter import FixedInterpreter
from tests.exporting.test_plan import tiny, video
from tests.model import small_models
from tests.runtime import models

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "fixed-plan.schema.json").read_text("utf-8"))


def road(rule: str = "send-on-delta", granularity: str = "element", threshold_per: str = "channel") -> keras.Model:
    """As MobileNets are: normalised, with residual sums, and a softmax at the end."""
    inputs = keras.Input(models.SIZE, name="frame")
    x = keras.layers.Rescaling(1 / 127.5, -1, name="scale")(inputs)
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(x)
    x = keras.layers.ReLU(6.0, name="relu_a")(keras.layers.BatchNormalization(name="norm_a")(x))
    y = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    y = keras.layers.ReLU(6.0, name="relu_b")(keras.layers.BatchNormalization(name="norm_b")(y))
    y = keras.layers.BatchNormalization(name="norm_c")(keras.layers.Conv2D(8, 1, use_bias=False, name="project")(y))
    x = keras.layers.ReLU(name="relu_c")(keras.layers.Add(name="sum")([x, y]))
    x = keras.layers.Concatenate(name="both")([keras.layers.MaxPooling2D(2)(x), keras.layers.AveragePooling2D(2)(x)])
    x = keras.layers.GlobalAveragePooling2D(name="average")(keras.layers.Conv2D(12, 3, activation="relu", name="c")(x))
    model = models.weighted(keras.Model(inputs, keras.layers.Dense(4, activation="softmax", name="head")(x)))
    return models.refined(model, rule, granularity, relative_threshold=0.1, threshold_per=threshold_per)


def exported(refined: keras.Model, folder: Path, frames: np.ndarray) -> Path:
    write_export(refined, folder / "fixed-plan.json", "fixed-plan", real_frames=lambda wanted: frames[None])
    return folder / "fixed-plan.json"


@pytest.mark.parametrize(
    ("make", "rule", "granularity", "threshold_per"),
    [
        (tiny, "send-on-delta", "element", "layer"),
        (tiny, "send-on-delta", "pixel", "neuron"),
        (road, "send-on-delta", "element", "channel"),
        (road, "send-on-delta", "pixel", "channel"),
        (road, "quantize", "element", "layer"),
    ],
)
def test_an_interpreter_of_its_own_gives_the_same_bits(make, rule, granularity, threshold_per, tmp_path):
    refined = make(rule, granularity, threshold_per)
    shape = tuple(refined.inputs[0].shape[2:])
    frames = np.round(video(60, shape))
    file = exported(refined, tmp_path, frames[:20])
    player, reference = FixedInterpreter(file), FixedPlayer(*read_both(file, "deltafine fixed plan", 1))
    jsonschema.validate(player.plan, SCHEMA)
    sent = []
    for frame in frames:
        player.step(frame)
        reference.step(frame)
        for index, values in reference.values.items():
            np.testing.assert_array_equal(player.values[index], values)
        assert player.events == reference.events
        sent.append(sum(reference.events.values()))
    assert 0 < np.mean(sent[1:]) < sum(delta["events_of"] for delta in player.plan["delta_layers"])


def test_the_answers_are_those_of_the_refined_model_but_for_rounding(tmp_path):
    for make, bound in ((lambda: road("identity"), 0.02), (lambda: road("quantize", "element", "layer"), 0.2)):
        frames = np.round(video(20, models.SIZE))
        agreement, _ = write_export(
            make(), tmp_path / "a.json", "fixed-plan", real_frames=lambda wanted, frames=frames: frames[None]
        )
        assert (agreement.frames, agreement.stream) == (20, True)
        assert agreement.largest_difference < bound  # of probabilities
        (tmp_path / "a.json").unlink()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (keras.layers.Activation("silu", name="act"), "has the activation silu before the end"),
        (keras.layers.LeakyReLU(0.1, name="act"), "has a ReLU with a slope or a threshold"),
        (keras.layers.LayerNormalization(name="act"), "no plan holds it"),
    ],
)
def test_what_has_no_form_in_whole_numbers_is_refused_by_its_name(layer, said, tmp_path):
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="next")(layer(x))
    model = small_models.randomise(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x))))
    refined = insert_deltas(model, find_activations(model), DeltaSettings(rule="quantize", initial_threshold=0.25))
    with pytest.raises(DeltafineError, match=f"Layer 'act.*{said}"):
        write_export(refined, tmp_path / "a.json", "fixed-plan")
    assert list(tmp_path.iterdir()) == []


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=40),
    st.floats(-1e4, 1e4),
    st.integers(-8, 20),
)
@settings(max_examples=60, deadline=None)
def test_no_sum_overflows_whatever_the_weights_are(column, shift, fraction):
    weights = np.asarray(column, np.float32)[:, None]
    whole, added, _ = whole_weights(weights, np.array([shift]), fraction)
    worst = np.abs(whole.astype(np.int64)).sum() * 32768 + abs(int(added[0]))
    assert worst <= np.iinfo(np.int32).max
    assert whole.dtype == np.int8


@given(st.integers(-(2**40), 2**40), st.integers(-4, 20), st.integers(1, 1000))
@settings(max_examples=60, deadline=None)
def test_rounding_is_to_the_nearest_with_halves_upwards(value, right, by):
    assert int(shifted(np.int64(value), right)) == (
        int(np.floor(value / 2**right + 0.5)) if right > 0 else value << -right
    )
    assert int(divided(np.int64(value), by)) == (2 * value + by) // (2 * by)


@given(st.floats(1e-6, 1e6))
def test_what_was_seen_fits_with_room_to_spare(largest):
    assert largest * 2.0 ** fraction_of(largest) < 32767
    assert fraction_of(largest) == 30 or largest * 2.0 ** (fraction_of(largest) + 1) * 1.25 > 32767
