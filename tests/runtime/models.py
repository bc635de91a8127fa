"""Small models with every kind of layer that the runtime computes itself, and videos that move all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from deltafine import find_activations, insert_deltas
from deltafine.layers import EventRule
from deltafine.model import DeltaSettings, graph
from tests.model.small_models import nested, plain, sequential, shared_layer

SIZE = (20, 24, 3)


def weighted(model: Any, seed: int = 0) -> Any:
    """Random weights, scaled so that activations neither vanish nor grow from layer to layer."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.path:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif len(weight.shape) > 1:
            inputs = np.prod(weight.shape[:-1])
            if "depthwise" in weight.path:
                inputs = np.prod(weight.shape[:2])
            weight.assign(generator.normal(0, np.sqrt(2 / inputs), weight.shape))
        else:
            weight.assign(generator.uniform(0.7, 1.3, weight.shape) if "gamma" in weight.path else
                          generator.normal(0, 0.1, weight.shape))  # fmt: skip
    return model


def _ended(x: Any, inputs: Any, name: str) -> Any:
    x = layers.Dense(5, name="head")(layers.GlobalAveragePooling2D(name="average")(x))
    return weighted(keras.Model(inputs, x, name=name))


def _start() -> tuple[Any, Any]:
    inputs = keras.Input(SIZE, name="frame")
    return inputs, layers.Rescaling(1 / 127.5, -1, name="scale")(inputs)


def convolutions() -> Any:
    """Kernels, strides, dilations, groups and paddings of all sorts, batch normalisation behind and before."""
    inputs, x = _start()
    x = layers.ZeroPadding2D(((1, 2), (0, 1)), name="pad")(x)
    x = layers.Conv2D(10, (3, 5), strides=(2, 1), use_bias=False, name="uneven")(x)
    x = layers.ReLU(6.0, name="relu_a")(layers.BatchNormalization(name="norm_a")(x))
    x = layers.Conv2D(70, 3, dilation_rate=2, padding="same", activation="relu", name="dilated")(x)
    x = layers.Conv2D(21, 3, groups=7, padding="same", name="grouped")(x)
    x = layers.BatchNormalization(name="norm_b")(x)
    x = layers.Conv2D(35, 1, activation="leaky_relu", name="pointwise")(layers.ReLU(name="relu_b")(x))
    x = layers.Conv2D(33, (1, 7), strides=3, padding="same", activation="tanh", name="wide")(x)
    return _ended(x, inputs, "convolutions")


def depthwise() -> Any:
    """Depthwise and separable convolutions, with multipliers."""
    inputs, x = _start()
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="silu", name="stem")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise_same")(x)
    x = layers.SeparableConv2D(20, 3, padding="same", activation="elu", name="separable")(x)
    x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, use_bias=False, name="depthwise_twice")(x)
    x = layers.Activation("gelu", name="gelu")(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(2, dilation_rate=2, name="depthwise_wide")(x)
    return _ended(layers.Activation("hard_sigmoid", name="gate")(x), inputs, "depthwise")


def pools() -> Any:
    """Pooling, cropping, upsampling, concatenation."""
    inputs, x = _start()
    x = layers.Conv2D(6, 3, activation="selu", name="stem")(x)
    a = layers.MaxPooling2D(3, strides=2, padding="same", name="largest")(x)
    b = layers.AveragePooling2D((3, 2), strides=2, padding="same", name="mean")(x)
    x = layers.Concatenate(name="side_by_side")([a, b])
    x = layers.Activation("softplus", name="softplus")(layers.UpSampling2D(2, name="up")(x))
    x = layers.Cropping2D(((1, 2), (0, 3)), name="crop")(x)
    x = layers.Conv2D(8, 3, activation="softsign", name="last")(x)
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(4, name="coarse")(x))
    x = layers.Dense(12, activation="relu", name="hidden")(x)
    return weighted(keras.Model(inputs, layers.Softmax(name="probabilities")(x), name="pools"))


def sums() -> Any:
    """Element-wise operations between branches, a gate from global pooling, constants."""
    inputs, x = _start()
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    a = layers.Conv2D(8, 3, padding="same", name="left")(x)
    b = layers.Conv2D(8, 1, name="right")(x)
    y = layers.ReLU(name="relu_sum")(layers.Add(name="sum")([a, b, x]))
    y = layers.Maximum(name="larger")([y, layers.Subtract(name="difference")([a, b])])
    y = layers.Average(name="half")([y, layers.Minimum(name="smaller")([a, x])])
    g = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(y)
    g = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(g)
    y = layers.Multiply(name="scaled")([y, g])
    y = keras.ops.relu6(y * 0.5 + 3.0) * 1.5 - 2.0
    return _ended(y, inputs, "sums")


