"""Models in half precision: their answers, what is counted in them, and what they become elsewhere."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from deltafine import refine
from deltafine.errors import DeltafineError
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.exporting.tflite import compare, to_tflite
from deltafine.measurement.output import are_probabilities
from deltafine.measurement.probe import Probe
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from deltafine.model.clip_model import with_time
from deltafine.model.precision import in_single_precision
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.runtime import DeltaRuntime
from tests.model.small_models import clips, randomise
from tests.small_runs import FAST, write_small_videos

POLICIES = ["mixed_bfloat16", "mixed_float16", "bfloat16"]


def mixed(policy):
    """As most people write it: the policy is that of every layer, and the answers are in half precision, too."""
    options = {"dtype": policy}
    inputs = keras.Input((12, 10, 3))
    x = layers.Rescaling(1 / 255, **options)(inputs)
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1", **options)(x)
    x = layers.BatchNormalization(**options)(x)
    x = layers.EinsumDense("bhwc,wcd->bhwd", (5, 4, 4), activation="relu", name="left_to_keras", **options)(x)
    x = layers.GlobalAveragePooling2D(**options)(x)
    return randomise(keras.Model(inputs, layers.Dense(5, activation="softmax", name="head", **options)(x)))


def refined(policy, **settings):
    model = mixed(policy)
    return insert_deltas(model, find_activations(model), DeltaSettings(**{"initial_threshold": 0.01, **settings}))


@pytest.mark.parametrize("policy", POLICIES)
def test_answers_are_measured_in_single_precision_and_are_those_of_the_model(policy):
    clip_model = refined(policy)
    answers = with_time(clip_model).predict_on_batch(clips())
    assert answers.dtype == np.float32
    frames = keras.Model(clip_model.inputs, clip_model.get_layer("frame_predictions").output)
    np.testing.assert_array_equal(answers, np.asarray(frames.predict_on_batch(clips()), np.float32))


@pytest.mark.parametrize("policy", POLICIES)
def test_counts_are_the_same_on_every_device_and_those_of_the_values(policy):
    clip_model = refined(policy, initial_threshold=0.2)
    probes = [Probe(clip_model, in_graph=in_graph) for in_graph in (False, True)]
    pieces = [probe.run(clips()) for probe in probes]
    for one, other in zip(pieces[0].counts, pieces[1].counts, strict=True):
        np.testing.assert_array_equal(one.macs_delta, other.macs_delta)
        np.testing.assert_array_equal(one.nonzero, other.nonzero)
    second = keras.Model(clip_model.inputs, clip_model.get_layer("conv1_delta").output)
    values = np.asarray(second.predict_on_batch(clips()), np.float32).reshape(2, 3, -1)
    delta = next(i for i, place in enumerate(probes[0].deltas) if place.name == "conv1_delta")
    found = pieces[0].counts[len(probes[0].layers) + delta].changed
    np.testing.assert_array_equal(found[:, 1:], (values[:, 1:] != values[:, :-1]).sum(-1))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_runtime_computes_from_the_weights_in_single_precision(policy):
    clip_model = refined(policy)
    runtime, video = DeltaRuntime(clip_model, engine="numpy"), clips()[0]
    assert [operation.name for operation in runtime.plan.unknown] == ["left_to_keras"]
    found = np.stack([runtime.step(frame) for frame in video])
    exact = with_time(in_single_precision(clip_model)).predict_on_batch(video[None])[0]
    np.testing.assert_allclose(found, exact, atol=0.02)  # what is left to Keras is rounded as the model has it


def test_double_precision_is_refused_by_the_runtime():
    inputs = keras.Input((12, 10, 3))
    with pytest.raises(DeltafineError, match="float64"):
        compile_model(keras.Model(inputs, layers.Conv2D(2, 3, dtype="float64", name="deep")(inputs)))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("form", ["stripped", "quantized"])
def test_a_model_in_half_precision_becomes_a_tflite_file_in_single(policy, form):
    exported = export_plain(refined(policy, rule="quantize"), form)
    agreement = compare(to_tflite(exported), exported, frames_of(clips(), exported))
    assert agreement.largest_difference < 0.02


def test_in_single_precision_nothing_is_in_half_any_more():
    inputs = keras.Input((6, 4))
    recurrent = layers.LSTM(3, return_sequences=True, dtype="mixed_bfloat16")
    x = layers.Bidirectional(recurrent, dtype="mixed_bfloat16")(inputs)
    inner = keras.Input((6, 6))
    block = keras.Model(inner, layers.Dense(2, dtype="mixed_float16")(inner))
    model = randomise(keras.Model(inputs, ops.cast(block(ops.cast(x, "float16")), "bfloat16")))
    made = in_single_precision(model)
    assert {weight.dtype for weight in made.weights} == {"float32"}
    batch = clips((2, 6, 4), high=1.0)
    expected = tf.cast(model(batch), tf.float32)
    assert made(batch).dtype == tf.float32
    np.testing.assert_allclose(made(batch), expected, atol=0.02)
    plain = keras.Model(inner, layers.Dense(2)(inner))
    assert in_single_precision(plain) is plain


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_probabilities_are_known_in_half_precision_too(kind):
    logits = np.random.default_rng(0).normal(0, 2, (50, 7))
    rounded = tf.cast(tf.nn.softmax(tf.cast(logits, kind)), tf.float32).numpy()
    assert are_probabilities(rounded)
    assert not are_probabilities(tf.cast(tf.cast(logits, kind), tf.float32).numpy())
    assert not are_probabilities(rounded * 1.1)
    exact = tf.nn.softmax(logits).numpy().astype("float32")
    assert are_probabilities(exact)
    assert not are_probabilities(exact * 1.01)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_in_half_precision_is_refined_and_measured_like_any_other(policy, tmp_path):
    options = {"dtype": policy}
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, strides=2, activation="relu", **options)(layers.Rescaling(1 / 255, **options)(inputs))
    x = layers.GlobalAveragePooling2D(**options)(layers.Conv2D(4, 3, activation="relu", **options)(x))
    keras.Model(inputs, layers.Dense(2, activation="softmax", **options)(x)).save(tmp_path / "mixed.keras")
    videos = write_small_videos(tmp_path / "videos", per_class=2)
    report = refine(tmp_path / "mixed.keras", videos, tmp_path / "run", epochs=1, **FAST)
    assert report.model.coverage == 1.0
    assert 0 < report.models["refined"].streams.operations.mac_density < 1
    assert report.models["refined"].streams.frame_accuracy is not None
