"""Networks of layers drawn at random, and the videos to play to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Draw = np.random.Generator
MOST_VALUES = 600
"""Of one tensor of a frame."""
ACTIVATIONS = (
    "linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "hard_sigmoid", "hard_silu", "elu", "selu",
    "gelu", "softplus", "softsign", "softmax", "mish", "log_sigmoid", "celu", "glu", "hard_tanh", "hard_shrink",
    "soft_shrink", "tanh_shrink", "squareplus", "sparse_plus", "sparse_sigmoid", "log_softmax", "sparsemax",
)  # fmt: skip


@keras.saving.register_keras_serializable(package="random_networks")
class Fragile(layers.Layer):
    """Computes nothing, and breaks off when it is told to. It looks at numbers, so that it cannot be compiled."""

    breaks: type[BaseException] | None = None

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def call(self, x: Any) -> Any:
        np.asarray(x)
        if Fragile.breaks is not None:
            raise Fragile.breaks("broken off")
        return x * 1.0


@keras.saving.register_keras_serializable(package="random_networks")
class Trained(layers.Layer):
    """Another function in training, which is what it takes for granted."""

    def call(self, x: Any, training: bool = True) -> Any:
        return x * 100.0 if training else x * 0.5


@keras.saving.register_keras_serializable(package="random_networks")
class Unlike(layers.Dropout):
    """Named a kind of dropout, and none."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x - 0.25


