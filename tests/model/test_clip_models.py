"""Models that take clips already: rewritten as they stand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deltafine.errors import DeltafineError
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.exporting.tflite import compare, to_tflite
from deltafine.measurement import Probe
from deltafine.measurement.collector import Collector
from deltafine.model import (
    DeltaSettings,
    coverage,
    delta_layers,
    dense_macs,
    find_activations,
    insert_deltas,
    mac_layers,
    select_sites,
)
from tests.model import small_models
from tests.model.comparing import IDENTITY

SHAPE = (4, 12, 10, 3)


def backbone():
    inputs = keras.Input(SHAPE[1:])
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv2")(x)))
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="gap")(x), name="backbone")


def of_backbone(length: int | None = 4):
    inputs = keras.Input((length, *SHAPE[1:]), name="clip")
    x = layers.TimeDistributed(backbone(), name="frames")(inputs)
    x = layers.TimeDistributed(layers.Dense(5, activation="relu"), name="features")(x)
    x = layers.LSTM(6, name="recurrent")(x)
    x = layers.Dense(4, activation="relu", name="hidden")(x)
    return small_models.randomise(keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x)))


def of_3d_convolutions():
    return small_models.randomise(
        keras.Sequential(
            [
                keras.Input(SHAPE),
                layers.Conv3D(4, 3, strides=(2, 1, 1), padding="same", activation="relu", name="conv"),
                layers.MaxPooling3D((1, 2, 2)),
                layers.Conv3D(4, (1, 3, 3), name="conv2"),
                layers.ReLU(name="relu"),
                layers.Conv3D(4, (2, 1, 1), name="conv3"),
                layers.GlobalAveragePooling3D(name="gap"),
                layers.Dense(3, activation="softmax", name="head"),
            ]
        )
    )


def of_recurrent_convolutions():
    inputs = keras.Input(SHAPE)
    x = layers.ConvLSTM2D(4, 3, return_sequences=True, name="recurrent")(inputs)
    x = layers.Conv3D(4, (1, 3, 3), activation="relu", name="conv")(x)
    x = layers.ConvLSTM2D(2, 3, name="recurrent2")(x)
    return small_models.randomise(keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x))))


MODELS = [of_backbone, of_3d_convolutions, of_recurrent_convolutions]


@pytest.mark.parametrize("make", MODELS)
def test_identity_layers_change_nothing(make, tmp_path):
    model, clips = make(), small_models.clips((2, *SHAPE), high=1.0)
    clip_model = insert_deltas(model, find_activations(model), IDENTITY)
    expected = model.predict(clips, verbose=0)
    # TimeDistributed ran frame by frame and now runs all at once: the last bit may differ with the batch size.
    np.testing.assert_allclose(clip_model.predict(clips, verbose=0), expected, rtol=0, atol=2e-7)
    clip_model.save(tmp_path / "clips.keras")
    loaded = keras.models.load_model(tmp_path / "clips.keras")
    np.testing.assert_array_equal(loaded.predict(clips, verbose=0), clip_model.predict(clips, verbose=0))
    assert set(delta_layers(clip_model)) == {site.delta_name for site in find_activations(model) if site.selected}


def test_a_frozen_recurrent_layer_stays_frozen_and_the_thresholds_of_its_states_are_trained():
    model = of_recurrent_convolutions()
    model.get_layer("recurrent").trainable = False
    model.get_layer("recurrent2").cell.trainable = False
    clip_model = insert_deltas(model, find_activations(model))
    for name in ("recurrent", "recurrent2"):
        layer = clip_model.get_layer(name)
        assert not any(weight.trainable for weight in layer.cell.weights)
        assert layer.state_delta.log_threshold.trainable
        for found, expected in zip(layer.cell.weights, model.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_time_distributed_is_replaced_by_folding():
    model = of_backbone()
    sites = find_activations(model)
    assert [site.name for site in sites if site.selected] == ["input", "frames/conv", "frames/relu", "features"]
    clip_model = insert_deltas(model, sites)
    assert [layer.name for layer in clip_model.layers][:9] == [
        "clip", "input_delta", "frames_fold", "frames", "frames_unfold", "features_fold", "features",
        "features_activation", "features_delta",
    ]  # fmt: skip
    assert not any(isinstance(layer, layers.TimeDistributed) for layer in clip_model.layers)
    assert list(delta_layers(clip_model)) == ["input_delta", "frames/conv_delta", "frames/relu_delta", "features_delta"]


def test_layers_inside_time_distributed_count_once_per_frame():
    entries = {entry.path: entry for entry in mac_layers(of_backbone())}
    once = {entry.path: entry for entry in mac_layers(backbone())}
    assert entries["frames/conv"].repeats == 4
    assert entries["frames/conv"].dense_macs == 4 * once["conv"].dense_macs
    assert entries["features"].dense_macs == 4 * 4 * 5


def test_what_comes_after_time_is_summed_up_has_no_frame_to_compare_with():
    reasons = {site.name: site.reason for site in find_activations(of_backbone())}
    assert reasons["hidden"].startswith("time is summed up")


def test_the_consumers_of_a_site_are_found_through_time():
    by_name = {site.name: site for site in find_activations(of_backbone())}
    assert by_name["input"].consumers == ("frames/conv",)
    assert by_name["frames/relu"].consumers == ("features",)
    assert by_name["features"].consumers == ("recurrent",)
    assert 0.99 < coverage(by_name.values()) <= 1.0


def test_the_clip_length_comes_from_the_model():
    model = of_3d_convolutions()
    assert insert_deltas(model, find_activations(model)).input_shape == (None, *SHAPE)
    with pytest.raises(DeltafineError, match="takes clips of 4 frames, not 8"):
        insert_deltas(model, find_activations(model), frames=8)


def test_a_model_of_any_clip_length_gets_the_length_that_is_asked_for():
    model = of_backbone(None)
    with pytest.raises(DeltafineError, match="takes any size"):
        find_activations(model)
    sites = find_activations(model, frame_shape=SHAPE)
    assert insert_deltas(model, sites, frames=4).input_shape == (None, *SHAPE)
    assert insert_deltas(model, sites).input_shape == (None, None, *SHAPE[1:])


def test_recurrent_layers_are_covered_with_the_macs_of_input_and_state():
    entries = {entry.path: entry for entry in mac_layers(of_backbone())}
    assert entries["recurrent"].covered
    assert entries["recurrent"].dense_macs == 4 * 4 * 6 * (5 + 6)
    first = {entry.path: entry for entry in mac_layers(of_recurrent_convolutions())}["recurrent"]
    of_state = layers.Conv2D(16, 3, padding="same")
    of_state.build((None, 10, 8, 4))
    assert first.dense_macs == 4 * (10 * 8 * 9 * 3 * 16 + dense_macs(of_state, (10, 8, 4)))


def test_where_time_is_summed_up_no_delta_layer_can_be_chosen():
    model = of_backbone()
    by_name = {site.name: site for site in select_sites(find_activations(model), at=["features", "hidden", "head"])}
    assert by_name["features"].selected
    assert not by_name["hidden"].selected
    assert by_name["hidden"].reason.startswith("time is summed up")
    with pytest.raises(DeltafineError, match="'hidden' time is summed up"):
        select_sites([site for site in find_activations(model) if site.name == "hidden"], at=["hidden"])


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("rule", ["send-on-delta", "quantize"])
def test_a_clip_model_is_exported_with_plain_layers(make, rule, tmp_path):
    model, clips = make(), small_models.clips((2, *SHAPE), high=1.0)
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(rule=rule, initial_threshold=0.1))
    for form, expected in (("stripped", model), ("quantized", clip_model)):
        export_plain(clip_model, form).save(tmp_path / "plain.keras")
        plain = keras.models.load_model(tmp_path / "plain.keras")
        assert not delta_layers(plain)
        found, wanted = plain.predict(clips, verbose=0), expected.predict(clips, verbose=0)
        if form == "quantized" and make is not of_recurrent_convolutions:
            np.testing.assert_array_equal(found, wanted)
        else:
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-7)
    assert not np.allclose(found, model.predict(clips, verbose=0))


def test_a_recurrent_clip_model_becomes_a_tflite_file_and_one_without_tflite_operations_is_refused():
    clip_models = [
        insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.1))
        for model in (of_backbone(), of_3d_convolutions())
    ]
    exported = export_plain(clip_models[0], "quantized")
    agreement = compare(to_tflite(exported), exported, frames_of(small_models.clips((2, *SHAPE), high=1.0), exported))
    assert agreement.frames == 2
    assert agreement.largest_difference < 1e-5
    with pytest.raises(DeltafineError, match="operations that TFLite has not: MaxPool3D"):
        to_tflite(export_plain(clip_models[1]))


def changed_macs(clips, kernel_counts):
    """Sum of the MACs of the elements that differ from the frame before, by hand: (batch, steps)."""
    changed = clips[:, 1:] != clips[:, :-1]
    found = (changed * kernel_counts[1:]).sum(axis=(2, 3, 4))
    return np.concatenate([np.zeros((len(clips), 1), int), found], axis=1)


def test_macs_of_a_model_that_takes_clips_are_those_of_the_changed_elements_in_every_step():
    model = of_3d_convolutions()
    probe = Probe(insert_deltas(model, []))
    clips = small_models.clips((2, 8, *SHAPE[1:]), high=4.0).round()
    pieces = [probe.run(clips[:, :4])]
    pieces.append(probe.run(clips[:, 4:], pieces[0].state))
    first = probe.layers[0]
    assert (probe.window, first.name, len(first.step_macs)) == (4, "conv", 4)
    # Every weight of a kernel of ones counts one: the gradient with respect to the input is the fan-out.
    ones = model.get_layer("conv")
    with tf.GradientTape() as tape:
        inputs = tf.ones((1, *SHAPE))
        tape.watch(inputs)
        total = tf.reduce_sum(keras.ops.conv(inputs, tf.ones_like(ones.kernel), ones.strides, ones.padding))
    fan = tape.gradient(total, inputs)[0].numpy().astype(int)
    assert first.dense_macs == fan.sum() == sum(first.step_macs)
    np.testing.assert_array_equal(pieces[0].counts[0].macs_delta, changed_macs(clips[:, :4], fan))
    crossing = (clips[:, 4] != clips[:, 3]) * fan[0]
    np.testing.assert_array_equal(pieces[1].counts[0].macs_delta[:, 0], crossing.sum(axis=(1, 2, 3)))
    np.testing.assert_array_equal(pieces[1].counts[0].macs_delta[:, 1:], changed_macs(clips[:, 4:], fan)[:, 1:])


def test_a_layer_behind_the_end_of_time_counts_once_a_window_and_dense_in_the_first():
    probe = Probe(insert_deltas(of_backbone(), []))
    clips = small_models.clips((1, *SHAPE), high=1.0)
    fresh, still = Collector(probe), Collector(probe)
    piece = probe.run(clips)
    fresh.update(piece)
    head = {layer.name: layer for layer in fresh.layers()}["head"]
    assert head.mac_density == 1.0
    # The same picture over and over, and the window again: nothing changes any more.
    frozen = np.repeat(clips[:, :1], 4, axis=1)
    before = probe.run(frozen)
    still.update(probe.run(frozen, before.state))
    found = {layer.name: layer.mac_density for layer in still.layers()}
    assert found.pop("recurrent/state") > 0  # it begins with zeros in every window, and goes from there
    assert found.keys() == {"frames/conv", "frames/conv2", "features", "recurrent/input", "hidden", "head"}
    assert max(found.values()) < 0.01  # some processors compute equal frames of one batch with other last bits
    assert fresh.operations().dense_macs == sum(layer.dense_macs for layer in fresh.layers())
    assert fresh.operations().dense_macs == sum(entry.dense_macs for entry in mac_layers(of_backbone()))