def blocks() -> Any:
    """What delta layers stand behind besides activations: a product with a gate, a residual sum, a normalisation."""
    inputs, x = _start()
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6", name="stem")(x)
    y = layers.Conv2D(16, 1, activation="silu", name="expand")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="silu", name="depthwise")(y)
    g = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(y)
    g = layers.Conv2D(4, 1, activation="relu", name="reduce")(g)
    g = layers.Conv2D(16, 1, activation="sigmoid", name="excite")(g)
    y = layers.Conv2D(8, 1, use_bias=False, name="project")(layers.Multiply(name="product")([y, g]))
    x = layers.Add(name="sum")([x, layers.BatchNormalization(name="linear")(y)])
    x = layers.LayerNormalization(name="norm")(layers.Conv2D(12, 3, padding="same", name="next")(x))
    return _ended(layers.Dense(10, activation="gelu", name="wide")(x), inputs, "blocks")


def with_unknown_layers() -> Any:
    """Layers that only Keras computes, in the middle and on rows of another rank."""
    inputs, x = _start()
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="stem")(x)
    x = layers.Activation("sparsemax", name="sparse")(x)
    x = layers.Conv2DTranspose(4, 2, strides=2, activation="sparsemax", name="transposed")(x)
    x = layers.Reshape((-1, 8), name="tokens")(x)
    x = layers.Dense(6, activation="relu", name="of_tokens")(x)
    x = keras.ops.cumsum(layers.Conv1D(5, 3, padding="same", name="along")(x), axis=2)
    x = layers.Dense(4, name="head")(layers.GlobalMaxPooling1D(name="top")(x))
    return weighted(keras.Model(inputs, x, name="unknown"))


def mostly_left_to_keras() -> Any:
    """A U-Net whose largest layer, and a few others with MACs, only Keras computes."""
    inputs, x = _start()
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    y = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="down")(x)
    y = layers.EinsumDense("bhwc,wcd->bhwd", (10, 12, 12), activation="relu", name="einsum")(y)
    y = layers.Conv2DTranspose(8, 5, strides=2, padding="same", activation="sparsemax", name="up")(y)
    x = layers.Concatenate(name="skip")([x, y])
    x = layers.Conv2D(20, 1, activation="relu", name="mixed")(x)
    x = keras.ops.matmul(x, keras.ops.transpose(x, (0, 1, 3, 2)))
    return _ended(layers.ReLU(name="products")(x), inputs, "mostly_left_to_keras")


MODELS: dict[str, Callable[[], Any]] = {
    "plain": plain, "sequential": sequential, "nested": nested, "shared_layer": shared_layer,
    "convolutions": convolutions, "depthwise": depthwise, "pools": pools, "sums": sums,
    "blocks": blocks, "with_unknown_layers": with_unknown_layers,
}  # fmt: skip


def frame_shape(model: Any) -> tuple[int, ...]:
    return tuple(graph.input_tensors(model)[0].shape[1:])


def refined(
    model: Any, rule: str | EventRule, granularity: str = "element", relative_threshold: float = 0.3, **settings: Any
) -> Any:
    """A clip model with steps relative to the spread of each activation, per-frame predictions."""
    sites = find_activations(model)
    clips = insert_deltas(model, sites, DeltaSettings(rule="identity"), clip_output="per-frame")
    seen: dict[str, float] = {}

    def observe(path: str, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        if type(operation).__name__ == "DeltaActivation":
            seen[path] = float(np.sqrt(np.mean(np.square(outputs))))

    frames = np.stack(list(video(frame_shape(model), 12)))[None]
    graph.run(clips, [keras.ops.convert_to_tensor(frames)], observe)
    steps = {site.name: max(relative_threshold * seen.get(site.delta_name, 1.0), 1e-3) for site in sites}
    return insert_deltas(
        model,
        sites,
        DeltaSettings(rule=rule, granularity=granularity, initial_threshold=steps, **settings),
        clip_output="per-frame",
    )


def video(shape: tuple[int, ...], frames: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Frames 0 to 255: slow drift and a moving square, stillness, black frames and scene cuts."""
    generator = np.random.default_rng(seed)
    height, width, _ = shape
    scene = generator.uniform(0, 255, shape)
    for number in range(frames):
        if number % 40 == 25:
            scene = generator.uniform(0, 255, shape)
        picture = scene.copy()
        top, left = (number * 2) % (height - 4), (number * 3) % (width - 4)
        picture[top : top + 4, left : left + 4] = 255 - picture[top : top + 4, left : left + 4]
        if number % 3 == 1:
            scene = np.clip(scene + generator.normal(0, 4, shape), 0, 255)
        if number % 40 in (33, 34):
            picture[:] = 0
        yield picture.astype(np.float32)
