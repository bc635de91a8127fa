"""Convolutions of a single tap with strides, of which TensorFlow's own gradient can end the process."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deltafine.refinement.training.strided import strides_taken_first

PROGRAM = """
import keras, numpy as np, tensorflow as tf
from tests.refinement.test_strided import gradients, model
for _ in range(3):
    gradients(model(8), first=True)
print("alive")
"""


def model(channels: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 10, channels))
    x = layers.Conv2D(4, 1, strides=2, padding="same", activation="relu", name="shortcut")(inputs)
    return keras.Model(inputs, layers.Conv2D(2, 3, strides=2, name="other")(x))


def gradients(network: keras.Model, *, first: bool) -> list[np.ndarray]:
    frames = np.random.default_rng(0).normal(size=(3, *network.input_shape[1:])).astype("float32")
    with tf.GradientTape() as tape:
        if first:
            with strides_taken_first(network):
                outputs = network(frames)
        else:
            outputs = network(frames)
        loss = tf.reduce_sum(tf.square(outputs))
    return [gradient.numpy() for gradient in tape.gradient(loss, network.trainable_variables)]


def test_the_gradient_is_the_same_and_the_layer_is_left_as_it_was() -> None:
    network = model(32)
    for found, expected in zip(gradients(network, first=True), gradients(network, first=False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert "convolution_op" not in vars(network.get_layer("shortcut"))


def test_few_channels_do_not_end_the_process() -> None:
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "alive"


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_output_is_the_same(padding: str) -> None:
    inputs = keras.Input((7, 9, 11, 3))
    network = keras.Model(inputs, layers.Conv3D(4, 1, strides=(1, 2, 3), padding=padding)(inputs))
    clips = np.random.default_rng(0).normal(size=(2, 7, 9, 11, 3)).astype("float32")
    with strides_taken_first(network):
        found = network(clips)
    np.testing.assert_allclose(found, network(clips), rtol=1e-5, atol=1e-6)
