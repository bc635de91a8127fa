"""One small model of every kind that people bring, all made for 16x16 frames of the small videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tests.small_runs import SIZE, small_model

FRAMES = 4
PICTURE = (SIZE, SIZE, 3)


def body(classes: int = 2) -> list[Any]:
    return [
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, strides=2, activation="relu"),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(classes, activation="softmax"),
    ]


def sequential() -> Any:
    return keras.Sequential([keras.Input(PICTURE), *body()])


def sequential_built_later() -> Any:
    model = keras.Sequential(body())
    model.build((None, *PICTURE))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def nested(outer: str) -> Any:
    """A base inside a Sequential or Functional model, as transfer learning makes it."""
    inputs = keras.Input(PICTURE)
    features = layers.Conv2D(4, 3, strides=2, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    base = keras.Model(inputs, layers.Conv2D(4, 3, activation="relu")(features), name="base")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax")]
    if outer == "sequential":
        return keras.Sequential([keras.Input(PICTURE), base, *head])
    frames = keras.Input(PICTURE)
    return keras.Model(frames, head[1](head[0](base(frames))))


@keras.saving.register_keras_serializable("tests")
class Branded(keras.Model):
    """A functional model of a class of its own, which computes what its graph says."""


def functional_subclass() -> Any:
    inputs = outputs = keras.Input(PICTURE)
    for layer in body():
        outputs = layer(outputs)
    return Branded(inputs, outputs)


def multiple_outputs(kind: str) -> Any:
    inputs = keras.Input(PICTURE)
    pooled = layers.GlobalAveragePooling2D()(
        layers.Conv2D(4, 3, strides=2, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    )
    big, small = layers.Dense(7, name="big")(pooled), layers.Dense(2, name="small")(pooled)
    return keras.Model(inputs, {"small": small, "big": big} if kind == "dict" else [small, big])


def two_inputs() -> Any:
    left, right = keras.Input(PICTURE, name="left"), keras.Input(PICTURE, name="right")
    shared = layers.Conv2D(4, 3, strides=2, activation="relu")
    both = layers.GlobalAveragePooling2D()(layers.Concatenate()([shared(left), shared(right)]))
    return keras.Model([left, right], layers.Dense(2, activation="softmax")(both))


def any_size() -> Any:
    inputs = outputs = keras.Input((None, None, 3))
    for layer in body():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def maps() -> Any:
    inputs = keras.Input(PICTURE)
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(layers.Rescaling(1 / 255)(inputs))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def clips(temporal: str) -> Any:
    inputs = keras.Input((FRAMES, *PICTURE))
    x = layers.Rescaling(1 / 255)(inputs)
    if temporal == "conv3d":
        x = layers.GlobalAveragePooling3D()(layers.Conv3D(4, 3, strides=2, padding="same", activation="relu")(x))
    elif temporal == "convlstm":
        x = layers.GlobalAveragePooling2D()(layers.ConvLSTM2D(4, 3, strides=2)(x))
    else:
        x = layers.TimeDistributed(layers.Conv2D(4, 3, strides=2, activation="relu"))(x)
        x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
        if temporal == "lstm":
            x = layers.LSTM(4)(x)
        else:
            weights = ops.softmax(ops.squeeze(layers.Dense(1)(x), -1), axis=-1)
            x = ops.sum(x * ops.expand_dims(weights, -1), axis=1)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def stateful() -> Any:
    inputs = keras.Input(batch_shape=(1, FRAMES, *PICTURE))
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.LSTM(4, stateful=True)(x)))


def named_like_new_operations() -> Any:
    """Layers that have the names which Keras would give to operations that a rewriting adds."""
    inputs = keras.Input(PICTURE, name="reshape_1")
    x = layers.Rescaling(1 / 255, name="fold_time")(inputs)
    x = layers.Conv2D(4, 3, strides=2, name="conv", activation="relu")(x)
    x = layers.BatchNormalization(name="conv_delta")(x)
    x = layers.GlobalAveragePooling2D(name="expand_dims")(x)
    x = layers.Reshape((4,), name="reshape")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="unfold_time")(x))


def frozen() -> Any:
    model = sequential()
    model.trainable = False
    return model


def half_frozen() -> Any:
    model = nested("functional")
    model.get_layer("base").trainable = False
    return model


def mixed(policy: str) -> Any:
    keras.config.set_dtype_policy(policy)
    try:
        return sequential()
    finally:
        keras.config.set_dtype_policy("float32")


def int8() -> Any:
    inputs = keras.Input(PICTURE)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Dense(8, activation="relu")(x)))
    model.quantize("int8")
    return model


def vision_transformer() -> Any:
    """Patches with positions, attention, a multi-layer perceptron for each of them."""
    inputs = keras.Input(PICTURE)
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, strides=4)(layers.Rescaling(1 / 255)(inputs)))
    x = x + layers.Embedding(16, 8)(np.arange(16)[None])
    normed = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(normed, normed)])
    normed = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.Dense(8)(layers.Dense(16, activation="gelu")(normed))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


@dataclass(frozen=True)
class Kind:
    """A kind of model, and what is to be expected of the commands.

    Attributes:
        make: makes the model.
        refused: words of the sentence with which all commands refuse it; None if all of them take it.
        options: of every command that has to be told about the model.
        task: what its outputs are for.
        runs: whether the runtime plays it frame by frame; what works on several frames at once, it does not.
        timed: whether it is timed beside dense runtimes; what takes clips, is not.
        slow: whether it is tried with the slow tests, since another kind goes nearly the same way.
    """

    make: Callable[[], Any]
    refused: str | None = None
    options: tuple[str, ...] = ()
    task: str = "classification"
    runs: bool = True
    timed: bool = True
    slow: bool = False


KINDS: dict[str, Kind] = {
    "functional": Kind(small_model),
    "sequential": Kind(sequential),
    "sequential_built_later": Kind(sequential_built_later, slow=True),
    "nested_in_sequential": Kind(lambda: nested("sequential"), slow=True),
    "nested_in_functional": Kind(lambda: nested("functional")),
    "functional_subclass": Kind(functional_subclass, slow=True),
    "two_outputs": Kind(lambda: multiple_outputs("list"), task="distill", slow=True),
    "two_outputs_dict": Kind(lambda: multiple_outputs("dict"), task="distill"),
    "two_inputs": Kind(two_inputs, refused="one input", runs=False),
    "any_size": Kind(any_size, options=("--size", f"{SIZE}x{SIZE}")),
    "maps": Kind(maps, task="distill"),
    "clips_conv3d": Kind(lambda: clips("conv3d"), runs=False),
    "clips_lstm": Kind(lambda: clips("lstm"), timed=False),
    "clips_convlstm": Kind(lambda: clips("convlstm"), timed=False),
    "clips_attention": Kind(lambda: clips("attention"), runs=False),
    "stateful": Kind(stateful, refused="stateful"),
    "named_like_new_operations": Kind(named_like_new_operations),
    "frozen": Kind(frozen),
    "half_frozen": Kind(half_frozen, slow=True),
    "mixed_bfloat16": Kind(lambda: mixed("mixed_bfloat16"), slow=True),
    "mixed_float16": Kind(lambda: mixed("mixed_float16")),
    "int8": Kind(int8, refused="int8"),
    "vision_transformer": Kind(vision_transformer),
}
