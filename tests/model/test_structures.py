"""Every structure that a Keras graph can have, with identity layers after every activation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from deltafine.errors import DeltafineError
from deltafine.model import DeltaSettings, delta_layers, find_activations, insert_deltas
from tests.model import small_models
from tests.model.comparing import (
    assert_frames_identical,
    assert_identical_also_when_reloaded,
    with_identity_deltas,
)

randomise, clips = small_models.randomise, small_models.clips


@keras.saving.register_keras_serializable(package="tests")
class NamedModel(keras.Model):
    """A functional subclass: its own class, the graph as the functional API made it."""

    def greet(self) -> str:
        return "hello"


@keras.saving.register_keras_serializable(package="tests")
class DoublingModel(keras.Model):
    """A functional subclass that computes something else than its graph."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def convolution(inputs, name="conv", **options):
    return layers.Conv2D(4, 3, padding="same", name=name, **options)(inputs)


def ends(x, name="head"):
    return layers.Dense(3, name=name)(layers.Flatten()(x))


def model_of(function):
    inputs = keras.Input((12, 10, 3))
    return randomise(keras.Model(inputs, ends(function(inputs))))


@pytest.mark.parametrize("name", ["shared_layer", "gated"])
def test_shared_layers_and_gates(name, tmp_path):
    assert_identical_also_when_reloaded(getattr(small_models, name)(), clips(), tmp_path)


def test_a_shared_backbone_keeps_one_set_of_layers(tmp_path):
    model = small_models.siamese()
    pair = [clips(seed=1), clips(seed=2)]
    clip_model = assert_identical_also_when_reloaded(model, pair, tmp_path)
    assert list(delta_layers(clip_model)) == [
        "input_left_delta", "input_right_delta", "backbone/conv_delta", "backbone/relu_delta",
    ]  # fmt: skip
    assert len(clip_model.get_layer("backbone").weights) == len(model.get_layer("backbone").weights) + 4


def test_a_dict_of_inputs_and_a_dict_of_outputs(tmp_path):
    left, right = keras.Input((12, 10, 3), name="left"), keras.Input((6,), name="right")
    x = ends(convolution(left, activation="relu"), "middle")
    y = layers.Dense(3, activation="tanh", name="dense")(right)
    outputs = {"sum": layers.Add()([x, y]), "class": layers.Dense(2, activation="softmax", name="class_head")(y)}
    model = randomise(keras.Model({"left": left, "right": right}, outputs))
    pair = {"left": clips(), "right": clips((2, 3, 6), high=1.0)}
    clip_model = assert_identical_also_when_reloaded(model, pair, tmp_path)
    names = [layer.name for layer in clip_model.layers if "predictions" in layer.name]
    assert sorted(names) == ["frame_predictions_class", "frame_predictions_sum"]
    averaged = with_identity_deltas(model, clip_output="mean").predict(pair, verbose=0)
    assert averaged["class"].shape == (2, 2)


def test_a_list_of_outputs(tmp_path):
    inputs = keras.Input((12, 10, 3))
    x = convolution(inputs, activation="relu")
    model = randomise(keras.Model(inputs, [ends(x, "first"), layers.Activation("sigmoid", name="map")(x)]))
    assert_identical_also_when_reloaded(model, clips(), tmp_path)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (keras.activations.relu, "relu"),
        (ops.relu, "relu"),
        (ops.relu6, "relu6"),
        (ops.silu, "silu"),
        (ops.gelu, "gelu"),
        (ops.tanh, "tanh"),
        (lambda x: x * ops.sigmoid(x), "sigmoid"),
    ],
)
def test_operations_on_tensors(function, kind, tmp_path):
    model = model_of(lambda x: function(convolution(x)))
    assert kind in [site.kind for site in find_activations(model)]
    assert_identical_also_when_reloaded(model, clips(), tmp_path)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (layers.PReLU, "prelu"),
        (layers.LeakyReLU, "leaky_relu"),
        (layers.ELU, "elu"),
        (lambda: layers.ReLU(max_value=6.0), "relu"),
        (lambda: layers.Activation("hard_silu"), "hard_silu"),
    ],
)
def test_activation_layers(layer, kind, tmp_path):
    model = model_of(lambda x: layer()(convolution(x)))
    assert kind in [site.kind for site in find_activations(model)]
    assert_identical_also_when_reloaded(model, clips(), tmp_path)


