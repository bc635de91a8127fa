"""Small models of every shape that insertion must cope with, with weights that mean something."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers


def randomise(model: Any, seed: int = 0) -> Any:
    """Give every weight a random value, BatchNorm statistics too, so that no mix-up goes unseen."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.path else (-0.3, 0.3)
        weight.assign(generator.uniform(low, high, weight.shape))
    return model


def clips(shape: tuple[int, ...] = (2, 3, 12, 10, 3), seed: int = 0, high: float = 255.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, high, shape).astype("float32")


def plain() -> Any:
    inputs = keras.Input((12, 10, 3), name="frame")
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(6, 3, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    x = layers.Dense(5, activation="softmax", name="head")(x)
    return randomise(keras.Model(inputs, x, name="plain"))


def sequential() -> Any:
    return randomise(
        keras.Sequential(
            [
                keras.Input((12, 10, 3)),
                layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1"),
                layers.DepthwiseConv2D(3, activation="relu6", name="depthwise"),
                layers.Flatten(name="flat"),
                layers.Dropout(0.5, name="drop"),
                layers.Dense(5, activation="softmax", name="head"),
            ],
            name="stack",
        )
    )


def nested() -> Any:
    """A Sequential inside a Functional inside a Functional."""
    stem = keras.Sequential(
        [keras.Input((12, 10, 3)), layers.Conv2D(4, 3, activation="relu", name="conv"), layers.ReLU(name="relu")],
        name="stem",
    )
    inner_inputs = keras.Input((12, 10, 3))
    y = stem(inner_inputs)
    y = layers.Conv2D(4, 3, name="conv", activation="silu")(y)
    backbone = keras.Model(inner_inputs, y, name="backbone")
    inputs = keras.Input((12, 10, 3))
    z = layers.GlobalAveragePooling2D()(backbone(layers.Rescaling(1 / 127.5, -1)(inputs)))
    return randomise(keras.Model(inputs, layers.Dense(3, name="head")(z), name="whole"))


def shared_layer() -> Any:
    """One ReLU layer called three times, one convolution called twice."""
    inputs = keras.Input((12, 10, 3))
    relu = layers.ReLU(name="relu")
    conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    x = relu(layers.Conv2D(4, 3, padding="same", name="first")(inputs))
    x = relu(conv(x))
    x = relu(conv(x))
    x = layers.Dense(3, name="head")(layers.Flatten()(x))
    return randomise(keras.Model(inputs, x, name="shared"))


def siamese() -> Any:
    """A backbone called on two inputs."""
    inner = keras.Input((12, 10, 3))
    backbone = keras.Model(
        inner,
        layers.GlobalAveragePooling2D()(
            layers.ReLU(name="relu")(
                layers.Conv2D(4, 3, name="conv2")(layers.Conv2D(4, 3, activation="relu", name="conv")(inner))
            )
        ),
        name="backbone",
    )
    left, right = keras.Input((12, 10, 3), name="left"), keras.Input((12, 10, 3), name="right")
    x = layers.Subtract(name="difference")([backbone(left), backbone(right)])
    return randomise(keras.Model([left, right], layers.Dense(1, name="head")(x), name="siamese"))


def gated() -> Any:
    """Squeeze-and-excite around a residual sum, and a swish written by hand."""
    inputs = keras.Input((12, 10, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    s = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    s = layers.Conv2D(2, 1, activation="relu", name="reduce")(s)
    s = layers.Conv2D(4, 1, activation="sigmoid", name="expand")(s)
    y = layers.Multiply(name="excite")([x, s])
    y = layers.Add(name="sum")([layers.Conv2D(4, 3, padding="same", name="project")(y), x])
    y = layers.ReLU(name="after_sum")(y)
    y = layers.Conv2D(4, 3, name="last")(y)
    y = layers.Multiply(name="swish")([y, layers.Activation("sigmoid", name="swish_gate")(y)])
    y = layers.Dense(3, activation="sigmoid", name="head")(layers.Flatten()(y))
    return randomise(keras.Model(inputs, y, name="gated"))
