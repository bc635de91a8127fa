from __future__ import annotations

import keras
import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas, select_sites
from tests.model import small_models

IDENTITY = DeltaSettings(rule="identity")
ONE_INPUT = ["plain", "sequential", "nested", "shared_layer", "gated"]


def frame_outputs(clip_model, clips):
    model = keras.Model(clip_model.input, clip_model.get_layer("frame_predictions").output)
    return model.predict(clips, verbose=0)


@pytest.mark.parametrize("name", ONE_INPUT)
def test_identity_layers_change_no_bit_of_any_frame(name, tmp_path):
    model, clips = getattr(small_models, name)(), small_models.clips()
    expected = model.predict(clips.reshape(6, 12, 10, 3), verbose=0).reshape(2, 3, -1)
    clip_model = insert_deltas(model, find_activations(model), IDENTITY)
    np.testing.assert_array_equal(frame_outputs(clip_model, clips), expected)
    clip_model.save(tmp_path / "clips.keras")
    loaded = keras.models.load_model(tmp_path / "clips.keras")
    np.testing.assert_array_equal(frame_outputs(loaded, clips), expected)


@pytest.mark.parametrize("name", ONE_INPUT)
def test_the_original_model_is_left_as_it_was(name):
    model, clips = getattr(small_models, name)(), small_models.clips((4, 12, 10, 3))
    before, layers_before = model.predict(clips, verbose=0), [layer.name for layer in model.layers]
    clip_model = insert_deltas(model, find_activations(model))
    for weight in clip_model.trainable_weights:
        weight.assign(weight * 0 + 1)
    np.testing.assert_array_equal(model.predict(clips, verbose=0), before)
    assert [layer.name for layer in model.layers] == layers_before


@pytest.mark.parametrize("name", [*ONE_INPUT, "siamese"])
def test_there_is_one_delta_layer_per_selected_site(name):
    model = getattr(small_models, name)()
    sites = find_activations(model)
    clip_model = insert_deltas(model, sites)
    assert set(delta_layers(clip_model)) == {site.delta_name for site in sites if site.selected}


def test_layers_keep_their_names_and_fused_activations_are_split():
    model = small_models.plain()
    clip_model = insert_deltas(model, find_activations(model))
    assert [layer.name for layer in clip_model.layers] == [
        "frame", "fold_time", "input_delta", "scale", "conv1", "norm1", "relu1", "relu1_delta", "pool", "conv2",
        "conv2_activation", "conv2_delta", "gap", "head", "frame_predictions", "clip_prediction",
    ]  # fmt: skip
    assert clip_model.get_layer("conv2").activation is keras.activations.linear
    assert clip_model.get_layer("head").activation is keras.activations.softmax


def test_layers_in_nested_models_get_their_deltas_inside():
    model = small_models.nested()
    clip_model = insert_deltas(model, find_activations(model))
    stem = clip_model.get_layer("backbone").get_layer("stem")
    assert [layer.name for layer in stem.layers if "delta" in layer.name] == ["relu_delta"]


@pytest.mark.parametrize(
    ("head", "expected"),
    [("mean", lambda frames: frames.mean(axis=1)), ("last", lambda frames: frames[:, -1]), ("per-frame", lambda f: f)],
)
def test_the_head_makes_one_prediction_of_the_frames(head, expected):
    model, clips = small_models.plain(), small_models.clips()
    clip_model = insert_deltas(model, find_activations(model), IDENTITY, clip_output=head)
    np.testing.assert_allclose(
        clip_model.predict(clips, verbose=0), expected(frame_outputs(clip_model, clips)), rtol=1e-6
    )


def test_the_clip_length_is_free_or_fixed():
    model = small_models.plain()
    free = insert_deltas(model, find_activations(model))
    fixed = insert_deltas(model, find_activations(model), frames=4)
    assert free.input_shape == (None, None, 12, 10, 3)
    assert fixed.input_shape == (None, 4, 12, 10, 3)
    for length in (1, 2, 5):
        assert free.predict(small_models.clips((2, length, 12, 10, 3)), verbose=0).shape == (2, 5)


def test_delta_layers_see_time_and_not_the_other_clips():
    """A clip's prediction must not depend on the clips beside it in the batch."""
    model, clips = small_models.plain(), small_models.clips((3, 4, 12, 10, 3))
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.2))
    together = clip_model.predict(clips, verbose=0)
    alone = np.concatenate([clip_model.predict(clips[i : i + 1], verbose=0) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_large_step_holds_the_first_frame():
    model, clips = small_models.plain(), small_models.clips()
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=1e6))
    frames = frame_outputs(clip_model, clips)
    # Some processors compute equal frames of one batch with other last bits.
    np.testing.assert_allclose(frames, np.repeat(frames[:, :1], 3, axis=1), rtol=0, atol=1e-6)
    assert np.abs(frames[0, 0] - frames[1, 0]).max() > 1e-4
    np.testing.assert_allclose(frames[:, 0], model.predict(clips[:, 0], verbose=0), atol=1e-6)