def test_a_layer_fused_into_another_as_its_activation(tmp_path):
    model = model_of(lambda x: convolution(x, activation=layers.LeakyReLU(0.3, name="slopes")))
    assert "leaky_relu" in [site.kind for site in find_activations(model)]
    assert_identical_also_when_reloaded(model, clips(), tmp_path)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(4, 3, activation="relu"),
        lambda: layers.DepthwiseConv2D(3, activation="relu"),
        lambda: layers.SeparableConv2D(4, 3, activation="relu"),
        lambda: layers.Conv2DTranspose(4, 3, activation="relu"),
        lambda: layers.Dense(4, activation="relu"),
        lambda: layers.EinsumDense("abcd,de->abce", (12, 10, 4), activation="relu"),
    ],
)
def test_fused_activations_are_split_off(layer, tmp_path):
    clip_model = assert_identical_also_when_reloaded(model_of(lambda x: layer()(x)), clips(), tmp_path)
    assert any(one.name.endswith("_activation") for one in clip_model.layers)


def test_a_functional_subclass_is_rewritten_by_its_graph():
    inputs = keras.Input((12, 10, 3))
    model = randomise(NamedModel(inputs, ends(convolution(inputs, activation="relu"))))
    assert_frames_identical(model, with_identity_deltas(model), clips())


def test_a_functional_subclass_with_its_own_call_is_refused():
    inputs = keras.Input((12, 10, 3))
    model = DoublingModel(inputs, ends(convolution(inputs, activation="relu")))
    with pytest.raises(DeltafineError, match=r"DoublingModel, which overrides call\(\)"):
        find_activations(model)
    with pytest.raises(DeltafineError, match="DoublingModel"):
        find_activations(keras.Model(inputs, layers.ReLU()(model(inputs))))


def test_a_nested_model_called_in_inference_mode_stays_so(tmp_path):
    base_inputs = keras.Input((12, 10, 3))
    base = keras.Model(base_inputs, layers.BatchNormalization(name="norm")(convolution(base_inputs, activation="relu")))
    model = model_of(lambda x: base(x, training=False))
    assert_identical_also_when_reloaded(model, clips(), tmp_path)


@pytest.mark.parametrize("training", [None, False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_an_explicit_training_argument_means_what_it_means_in_the_original(training, outside):
    def network(x):
        x = layers.BatchNormalization(name="norm")(convolution(x, activation="relu"), training=training)
        return layers.ReLU()(x)

    model = model_of(network)
    clip_model, batch = with_identity_deltas(model), clips()
    model(batch.reshape(6, 12, 10, 3), training=outside)
    clip_model(batch, training=outside)
    expected, found = model.get_layer("norm"), clip_model.get_layer("norm")
    np.testing.assert_allclose(found.moving_mean, expected.moving_mean, rtol=1e-5)


def test_batch_normalisation_and_dropout_train_on_all_frames():
    model = model_of(
        lambda x: layers.Dropout(0.5)(layers.ReLU()(layers.BatchNormalization(name="norm")(convolution(x))))
    )
    clip_model, batch = with_identity_deltas(model), clips()
    expected, found = model.get_layer("norm"), clip_model.get_layer("norm")
    model(batch.reshape(6, 12, 10, 3), training=True)
    clip_model(batch, training=True)
    np.testing.assert_allclose(found.moving_mean, expected.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(found.moving_variance, expected.moving_variance, rtol=1e-5)


def test_masks_pass_through_delta_layers(tmp_path):
    inputs = keras.Input((7, 5))
    x = layers.Masking(name="masking")(inputs)
    x = layers.LSTM(4, name="recurrent")(layers.Dense(6, activation="relu", name="dense")(x))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    batch = clips((2, 3, 7, 5), high=1.0)
    batch[:, :, 4:] = 0
    assert_identical_also_when_reloaded(model, batch, tmp_path)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_models_keep_their_policies(policy, tmp_path):
    options = {"dtype": policy}
    inputs = keras.Input((12, 10, 3))
    x = layers.ReLU(name="relu", **options)(layers.BatchNormalization(**options)(convolution(inputs, **options)))
    x = layers.Conv2D(4, 3, activation="relu", name="fused", **options)(x)
    x = layers.GlobalAveragePooling2D(**options)(x)
    model = randomise(keras.Model(inputs, layers.Dense(3, activation="softmax", dtype="float32", name="head")(x)))
    clip_model = assert_identical_also_when_reloaded(model, clips(), tmp_path)
    for name in ("relu", "fused"):
        assert clip_model.get_layer(name).compute_dtype == policy.removeprefix("mixed_")
        assert clip_model.get_layer(name).variable_dtype == "float32"
        assert keras.backend.standardize_dtype(clip_model.get_layer(f"{name}_delta").output.dtype) == policy[6:]


def test_half_precision_weights_are_carried_over(tmp_path):
    model = randomise(
        keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="relu", dtype="float16", name="dense")])
    )
    assert_identical_also_when_reloaded(model, clips((2, 3, 6), high=1.0), tmp_path)


