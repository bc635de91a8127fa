"""Layers that the runtime computes itself: it leaves nothing of them to Keras, and answers each frame as Keras does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from deltafine import DeltaRuntime
from deltafine.model import mac_layers
from deltafine.model.keras_private import layer_of_applications
from tests.runtime.models import weighted
from tests.runtime.test_answers import ENGINES, assert_as_keras, model_of

SHAPE = (6, 8, 4)


def picture(x: Any) -> Any:
    """Values about 0."""
    return layers.Conv2D(6, 3, padding="same")(layers.Rescaling(1 / 127.5, -1)(x))


def tokens(x: Any) -> Any:
    return layers.Reshape((12, 24))(picture(x))


NORMALISATIONS: dict[str, Callable[[Any], Any]] = {
    "LayerNormalization": lambda x: layers.LayerNormalization()(picture(x)),
    "of tokens": lambda x: layers.LayerNormalization(epsilon=1e-2)(tokens(x)),
    "without factors": lambda x: layers.LayerNormalization(center=False, scale=False)(picture(x)),
    "over rows": lambda x: layers.LayerNormalization(axis=1)(picture(x)),
    "over everything": lambda x: layers.LayerNormalization(axis=[1, 2, 3])(picture(x)),
    "RMSNormalization": lambda x: layers.RMSNormalization()(picture(x)),
    "UnitNormalization": lambda x: layers.UnitNormalization()(picture(x)),
    "of columns": lambda x: layers.UnitNormalization(axis=2)(picture(x)),
    "GroupNormalization": lambda x: layers.GroupNormalization(3)(picture(x)),
    "each channel": lambda x: layers.GroupNormalization(-1)(picture(x)),
    "groups of tokens": lambda x: layers.GroupNormalization(4, scale=False)(tokens(x)),
    "BatchNormalization of rows": lambda x: layers.BatchNormalization(axis=1)(picture(x)),
    "Normalization of columns": lambda x: layers.Normalization(
        axis=2, mean=np.arange(8.0), variance=np.arange(1.0, 9.0)
    )(picture(x)),
    "LayerScale": lambda x: layer_of_applications("LayerScale")(0.5, 6)(picture(x)),
    "Softmax": lambda x: layers.Softmax(axis=1)(picture(x)),
    "softmax of two axes": lambda x: layers.Softmax(axis=(1, 2))(picture(x)),
    "ops.softmax": lambda x: ops.softmax(picture(x), axis=2),
    "ops.log_softmax": lambda x: ops.log_softmax(picture(x), axis=-1),
}
ACTIVATIONS = (
    "celu", "mish", "log_sigmoid", "log_softmax", "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink",
    "squareplus", "sparse_plus", "sparse_sigmoid",
)  # fmt: skip
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{name: lambda x, name=name: layers.Conv2D(5, 1, activation=name)(picture(x)) for name in ACTIVATIONS},
    **{
        f"ops.{name}": lambda x, name=name: keras.activations.get(name)(picture(x))
        for name in ("celu", "log_sigmoid", "hard_tanh")
    },
    "PReLU": lambda x: layers.PReLU(alpha_initializer="random_normal")(picture(x)),
    "PReLU of channels": lambda x: layers.PReLU("random_normal", shared_axes=[1, 2])(picture(x)),
    "PReLU of rows": lambda x: layers.PReLU("random_normal", shared_axes=[2, 3])(picture(x)),
    "PReLU above 1": lambda x: layers.PReLU(keras.initializers.Constant(1.5), shared_axes=[1])(tokens(x)),
    "threshold": lambda x: keras.activations.threshold(picture(x), 0.1, -1.0),
    "clip": lambda x: ops.clip(picture(x), -0.3, 0.4),
    "abs": lambda x: ops.abs(picture(x)),
    "square": lambda x: ops.square(picture(x)),
    "power": lambda x: (ops.abs(picture(x)) + 0.1) ** 1.7,
    "squared": lambda x: picture(x) ** 2.0,
    "roots": lambda x: ops.sqrt(ops.abs(picture(x))) + ops.rsqrt(ops.abs(picture(x)) + 0.5),
    "logarithms": lambda x: ops.log(ops.abs(picture(x)) + 0.5) + ops.log1p(ops.abs(picture(x))),
    "exponentials": lambda x: ops.exp(picture(x)) - ops.expm1(picture(x) * 0.5),
    "waves": lambda x: ops.sin(picture(x)) * ops.cos(picture(x)),
    "negative": lambda x: -picture(x),
    "reciprocal": lambda x: ops.reciprocal(ops.abs(picture(x)) + 1.0),
}
MOVES: dict[str, Callable[[Any], Any]] = {
    "Permute": lambda x: layers.Permute((3, 1, 2))(picture(x)),
    "transpose": lambda x: ops.transpose(picture(x), (0, 2, 1, 3)),
    "RepeatVector": lambda x: layers.RepeatVector(3)(layers.Flatten()(picture(x))),
    "slices": lambda x: picture(x)[:, 1:5, ::2, 2:],
    "rows": lambda x: picture(x)[:, 2],
    "split": lambda x: ops.subtract(*ops.split(picture(x), 2, axis=-1)),
    "split rows": lambda x: ops.multiply(*ops.split(picture(x), [3], axis=1)[::1]),
    "concatenate rows": lambda x: layers.Concatenate(axis=1)([picture(x), picture(x)[:, :2]]),
    "concatenate columns": lambda x: ops.concatenate([picture(x), layers.Rescaling(0.01)(picture(x))], axis=2),
    "stack": lambda x: ops.stack([picture(x), picture(x)], axis=2),
    "flip and roll": lambda x: ops.roll(ops.flip(picture(x), axis=1), 2, axis=2),
    "repeat and tile": lambda x: ops.tile(ops.repeat(picture(x), 2, axis=1), (1, 1, 2, 1)),
    "pad": lambda x: ops.pad(picture(x), ((0, 0), (1, 2), (0, 1), (1, 0))),
    "pad, mirrored": lambda x: ops.pad(picture(x), ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect"),
    "pad in front of a row": lambda x: ops.pad(layers.Flatten()(picture(x)), ((0, 0), (1, 0))),
    "pad in front of a number": lambda x: ops.pad(ops.mean(picture(x), axis=(1, 2, 3))[:, None], ((0, 0), (1, 0))),
    "pad around a row": lambda x: ops.pad(layers.GlobalAveragePooling2D()(picture(x)), ((0, 0), (2, 3))),
    "space to depth": lambda x: ops.reshape(
        ops.transpose(ops.reshape(picture(x), (-1, 3, 2, 4, 2, 6)), (0, 1, 3, 2, 4, 5)), (-1, 3, 4, 24)
    ),
    "squeezed": lambda x: ops.squeeze(ops.expand_dims(picture(x), 1), 1) * 2.0,
    "windows": lambda x: ops.reshape(picture(x), (-1, 12, 4, 6)),
}
BETWEEN: dict[str, Callable[[Any], Any]] = {
    "divide": lambda x: picture(x) / (ops.abs(picture(x)) + 0.5),
    "from a number": lambda x: 3.0 / (ops.abs(picture(x)) + 1.0),
    "power of two": lambda x: ops.power(ops.abs(picture(x)) + 0.5, ops.clip(picture(x), -1.0, 1.0)),
    "a row for all": lambda x: picture(x) * picture(x)[:, :1],
    "a column for all": lambda x: ops.maximum(picture(x), picture(x)[:, :, 3:4, :1]),
    "a picture that stands still": lambda x: picture(x) + np.random.default_rng(0).normal(0, 1, (6, 8, 1)),
    "places of tokens": lambda x: tokens(x) + np.random.default_rng(0).normal(0, 1, (1, 12, 24)).astype("float32"),
    "places of an embedding": lambda x: tokens(x) + layers.Embedding(12, 24)(np.arange(12)[None]),
    "mean of channels": lambda x: ops.mean(picture(x), axis=-1, keepdims=True),
    "sum of rows": lambda x: ops.sum(picture(x), axis=1),
    "sum of positions": lambda x: ops.sum(picture(x), axis=(1, 2)),
    "extremes": lambda x: ops.max(picture(x), axis=(1, 2)) - ops.min(picture(x), axis=(-3, 2)),
    "standing out": lambda x: picture(x) - ops.mean(picture(x), axis=(2, 3), keepdims=True),
}
TRANSPOSED = [
    {"kernel_size": 2, "strides": 2}, {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"},
    {"kernel_size": (5, 4), "strides": (2, 3), "padding": "same"}, {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "activation": "softmax"}, {"kernel_size": 2, "strides": 3},
    {"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1, "activation": "softmax"},
    {"kernel_size": 1, "strides": 2, "use_bias": False},
]  # fmt: skip
PRODUCTS: dict[str, Callable[[Any], Any]] = {
    **{
        f"Conv2DTranspose {number}": lambda x, given=given: layers.Conv2DTranspose(5, **given)(picture(x))
        for number, given in enumerate(TRANSPOSED)
    },
    "Conv1DTranspose": lambda x: layers.Conv1DTranspose(4, 4, strides=2, padding="same")(tokens(x)),
    "EinsumDense": lambda x: layers.EinsumDense("abcd,de->abce", (6, 8, 5), bias_axes="e")(picture(x)),
    "EinsumDense into heads": lambda x: layers.EinsumDense("abc,cde->abde", (12, 3, 4), bias_axes="de")(tokens(x)),
    "EinsumDense of heads": lambda x: layers.EinsumDense("abcd,cde->abe", (6, 5), activation="gelu")(picture(x)),
    "attention": lambda x: layers.MultiHeadAttention(3, 4)(tokens(x), tokens(x)),
    "attention of values": lambda x: layers.MultiHeadAttention(2, 4, value_dim=3, use_bias=False, output_shape=7)(
        tokens(x), layers.Reshape((16, 18))(picture(x))
    ),
    "attention to keys": lambda x: layers.MultiHeadAttention(2, 5, dropout=0.2)(tokens(x), tokens(x), key=tokens(x)),
    "grouped attention": lambda x: layers.GroupQueryAttention(4, 4, 2)(tokens(x), tokens(x)),
}
SIZES: dict[str, Callable[[Any], Any]] = {
    "UpSampling2D": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(picture(x)),
    "UpSampling2D bicubic": lambda x: layers.UpSampling2D((3, 2), interpolation="bicubic")(picture(x)),
    "Resizing": lambda x: layers.Resizing(9, 5)(picture(x)),
    "Resizing nearest": lambda x: layers.Resizing(3, 11, interpolation="nearest")(picture(x)),
    "ops.image.resize": lambda x: ops.image.resize(picture(x), (4, 13), antialias=True),
}
CASES = {**NORMALISATIONS, **FUNCTIONS, **MOVES, **BETWEEN, **PRODUCTS, **SIZES}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_the_runtime_answers_as_keras_and_leaves_nothing_to_it(name: str, engine: str) -> None:
    model = weighted(model_of(lambda x: layers.Activation("tanh")(CASES[name](x)), SHAPE))
    plan = DeltaRuntime(model, engine="numpy").plan
    assert [operation.name for operation in plan.unknown] == []
    assert_as_keras(model, engine, number=4)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_have_the_macs_that_inspect_lists(name: str) -> None:
    model = model_of(PRODUCTS[name], SHAPE)
    runtime = DeltaRuntime(model, engine="numpy")
    dense = sum(entry.dense_macs for entry in mac_layers(model))
    assert runtime.plan.dense_macs() == dense
    runtime.step(np.random.default_rng(0).uniform(1, 255, SHAPE))
    assert runtime.counts.total("effective_macs") == dense
    assert runtime.counts.total("executed_macs") >= dense


@pytest.mark.parametrize("engine", ENGINES)
def test_values_that_a_change_does_not_reach_stay_as_they_are(engine: str) -> None:
    def layered(x: Any) -> Any:
        x = layers.LayerNormalization()(layers.Conv2DTranspose(4, 2, strides=2)(x))
        return layers.PReLU()(layers.UpSampling2D(2, interpolation="bilinear")(x))

    runtime = DeltaRuntime(weighted(model_of(layered, SHAPE)), engine=engine)
    frame = np.random.default_rng(0).uniform(0, 255, SHAPE).astype(np.float32)
    before = runtime.step(frame)
    frame[0, 0] = 255 - frame[0, 0]
    after = runtime.step(frame)
    assert (after[:3, :3] != before[:3, :3]).any()
    np.testing.assert_array_equal(after[6:], before[6:])
    changed = runtime.counts.rows
    assert changed[-1] < 0.1 * 24 * 32
    fresh = runtime.stream().step(frame)
    np.testing.assert_array_equal(fresh, after)
