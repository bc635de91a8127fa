"""The layer around the rules: shapes, steps, precision, masks, configuration, broken input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.layers import GRANULARITIES, RULES, DeltaActivation
from deltafine.layers.time import FoldTime
from tests.layers.one_by_one import held_frame_by_frame

STEP_SHAPES = {"layer": (), "channel": (3,), "neuron": (4, 3)}
STEPS = {name: 0.3 + 0.1 * np.arange(int(np.prod(shape))).reshape(shape) for name, shape in STEP_SHAPES.items()}


def walk(shape=(2, 6, 4, 3), seed=0):
    return np.random.default_rng(seed).normal(0, 0.4, shape).cumsum(axis=1).astype("float32")


@pytest.mark.parametrize("threshold_per", STEP_SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
def test_folded_frames_give_what_clips_give_and_both_what_the_loop_gives(rule, granularity, threshold_per):
    layer = DeltaActivation(
        rule=rule, granularity=granularity, threshold_per=threshold_per, initial_threshold=STEPS[threshold_per]
    )
    x = walk()
    y = layer(x)
    assert y.shape == x.shape
    assert layer.log_threshold.shape == STEP_SHAPES[threshold_per]
    np.testing.assert_allclose(layer.threshold, STEPS[threshold_per], rtol=1e-6)
    frames, clock = FoldTime()(x)
    np.testing.assert_array_equal(layer(frames, clock), np.reshape(y, frames.shape))
    np.testing.assert_array_equal(y, held_frame_by_frame(x, np.asarray(layer.threshold), rule, granularity, None))


@pytest.mark.parametrize("threshold_per", STEP_SHAPES)
def test_a_folded_layer_has_the_steps_of_one_frame(threshold_per):
    clips = keras.Input((None, 4, 3))
    frames, clock = FoldTime()(clips)
    layer = DeltaActivation(threshold_per=threshold_per)
    assert layer(frames, clock).shape == frames.shape
    assert layer.log_threshold.shape == STEP_SHAPES[threshold_per]


@pytest.mark.parametrize("rule", RULES)
def test_frames_of_any_size_can_be_folded(rule):
    clips = keras.Input((None, None, None, 3))
    model = keras.Model(clips, DeltaActivation(rule=rule, initial_threshold=0.5)(*FoldTime()(clips)))
    for shape in ((2, 5, 4, 3, 3), (1, 20, 2, 2, 3)):
        x = walk(shape)
        expected = held_frame_by_frame(x, np.float32(0.5), rule, "element", None).reshape(-1, *shape[2:])
        np.testing.assert_allclose(model(x), expected, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("rule", "length"), [*[("send-on-delta", n) for n in (1, 20, None)], *[(r, 6) for r in RULES]])
def test_any_length_runs_in_a_graph_compiled_or_not(rule, length, jit):
    layer = DeltaActivation(rule=rule, initial_threshold=0.5, penalty=1.0, random_start=False)

    def call_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.square(y)) + tf.add_n(layer.losses)
        return y, tape.gradient(loss, x)

    x = tf.constant(walk((2, length or 7, 4, 3)))
    y, gradient = call_and_gradient(x)
    in_graph = tf.function(call_and_gradient, jit_compile=jit, input_signature=[tf.TensorSpec((None, length, 4, 3))])
    y_in_graph, gradient_in_graph = in_graph(x)
    np.testing.assert_array_equal(y_in_graph, y)
    np.testing.assert_allclose(gradient_in_graph, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, None])
@pytest.mark.parametrize("rule", sorted(set(RULES) - {"l1"}))
def test_clips_of_one_frame_have_no_penalty_and_nothing_undefined(rule, length):
    layer = DeltaActivation(rule=rule, penalty=5.0, initial_threshold=0.5)

    @tf.function(input_signature=[tf.TensorSpec((None, length, 4, 3))])
    def loss_and_gradients(x):
        with tf.GradientTape() as tape:
            y = layer(x, training=True)
            loss = tf.reduce_sum(layer.losses)
            total = loss + tf.reduce_sum(y)
        return loss, tape.gradient(total, layer.log_threshold), y

    loss, gradient, y = loss_and_gradients(walk((2, 1, 4, 3)))
    assert float(loss) == 0
    assert gradient is None if rule == "identity" else np.isfinite(gradient)
    assert np.isfinite(y).all()
    assert float(layer.events.result()) == 0


@pytest.mark.parametrize("logarithm", [-np.inf, -1e30, -100.0, 0.0, 100.0, 1e30, np.inf])
def test_a_step_is_positive_and_finite_whatever_is_assigned(logarithm):
    layer = DeltaActivation(rule="quantize")
    layer.build((None, 6, 4, 3))
    layer.log_threshold.assign(logarithm)
    assert 0 < float(layer.threshold) < np.inf
    assert np.isfinite(layer(walk())).all()


@pytest.mark.parametrize("step", [0, -1.0, np.nan, np.inf, [1.0, 0.0, 1.0]])
def test_a_step_that_is_not_positive_and_finite_is_refused(step):
    with pytest.raises(ValueError, match="initial_threshold must be positive"):
        DeltaActivation(initial_threshold=step)
    layer = DeltaActivation(threshold_per="channel", initial_threshold=0.5)
    layer.build((None, 6, 4, 3))
    with pytest.raises(ValueError, match="threshold must be positive"):
        layer.set_threshold(step)
    np.testing.assert_allclose(layer.threshold, [0.5] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rule": "sigma"}, "rule must be one of send-on-delta"),
        ({"granularity": "voxel"}, "granularity must be one of element, pixel"),
        ({"threshold_per": "filter"}, "threshold_per must be one of layer, channel, neuron"),
    ],
)
def test_an_unknown_word_is_refused_with_the_known_ones(arguments, named):
    with pytest.raises(ValueError, match=named):
        DeltaActivation(**arguments)


def test_steps_per_neuron_need_a_known_frame_size():
    with pytest.raises(ValueError, match=r"threshold_per='neuron' needs a static shape"):
        DeltaActivation(threshold_per="neuron")(keras.Input((5, None, 3)))


def test_steps_are_set_as_given_and_trained_only_on_request():
    layer = DeltaActivation(threshold_per="channel", train_threshold=False)
    layer.build((None, 6, 4, 3))
    layer.set_threshold([0.1, 2.0, 30.0])
    np.testing.assert_allclose(layer.threshold, [0.1, 2.0, 30.0], rtol=1e-6)
    assert layer.trainable_variables == []
    trained = DeltaActivation()
    trained.build((None, 6, 4, 3))
    assert [variable.name for variable in trained.trainable_variables] == ["log_threshold"]
    for rule in ("identity", "l1"):  # have no use for a step
        layer = DeltaActivation(rule=rule)
        layer.build((None, 6, 4, 3))
        assert layer.trainable_variables == []


@pytest.mark.parametrize("policy", ["float32", "float64", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_the_output_is_what_was_sent_to_the_bit_in_every_precision(rule, training, policy):
    layer = DeltaActivation(rule=rule, initial_threshold=0.3, dtype=policy, penalty=1.0, random_start=False)
    x = tf.cast(walk((4, 6, 8, 3)), layer.compute_dtype)
    y = layer(x, training=training)
    assert y.dtype == layer.compute_dtype
    working = tf.float64 if policy == "float64" else tf.float32
    sent = RULES[rule].send(tf.cast(x, working), tf.cast(layer.threshold, working), "element")
    np.testing.assert_array_equal(y, tf.cast(sent, layer.compute_dtype))
    assert layer.log_threshold.dtype == layer.penalty.dtype == "float32"


def test_a_model_in_double_precision_keeps_all_its_digits():
    x = 1 + 1e-12 * walk().astype("float64")
    np.testing.assert_array_equal(DeltaActivation(rule="identity", dtype="float64")(x), x)


@pytest.mark.parametrize("policy", ["uint8", "float32"])
def test_pixels_in_bytes_pass(policy):
    x = np.random.default_rng(0).integers(0, 255, (2, 5, 4, 3)).astype("uint8")
    layer = DeltaActivation(initial_threshold=4.0, dtype=policy)
    symbolic = layer(keras.Input((5, 4, 3), dtype="uint8"))
    y = layer(x)
    assert y.dtype == symbolic.dtype == policy
    np.testing.assert_array_equal(y, held_frame_by_frame(x.astype("float32"), 4.0, "send-on-delta", "element", None))
    started = layer(np.full((2, 1, 4, 3), 255, "uint8"), training=True).numpy().astype(int)
    assert (started > 250).all()  # noise above the largest byte does not wrap around


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
def test_a_broken_value_shows_in_the_output(rule, granularity, training):
    x = walk()
    x[0, 3, 1, 2] = np.nan
    y = DeltaActivation(rule=rule, granularity=granularity)(x, training=training)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


@pytest.mark.parametrize("folded", [False, True])
def test_masks_pass_through(folded):
    x = walk((10, 5, 3))
    x[:, 3:] = 0
    layer = DeltaActivation(initial_threshold=0.5)
    clock = [keras.ops.arange(5, dtype="int32")] if folded else []
    inputs = keras.Input((5, 3))
    lstm = keras.layers.LSTM(4)
    model = keras.Model(inputs, lstm(layer(keras.layers.Masking()(inputs), *clock)))
    masked, unmasked = model(x), lstm(layer(x, *clock))
    np.testing.assert_allclose(masked, lstm(layer(x, *clock)[:, :3]), rtol=1e-6)
    assert np.abs(masked - unmasked).max() > 1e-3


ARGUMENTS = {
    "rule": "quantize", "granularity": "pixel", "threshold_per": "channel", "initial_threshold": [0.1, 0.2, 0.3],
    "penalty": 0.25, "random_start": False, "train_threshold": False, "seed": 7, "name": "before_pooling",
"dtype": "mixed_bfloat16", }  # fmt: skip


def test_the_configuration_holds_every_argument():
    layer = DeltaActivation(**ARGUMENTS)
    config = layer.get_config()
    assert {**config, "dtype": layer.dtype_policy.name} == {**ARGUMENTS, "trainable": True}
    again = DeltaActivation.from_config(config)
    assert again.get_config() == config
    defaults = DeltaActivation().get_config()
    assert all(config[key] != defaults[key] for key in ARGUMENTS)


@pytest.mark.parametrize("threshold_per", STEP_SHAPES)
def test_a_saved_layer_loads_with_its_steps_and_its_penalty(threshold_per, tmp_path):
    clips = keras.Input((None, 4, 3))
    layer = DeltaActivation(threshold_per=threshold_per, initial_threshold=STEPS[threshold_per].tolist(), name="delta")
    model = keras.Model(clips, layer(*FoldTime()(clips)))
    layer.set_threshold(2 * STEPS[threshold_per])
    layer.penalty.assign(0.75)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_layer("delta").log_threshold, layer.log_threshold)
    assert float(loaded.get_layer("delta").penalty) == 0.75
    assert loaded.get_layer("delta").get_config() == layer.get_config()
    np.testing.assert_array_equal(loaded(walk()), model(walk()))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_training_starts_within_one_step_of_the_first_frame_and_anew_each_time(granularity):
    layer = DeltaActivation(initial_threshold=0.5, granularity=granularity, seed=3)
    x = walk((8, 1, 16, 3))
    starts = [np.asarray(layer(x, training=True)) for _ in range(2)]
    for start in starts:
        assert (np.abs(start - x) < 0.5).all()
        assert np.abs(start - x).mean() == pytest.approx(0.25, rel=0.1)  # spread over the whole step
    assert (starts[0] != starts[1]).mean() > 0.99
    np.testing.assert_array_equal(layer(x), x)
    twin = DeltaActivation(initial_threshold=0.5, granularity=granularity, seed=3)
    np.testing.assert_array_equal(twin(x, training=True), starts[0])


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("frames", [2, 6, 20])
def test_training_starts_from_what_the_clip_seen_backwards_leaves_behind(granularity, frames):
    settings = {"initial_threshold": 0.5, "granularity": granularity, "seed": 3}
    x = walk((2, frames, 4, 3))
    off_the_last = np.asarray(DeltaActivation(**settings)(x[:, -1:], training=True))[:, 0]
    backwards = held_frame_by_frame(x[:, ::-1], 0.5, "send-on-delta", granularity, off_the_last)
    expected = held_frame_by_frame(x, 0.5, "send-on-delta", granularity, backwards[:, -1])
    np.testing.assert_array_equal(DeltaActivation(**settings)(x, training=True), expected)


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"send-on-delta"}))
def test_rules_without_memory_start_the_same_in_training(rule):
    layer = DeltaActivation(rule=rule, initial_threshold=0.5)
    np.testing.assert_array_equal(layer(walk(), training=True), layer(walk()))


def test_without_a_random_start_training_starts_from_the_first_frame():
    layer = DeltaActivation(random_start=False)
    np.testing.assert_array_equal(layer(walk(), training=True), layer(walk()))