def test_frames_of_whole_numbers_get_no_delta_layer_at_the_input(tmp_path):
    inputs = keras.Input((12, 10, 3), dtype="uint8")
    x = convolution(layers.Rescaling(1 / 255)(inputs), activation="relu")
    model = randomise(keras.Model(inputs, ends(x)))
    assert find_activations(model)[0].reason == "holds uint8, not floating-point numbers"
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(rule="identity"), clip_output="per-frame")
    assert_frames_identical(model, clip_model, clips().astype("uint8"))


def test_dense_prediction_maps_and_regression_outputs(tmp_path):
    inputs = keras.Input((12, 10, 3))
    x = layers.Conv2DTranspose(2, 3, name="map")(convolution(inputs, activation="relu"))
    clip_model = assert_identical_also_when_reloaded(randomise(keras.Model(inputs, x)), clips(), tmp_path)
    assert clip_model.output_shape == (None, None, 14, 12, 2)


def test_a_lambda_layer_is_used_as_it_is():
    model = model_of(lambda x: layers.Lambda(lambda y: y * 2, name="twice")(convolution(x, activation="relu")))
    assert_frames_identical(model, with_identity_deltas(model), clips())


def test_user_layers_named_like_ours_do_not_clash(tmp_path):
    model = model_of(lambda x: layers.Identity(name="fold_time")(convolution(x, activation="relu")))
    assert_identical_also_when_reloaded(model, clips(), tmp_path)


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x - ops.mean(x, axis=0),
        lambda x: x - ops.mean(x, axis=0, keepdims=True),
        lambda x: x / ops.max(x),
        lambda x: layers.Concatenate(axis=0)([x, x]),
        lambda x: ops.softmax(x, axis=0),
    ],
)
def test_operations_across_the_batch_are_refused(mixing):
    inputs = keras.Input((12, 10, 3))
    model = keras.Model(inputs, ops.relu(mixing(convolution(inputs))))
    with pytest.raises(DeltafineError, match="across the batch axis"):
        find_activations(model)


def test_channels_first_is_refused_with_the_way_out():
    inputs = keras.Input((3, 12, 10))
    model = keras.Model(inputs, layers.Conv2D(4, 3, data_format="channels_first", name="first")(inputs))
    with pytest.raises(DeltafineError, match=r"'first'.*channels_first.*build the model again with 'channels_last'"):
        find_activations(model)


def test_a_layer_that_forgets_its_configuration_is_refused():
    class Forgetful(layers.Layer):
        def __init__(self, units=2, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def get_config(self):
            return {"name": self.name}

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units))

        def call(self, x):
            return ops.matmul(x, self.kernel)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(layers.ReLU()(Forgetful(5, name="forgetful")(inputs))))
    with pytest.raises(DeltafineError, match=r"'forgetful'.*get_config"):
        insert_deltas(model, find_activations(model))


def test_time_distributed_over_parts_of_a_frame_is_left_as_it_is(tmp_path):
    inputs = keras.Input((12, 10, 3))
    rows = layers.TimeDistributed(layers.Dense(4, activation="relu"), name="rows")(inputs)
    model = randomise(keras.Model(inputs, ends(layers.ReLU(name="relu")(rows))))
    reasons = {site.name: site.reason for site in find_activations(model)}
    assert reasons["rows"].startswith("inside TimeDistributed over parts of a frame")
    assert reasons["relu"] == ""
    assert_identical_also_when_reloaded(model, clips(), tmp_path)