class Network:
    """A network in the making: the tensors that a layer may take, the newest last."""

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.shape = self._frame_shape()
        self.input = keras.Input(self.shape)
        self.tensors = [layers.Rescaling(1 / 127.5, -1)(self.input)] if self.flip() else [self.input / 128.0]
        self.open_ends: list[Any] = []
        if self.flip(0.1):
            self.tensors = [self._of_raw_pixels()]

    def flip(self, chance: float = 0.5) -> bool:
        return bool(self.draw.random() < chance)

    def pick(self, choices: Any) -> Any:
        return choices[int(self.draw.integers(len(choices)))]

    def number(self, least: int, most: int) -> int:
        return int(self.draw.integers(least, most + 1))

    def build(self) -> Any:
        """The model, with weights that keep values near 1."""
        for _ in range(self.number(2, 8)):
            value = self.tensors[-1] if self.flip(0.7) else self.pick(self.tensors)
            made = self.pick(_BY_RANK[len(value.shape) - 1])(self, value)
            if made is not None and None in made.shape[1:]:  # few layers can follow where sizes are open
                self.open_ends.append(layers.Activation("tanh")(made) if self.flip() else ops.abs(made))
            elif made is not None and int(np.prod(made.shape[1:])) <= MOST_VALUES:
                self.tensors.append(made)
        model = keras.Model(self.input, self._outputs())
        for weight in model.weights:
            if "float" in weight.dtype and "seed" not in weight.path:
                weight.assign(self._weights(weight))
        return model

    def _weights(self, weight: Any) -> np.ndarray:
        if "variance" in weight.path or "gamma" in weight.path:
            return self.draw.uniform(0.5, 1.5, weight.shape)
        spread = 1 / np.sqrt(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 0.3
        return self.draw.normal(0, spread, weight.shape)

    def _outputs(self) -> Any:
        number = self.pick([1, 1, 2, 3])
        ends = [self.tensors[-1], *(self.pick(self.tensors) for _ in range(number - 1))]
        ends[-1] = self.pick([ends[-1], *self.open_ends])
        ends = [layers.Activation("linear")(end) if end is self.input else end for end in ends]
        if number == 1:
            return self.pick([ends[0], {"only": ends[0]}])
        names = [f"{self.pick('zma')}{place}" for place in range(number)]
        return self.pick([tuple(ends), ends, dict(zip(names, ends, strict=True)), {"b": ends[0], "a": ends[1:]}])

    def _frame_shape(self) -> tuple[int, ...]:
        channels = self.pick([1, 1, 2, 3, 3, 5])
        kind = self.number(0, 9)
        if kind == 0:
            return (self.number(2, 9), channels + 1)
        if kind == 1:
            return (self.number(2, 12),)
        return (self.pick([1, 3, 5, 6, 8]), self.pick([1, 4, 7, 8, 9]), channels)

    def _of_raw_pixels(self) -> Any:
        """Layers that jump from value to value, on pixels that are the same to the bit everywhere."""
        if len(self.shape) == 3 and self.shape[2] == 3:
            return layers.Solarization(0.3, 0.4, value_range=(0, 255))(self.input) / 255.0
        if len(self.shape) == 1:
            whole = ops.cast(ops.floor(self.input / 64.0), "int32")
            return layers.Embedding(4, 3, mask_zero=self.flip())(whole)
        return ops.cast(self.input > 100.0, "float32")


def _activation(net: Network, x: Any) -> Any:
    name = net.pick([name for name in ACTIVATIONS if name != "glu" or x.shape[-1] % 2 == 0])
    as_operation = name in ("glu", "relu", "silu", "gelu", "softmax") and net.flip()
    if name == "glu" and not as_operation:  # announces all channels, and gives half of them
        net.open_ends.append(layers.GlobalAveragePooling2D()(layers.Activation(name)(x)) if len(x.shape) == 4 else x)
        return None
    return keras.activations.get(name)(x) if as_operation else layers.Activation(name)(x)


def _fused(net: Network) -> str | None:
    return net.pick([None, "relu", "tanh", "silu", "elu", "softmax", "mish"])


def _fitting(net: Network, x: Any) -> tuple[int, int]:
    return min(net.number(1, 3), x.shape[1]), min(net.number(1, 3), x.shape[2])


def _conv(net: Network, x: Any) -> Any:
    groups = net.pick([one for one in (1, 2, 3) if x.shape[-1] % one == 0])
    stride = net.number(1, 2)
    dilation = 2 if stride == 1 and net.flip(0.2) else 1
    same = dilation > 1 or stride > 1 or net.flip()
    return layers.Conv2D(
        groups * net.number(1, 4), _fitting(net, x), strides=stride, padding="same" if same else "valid", groups=groups,
        dilation_rate=dilation, use_bias=net.flip(), activation=_fused(net),
    )(x)  # fmt: skip


def _depthwise(net: Network, x: Any) -> Any:
    kind = net.pick([layers.DepthwiseConv2D, layers.SeparableConv2D])
    settings = {"padding": "same", "depth_multiplier": net.number(1, 2), "activation": _fused(net)}
    return (
        kind(3, **settings)(x) if kind is layers.DepthwiseConv2D else kind(net.number(1, 5), 3, **settings)(x)
    )  # fmt: skip


def _pool(net: Network, x: Any) -> Any:
    kind = net.pick([layers.MaxPooling2D, layers.AveragePooling2D])
    return kind(_fitting(net, x), strides=net.number(1, 2), padding=net.pick(["same", "valid"]))(x)


def _pool_everything(net: Network, x: Any) -> Any:
    kind = net.pick([layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D])
    x = kind(keepdims=net.flip())(x)
    return layers.Flatten()(x) if len(x.shape) > 2 and net.flip() else x


def _place(net: Network, x: Any) -> Any:
    inner = [layers.ZeroPadding2D(((1, 0), (2, 1))), layers.UpSampling2D((2, 1)), layers.UpSampling2D(2)]
    inner += [layers.UpSampling2D(2, interpolation="bilinear"), _transposed(net, x), _transposed(net, x)]
    inner += [layers.Resizing(net.number(1, 9), net.number(1, 9), interpolation=net.pick(["bilinear", "bicubic"]))]
    if min(x.shape[1:3]) > 2:
        inner += [layers.Cropping2D(((1, 0), (0, 1)))] * 2
        cropped = layers.RandomCrop(x.shape[1] - 1, x.shape[2] - 1)(x)  # announces what it does in training
        net.open_ends.append(layers.GlobalMaxPooling2D()(cropped))
    return net.pick(inner)(x)


def _transposed(net: Network, x: Any) -> Any:
    return layers.Conv2DTranspose(
        net.number(1, 4), _fitting(net, x), strides=net.number(1, 3), padding=net.pick(["same", "valid"]),
        use_bias=net.flip(), activation=_fused(net),
    )  # fmt: skip


def _normalised(net: Network, x: Any) -> Any:
    axis = net.number(1, len(x.shape) - 1)
    return net.pick(
        [
            lambda: layers.BatchNormalization(axis=net.pick([-1, axis]))(x),
            lambda: layers.LayerNormalization(axis=net.pick([-1, -1, axis, [*range(1, axis + 1)]]), epsilon=0.1)(x),
            lambda: layers.RMSNormalization(epsilon=0.1)(x),
            lambda: layers.GroupNormalization(net.pick([-1, 1, x.shape[-1]]), epsilon=0.1)(x),
            lambda: ops.log_softmax(x, axis=axis),
            lambda: layers.UnitNormalization(axis=axis)(x + 2.0),
            lambda: layers.Softmax(axis=axis)(x),
            lambda: layers.Normalization(axis=net.pick([-1, axis]), mean=0.2, variance=2.0)(x),
            lambda: ops.softmax(x, axis=axis),
        ]
    )()


def _odd(net: Network, x: Any) -> Any:
    """Layers that do nothing, nothing but in training, or that only Keras knows."""
    axis = net.number(1, len(x.shape) - 1)
    made: list[Callable[[], Any]] = [
        lambda: layers.Dropout(0.5)(x),
        lambda: layers.GaussianNoise(1.0)(x, training=True),
        lambda: Unlike(0.5)(x),
        lambda: Trained()(x),
        lambda: Trained()(x, training=True),
        lambda: Fragile()(x),
        lambda: ops.cumsum(x, axis=axis),
        lambda: ops.flip(x, axis=axis),
        lambda: ops.mean(x, axis=axis, keepdims=net.flip()) if len(x.shape) > 2 else None,
        lambda: ops.max(x, axis=axis, keepdims=True),
        lambda: ops.min(x, axis=axis, keepdims=True) + ops.sum(x, axis=axis, keepdims=True),
        lambda: x[:, -1:],
        lambda: ops.roll(x, 1, axis=axis),
        lambda: ops.stack([x, x * 0.5], axis=axis) if len(x.shape) < 4 else ops.repeat(x, 2, axis=axis),
        lambda: ops.multiply(*ops.split(x, 2, axis=axis)) if x.shape[axis] % 2 == 0 else None,
        lambda: ops.pad(x, [(0, 0)] + [(1, 0)] * (len(x.shape) - 1), mode=net.pick(["constant", "symmetric"])),
        lambda: (
            layers.RepeatVector(3)(x) if len(x.shape) == 2 else ops.transpose(x, (0, 2, 1, *range(3, len(x.shape))))
        ),
        lambda: layers.PReLU(shared_axes=net.pick([None, [axis]]))(x),
        lambda: ops.sqrt(ops.square(x) + 0.1) + ops.sin(x) - ops.expm1(ops.minimum(x, 1.0)),
        lambda: layers.Permute(tuple(int(one) + 1 for one in net.draw.permutation(len(x.shape) - 1)))(x),
        lambda: layers.RandomFlip()(x) if len(x.shape) == 4 else None,
        lambda: ops.abs(x),
        lambda: ops.clip(x, -0.5, 0.5),
        lambda: ops.cast(ops.cast(x > 100.0, "int32") * 3, "float32"),
        lambda: layers.Identity()(x),
    ]
    return net.pick(made)()


def _reshaped(net: Network, x: Any) -> Any:
    sizes = x.shape[1:]
    shapes = [(1, *sizes), (*sizes, 1), (-1, sizes[-1]), (sizes[0], -1), tuple(sizes[::-1]), (-1,)]
    if len(sizes) > 1 and sizes[0] == 1:
        shapes += [sizes[1:]] * 3
    shapes = [shape for shape in shapes if len(shape) <= 4]
    return net.pick([layers.Reshape(net.pick(shapes)), layers.Flatten()])(x)


def _binary(net: Network, x: Any) -> Any:
    """Two values, or one and a constant, of shapes that broadcast."""
    shape = [size if net.flip() else 1 for size in x.shape[1:]]
    kind = net.number(0, 3)
    if kind == 0:
        other: Any = net.pick([2.0, -0.5, np.float32(3.0)])
    elif kind == 1:
        if shape[-1] == 1 and net.flip():
            shape[-1] = net.number(1, 4) if x.shape[-1] == 1 else 1
        first = [] if net.flip() else [1]
        other = net.draw.uniform(0.5, 2, [*first, *shape][net.number(0, len(shape)) if not first else 0 :])
        other = other.astype(np.float32)
    else:
        shapes = [tensor for tensor in net.tensors if _broadcasts(tensor.shape[1:], x.shape[1:])]
        other = net.pick([*shapes, x])
    one, two = (x, other) if net.flip() else (other, x)
    if kind > 1 and len(one.shape) == len(two.shape) and one.shape[1:] == two.shape[1:]:
        merge = net.pick([layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum])
        return merge()([one, two])
    return net.pick(
        [
            lambda: ops.add(one, two), lambda: ops.subtract(one, two), lambda: ops.multiply(one, two),
            lambda: ops.divide(one, ops.abs(two) + 0.5),
            lambda: ops.divide(x, np.abs(other) + 0.5 if kind < 2 else 4.0),
            lambda: 2.0 - x, lambda: x * 0.5 + 1.0, lambda: 3.0 / (ops.abs(x) + 1.0),
            lambda: ops.maximum(one, two), lambda: ops.minimum(one, two),
            lambda: ops.power(ops.abs(x) + 0.5, ops.clip(ops.multiply(two, one), -1.0, 1.0)),
            lambda: (ops.abs(x) + 0.1) ** 2.0,
        ]
    )()  # fmt: skip


def _broadcasts(one: Any, two: Any) -> bool:
    return len(one) == len(two) and all(a == b or 1 in (a, b) for a, b in zip(one, two, strict=True))


def _joined(net: Network, x: Any) -> Any:
    axis = net.number(1, len(x.shape) - 1)
    others = [t for t in net.tensors if len(t.shape) == len(x.shape) and _alike_but(t.shape, x.shape, axis)]
    return layers.Concatenate(axis=net.pick([axis, -1]) if axis == len(x.shape) - 1 else axis)([x, net.pick(others)])


def _alike_but(one: Any, two: Any, axis: int) -> bool:
    return all(a == b for place, (a, b) in enumerate(zip(one, two, strict=True)) if place != axis)


def _dense(net: Network, x: Any) -> Any:
    if net.flip(0.2) and len(x.shape) > 2:
        letters = "bhwct"[: len(x.shape) - 1]
        units = net.number(1, 5)
        if net.flip():
            return layers.EinsumDense(f"{letters}x,xde->{letters}de", (*x.shape[1:-1], units, 2), bias_axes="de")(x)
        return layers.EinsumDense(f"{letters}x,xd->{letters}d", (*[None] * (len(x.shape) - 2), units))(x)
    return layers.Dense(net.number(1, 6), activation=net.pick([None, "relu", "tanh", "mish"]))(x)


def _nested(net: Network, x: Any) -> Any:
    """A model inside the model, of one layer that is called twice."""
    inside = keras.Input(x.shape[1:])
    layer = layers.Dense(x.shape[-1], activation="tanh")
    model = keras.Model(inside, layer(layer(inside)) + inside * 0.5)
    return model(model(x)) if net.flip() else model(x)


def _sequence(net: Network, x: Any) -> Any:
    if net.flip(0.3):
        x = layers.Masking(0.0)(ops.relu(x))
        x = layers.Dense(3)(x) if net.flip() else x
    made: list[Callable[[], Any]] = [
        lambda: layers.Conv1D(3, 2, padding=net.pick(["same", "causal"]), activation=_fused(net))(x),
        lambda: layers.GRU(3, return_sequences=net.flip())(x),
        lambda: layers.LSTM(3, return_state=True)(x)[net.number(0, 2)],
        lambda: layers.MultiHeadAttention(net.number(1, 3), 2, use_bias=net.flip())(x, x),
        lambda: layers.GroupQueryAttention(2, 4, net.pick([1, 2, 4]))(x, x, use_causal_mask=net.flip(0.2)),
        lambda: layers.Attention()([x, x]),
        lambda: layers.TimeDistributed(layers.Dense(3, activation="relu"))(x),
        lambda: layers.TimeDistributed(layers.LayerNormalization(epsilon=0.1))(x),
        lambda: layers.GlobalAveragePooling1D(keepdims=net.flip())(x),
        lambda: layers.GlobalMaxPooling1D()(x),
        lambda: layers.MaxPooling1D(2, padding="same")(x),
        lambda: layers.Bidirectional(layers.SimpleRNN(2))(x),
    ]
    return net.pick(made)()


def _gate(net: Network, x: Any) -> Any:
    """Squeeze and excite."""
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(pooled)])