def test_steps_may_differ_by_site():
    model = small_models.plain()
    steps = {"input": 8.0, "relu1": 0.25}
    deltas = delta_layers(insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=steps)))
    found = {name: float(layer.threshold) for name, layer in deltas.items()}
    assert found == pytest.approx({"input_delta": 8.0, "relu1_delta": 0.25, "conv2_delta": 1.0})


@pytest.mark.parametrize(("rescale", "scale", "offset"), [("0..1", 1 / 255, 0.0), ("-1..1", 1 / 127.5, -1.0)])
def test_rescaling_moves_into_the_clip_model(rescale, scale, offset):
    model, clips = small_models.plain(), small_models.clips()
    clip_model = insert_deltas(model, find_activations(model), IDENTITY, rescale=rescale)
    expected = model.predict((clips * scale + offset).reshape(6, 12, 10, 3), verbose=0).reshape(2, 3, -1)
    np.testing.assert_allclose(frame_outputs(clip_model, clips), expected, rtol=1e-5, atol=1e-7)
    names = [layer.name for layer in clip_model.layers]
    assert names.index("frame_rescaling") < names.index("input_delta")


@pytest.mark.parametrize("mode", ["caffe", "torch"])
def test_scalings_of_keras_applications_are_theirs(mode, tmp_path):
    model, clips = small_models.plain(), np.random.default_rng(0).uniform(0, 255, (2, 3, 12, 10, 3)).astype("float32")
    clip_model = insert_deltas(model, find_activations(model), IDENTITY, rescale=mode)
    scaled = keras.applications.imagenet_utils.preprocess_input(clips.copy(), mode=mode, data_format="channels_last")
    expected = model.predict(scaled.reshape(6, 12, 10, 3), verbose=0).reshape(2, 3, -1)
    np.testing.assert_allclose(frame_outputs(clip_model, clips), expected, rtol=1e-4, atol=1e-6)
    clip_model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(frame_outputs(again, clips), frame_outputs(clip_model, clips))


def test_a_scaling_of_colours_is_refused_for_grey():
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, activation="relu")(inputs))
    with pytest.raises(DeltafineError, match="is for RGB, and the model takes 1 channel"):
        insert_deltas(model, [], rescale="caffe")


def test_frozen_layers_and_frozen_nested_models_stay_frozen():
    model = small_models.nested()
    model.get_layer("backbone").get_layer("stem").trainable = False
    model.get_layer("head").trainable = False
    clip_model = insert_deltas(model, find_activations(model))
    backbone = clip_model.get_layer("backbone")
    assert not backbone.get_layer("stem").trainable
    assert not backbone.get_layer("stem").get_layer("conv").trainable
    assert backbone.trainable
    assert backbone.get_layer("conv").trainable
    assert not clip_model.get_layer("head").trainable


def test_a_layer_thawed_inside_a_frozen_model_keeps_its_own_flag():
    model = small_models.nested()
    model.get_layer("backbone").trainable = False
    model.get_layer("backbone").get_layer("conv").trainable = True
    backbone = insert_deltas(model, find_activations(model)).get_layer("backbone")
    assert not backbone.trainable
    assert backbone.get_layer("conv").trainable
    assert not backbone.get_layer("stem").trainable


def test_a_clip_model_trains_with_plain_keras():
    model, clips = small_models.nested(), small_models.clips()
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(penalty=0.1))
    clip_model.compile("sgd", keras.losses.MeanSquaredError())
    history = clip_model.fit(clips, np.zeros((2, 3)), epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_model_that_has_delta_layers_already_is_refused():
    model = small_models.plain()
    clip_model = insert_deltas(model, find_activations(model))
    with pytest.raises(DeltafineError, match="already has delta layers"):
        find_activations(clip_model)
    with pytest.raises(DeltafineError, match="already has delta layers"):
        insert_deltas(clip_model, find_activations(model))


def test_wrong_arguments_are_refused_in_one_sentence():
    model = small_models.plain()
    sites = find_activations(model)
    with pytest.raises(DeltafineError, match="clip_output must be one of"):
        insert_deltas(model, sites, clip_output="median")
    with pytest.raises(DeltafineError, match="rescale must be"):
        insert_deltas(model, sites, rescale="0..2")
    with pytest.raises(DeltafineError, match="at least one frame"):
        insert_deltas(model, sites, frames=0)
    with pytest.raises(DeltafineError, match="No place for a delta layer is selected"):
        insert_deltas(model, [site for site in select_sites(sites, at=["relu1"]) if not site.selected])
