"""Models whose layers have the names that a rewriting would give: Keras' for new operations, and our own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from deltafine.exporting.forms import export_plain
from deltafine.layers import DeltaActivation
from deltafine.measurement.event_maps import event_maps
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas, select_sites
from deltafine.model.clip_model import window_of, with_time
from deltafine.model.layer_names import Names
from deltafine.runtime.runtime import DeltaRuntime
from tests.model.comparing import IDENTITY, assert_identical_also_when_reloaded
from tests.model.small_models import clips, randomise

OURS = (
    "fold_time", "frame_rescaling", "frame_predictions", "clip_prediction", "clock", "body_delta", "body_activation",
    "body_delta_1", "input_delta", "input", "td_fold", "td_unfold", "td_delta", "hidden_delta",
)  # fmt: skip


def names_of_operations() -> list[str]:
    """What Keras calls the operations of ``keras.ops`` when they are called outside of a layer."""
    from keras.src.ops import core, image, linalg, math, nn, numpy
    from keras.src.ops.operation import Operation
    from keras.src.utils.naming import to_snake_case

    found = {
        to_snake_case(name)
        for module in (core, image, linalg, math, nn, numpy)
        for name, member in vars(module).items()
        if isinstance(member, type) and issubclass(member, Operation)
    }
    assert {"reshape", "expand_dims", "cast", "where", "get_item"} <= found
    return sorted(found)


def with_layers_named(names, x):
    for name in names:
        x = layers.Identity(name=name)(x)
    return x


def per_frame(names=OURS, policy="float32"):
    """Two activations, one of them fused into its layer; the names are those of layers on every level."""
    options = {"dtype": policy}
    inner = keras.Input((5, 4, 4))
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="body", **options)(inner)
    y = with_layers_named([name for name in names if name in OURS], y)
    block = keras.Model(inner, y, name="block")
    inputs = keras.Input((12, 10, 3), name="frame")
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="body", **options)(inputs)
    x = layers.GlobalAveragePooling2D(**options)(block(with_layers_named(names, x)))
    x = layers.Dense(6, activation="tanh", name="hidden", **options)(x)
    return randomise(keras.Model(inputs, layers.Dense(2, activation="softmax", name="head", **options)(x), name="all"))


def of_clips(names=OURS):
    inputs = keras.Input((3, 12, 10, 3), name="sample")
    x = layers.TimeDistributed(layers.Conv2D(4, 3, strides=2, activation="relu", name="body"), name="td")(inputs)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D(), name="pool")(x)
    x = with_layers_named(names, layers.Dense(6, activation="relu", name="hidden")(x))
    weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1, name="score")(x))
    x = layers.GlobalAveragePooling1D(name="over_time")(layers.Multiply(name="weighted")([x, weights]))
    return randomise(keras.Model(inputs, layers.Dense(2, name="head")(x), name="attention"))


MANY = [
    "reshape", "reshape_1", "expand_dims", "expand_dims_1", "where", "where_1", "cast", "cast_1", "get_item", "stack",
    "subtract", "subtract_1", "abs", "absolute", "square", "mean", "sum", "sqrt", "divide", "true_divide", "multiply",
    "multiply_1", "add", "round", "floor", "greater_equal", "greater_equal_1", "less", "sign", "maximum", *OURS,
]  # fmt: skip
EVERY = [*names_of_operations(), *OURS]
EVERY_NAME = pytest.param("float32", EVERY, marks=pytest.mark.slow)


@pytest.mark.parametrize(("policy", "names"), [("float32", MANY), ("mixed_float16", OURS), EVERY_NAME])
def test_inserting_measuring_and_exporting_mind_no_name(policy, names, tmp_path):
    model = per_frame(names, policy)
    sites = select_sites(find_activations(model), at=["default"])
    refined = insert_deltas(model, sites, DeltaSettings(initial_threshold=0.3), rescale="0..1")
    assert sorted(delta_layers(refined)) == sorted(site.delta_name for site in sites if site.selected)
    refined.save(tmp_path / "refined.keras")
    refined = keras.models.load_model(tmp_path / "refined.keras")
    video = clips((1, 3, 12, 10, 3))
    expected = refined.predict(video, verbose=0).astype("float32")
    piece = Probe(refined).run(video)
    np.testing.assert_allclose(piece.predictions.mean(axis=1), expected, atol=1e-3)
    assert event_maps(refined, video[0])
    for form in ("stripped", "quantized"):
        export_plain(refined, form, frames=3).save(tmp_path / f"{form}.keras")
        keras.models.load_model(tmp_path / f"{form}.keras")
    found = keras.models.load_model(tmp_path / "quantized.keras").predict(video, verbose=0)
    np.testing.assert_allclose(found.astype("float32"), expected, atol=1e-3 if policy != "float32" else 1e-6)


def test_no_value_changes_whatever_layers_are_called(tmp_path):
    assert_identical_also_when_reloaded(per_frame(), clips(), tmp_path)


@pytest.mark.parametrize("names", [MANY, pytest.param(EVERY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["stripped", "quantized"])
def test_models_that_take_clips_mind_no_name(form, names, tmp_path):
    model = of_clips(names)
    refined = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.3))
    assert window_of(refined) == 3
    video = clips((2, 3, 12, 10, 3))
    expected = refined.predict(video, verbose=0)
    np.testing.assert_allclose(Probe(refined).run(video).predictions[:, 0], expected, atol=1e-6)
    export_plain(refined, form).save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    if form == "quantized":
        np.testing.assert_allclose(plain.predict(video, verbose=0), expected, atol=1e-6)


def test_a_delta_layer_gets_the_next_free_name_and_its_site_knows_it():
    model = per_frame(["body_delta", "body_delta_1", "input_delta"])
    sites = {site.name: site.delta_name for site in find_activations(model)}
    assert sites["body"] == "body_delta_2"
    assert sites["block/body"] == "block/body_delta_2"
    assert sites["input"] == "input_delta_1"
    refined = insert_deltas(model, find_activations(model))
    assert isinstance(refined.get_layer("body_delta_2"), DeltaActivation)
    assert isinstance(refined.get_layer("body_delta"), layers.Identity)


def test_an_activation_called_input_is_not_taken_for_the_input():
    inputs = keras.Input((12, 10, 3), name="frame")
    x = layers.Activation("relu", name="input")(layers.Conv2D(4, 3, name="body")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    sites = {site.name: (site.kind, site.shape) for site in find_activations(model)}
    assert sites == {"input": ("relu", (10, 8, 4)), "input_1": ("input", (12, 10, 3))}
    refined = insert_deltas(model, select_sites(find_activations(model), at=["input"]), IDENTITY)
    assert list(delta_layers(refined)) == ["input_delta"]


def test_predictions_are_those_of_the_end_whatever_layers_are_called():
    model = per_frame(["frame_predictions", "clip_prediction"])
    video = clips((1, 3, 12, 10, 3))
    clip_model = insert_deltas(model, [], clip_output="last")
    expected = model.predict(video[0], verbose=0)
    np.testing.assert_allclose(with_time(clip_model).predict(video, verbose=0)[0], expected, atol=1e-6)


def test_augmentation_in_the_model_is_left_out_whatever_it_is_called(tmp_path):
    inputs = keras.Input((12, 10, 3), name="frame")
    x = layers.RandomFlip(name="fold_time")(layers.RandomRotation(0.2, name="input_delta")(inputs))
    x = layers.Flatten(name="frame_predictions")(layers.Conv2D(4, 3, activation="relu", name="body")(x))
    assert_identical_also_when_reloaded(randomise(keras.Model(inputs, layers.Dense(2)(x))), clips(), tmp_path)


def test_a_taken_name_gets_the_first_number_that_is_free():
    names = Names(["reshape", "reshape_2"])
    assert [names.free("reshape") for _ in range(3)] == ["reshape_1", "reshape_3", "reshape_4"]


def test_the_runtime_minds_no_name():
    """A clip model has the delta layers and the answers of the runtime in it, and layers called like these."""
    model, video = per_frame(), clips((1, 4, 12, 10, 3))
    refined = insert_deltas(
        model, find_activations(model), DeltaSettings(initial_threshold=0.3), clip_output="per-frame"
    )
    runtime = DeltaRuntime(refined, engine="numpy")
    found = np.stack([runtime.step(frame) for frame in video[0]])
    np.testing.assert_allclose(found, refined.predict(video, verbose=0)[0], atol=1e-4)
    names = [operation.name for operation in runtime.plan.operations]
    assert len(set(names)) == len(names)