_ANY = (_activation, _normalised, _odd, _odd, _reshaped, _binary, _binary, _joined, _dense, _nested)
_BY_RANK: dict[int, tuple[Callable[[Network, Any], Any], ...]] = {
    1: _ANY,
    2: (*_ANY, *(_sequence,) * 5),
    3: (*_ANY, *(_conv,) * 4, _depthwise, _pool, _pool, _pool_everything, _place, _place, _gate),
    4: _ANY,
}


def frames(shape: tuple[int, ...], draw: Draw, number: int) -> Iterator[np.ndarray]:
    """Pixels 0 to 255: stillness, single values, a part, everything, black; in all the types that frames come in."""
    picture = draw.uniform(0, 255, shape).astype(np.float32)
    for _ in range(number):
        kind = draw.integers(7)
        changed = draw.random(shape) < (0, 0, 0.02, 0.1, 0.5, 1, 1)[kind]
        picture = np.where(changed, draw.uniform(0, 255, shape), picture * (kind < 6)).astype(np.float32)
        dtype = draw.choice(["float32", "float32", "uint8", "float64", "int16", "float16"])
        if "int" in dtype:
            picture = np.rint(picture)
        frame = picture.astype(dtype)
        picture = frame.astype(np.float32)
        frame.flags.writeable = bool(draw.random() < 0.8)
        yield frame
