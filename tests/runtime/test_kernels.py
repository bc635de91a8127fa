"""The compiled kernels against the same plan in NumPy, over many shapes: words of marks, rests of vectors, frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from keras import layers

from deltafine import DeltaRuntime, find_activations, insert_deltas
from deltafine.model import DeltaSettings
from deltafine.model.insert import delta_layers
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.packed_plan import Program


def whole_numbers(model: Any, seed: int) -> Any:
    """Small whole numbers as weights, so that both engines get the same sums to the last bit, in whatever order."""
    generator = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(generator.integers(-2, 3, weight.shape))
    return model


def frames_of(shape: tuple[int, ...], seed: int, number: int = 6) -> list[np.ndarray]:
    """Few values change, or many, or none; floating point, bytes, or read-only."""
    generator = np.random.default_rng(seed)
    frames = [generator.integers(0, 5, shape).astype(np.float32)]
    for density in generator.choice([0, 0.01, 0.1, 1], number - 1):
        changed = generator.random(shape[:2]) < density
        frame = np.where(changed[:, :, None], generator.integers(0, 5, shape), frames[-1])
        frames.append(frame.astype(np.float32))
    frames[3].flags.writeable = False
    in_bytes = generator.choice([0, 0.5, 1])
    return [frame.astype(np.uint8) if generator.random() < in_bytes else frame for frame in frames]


def assert_same(model: Any, rule: str, granularity: str, seed: int) -> None:
    clip_model = insert_deltas(
        model,
        find_activations(model),
        DeltaSettings(rule=rule, granularity=granularity, initial_threshold=2.0),
        clip_output="per-frame",
    )
    plan = compile_model(clip_model).plan
    ours, theirs = NumbaState(Program(plan), None), NumpyState(plan, None)
    for frame in frames_of(plan.input_shape, seed):
        ours.step(frame)
        theirs.step(frame)
        for index, tensor in enumerate(plan.tensors):
            np.testing.assert_array_equal(ours.value(index), theirs.values[index], str(tensor))
        for kind in ("rows", "changed_rows", "changed_elements", "effective_macs"):
            np.testing.assert_array_equal(getattr(ours.counts(), kind), getattr(theirs.counts(), kind), kind)


def moving(shape: tuple[int, ...], generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Bytes over their whole range, most of them a little off the frame before."""
    frame = generator.integers(0, 256, shape)
    for size in (0, 1, 3, 9, 30, 255, 2, 1, 60):
        moved = generator.random(shape[:2]) < generator.choice([0.02, 0.3, 1])
        change = generator.integers(-size, size + 1, shape) * moved[:, :, None]
        frame = np.clip(frame + change, 0, 255)
        yield frame.astype(np.uint8)


rules = some.sampled_from(
    [("identity", "element"), ("quantize", "element"), ("send-on-delta", "element"), ("send-on-delta", "pixel")]
)
seeds = some.integers(0, 1000)


@settings(deadline=None, max_examples=25)
@given(
    height=some.integers(1, 9),
    width=some.sampled_from([1, 7, 15, 16, 17, 33, 63, 64, 65, 130]),
    channels=some.sampled_from([1, 2, 3, 4, 70]),
    rescaled=some.booleans(),
    rule=rules,
    seed=seeds,
)
def test_frames_of_any_size(
    height: int, width: int, channels: int, rescaled: bool, rule: tuple[str, str], seed: int
) -> None:
    inputs = keras.Input((height, width, channels))
    x = layers.Rescaling(0.5, -1)(inputs) if rescaled else inputs
    x = layers.Conv2D(4, 1, activation="relu")(x)
    model = whole_numbers(keras.Model(inputs, layers.GlobalMaxPooling2D()(x)), seed)
    assert_same(model, *rule, seed)


@settings(deadline=None, max_examples=25)
@given(
    size=some.tuples(some.integers(1, 5), some.sampled_from([16, 32, 80])),
    channels=some.sampled_from([1, 3]),
    rescale=some.sampled_from([None, "0..1", "-1..1"]),
    rule=rules,
    threshold_per=some.sampled_from(["layer", "channel", "neuron"]),
    seed=seeds,
)
def test_frames_of_bytes_give_what_the_same_numbers_give(
    size: tuple[int, int], channels: int, rescale: str | None, rule: tuple[str, str], threshold_per: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    inputs = keras.Input((*size, channels))
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(layers.Conv2D(3, 1, activation="relu")(inputs)))
    deltas = DeltaSettings(rule=rule[0], granularity=rule[1], threshold_per=threshold_per)
    clip_model = insert_deltas(model, find_activations(model), deltas, rescale=rescale, clip_output="per-frame")
    for layer in delta_layers(clip_model).values():
        granularity = 1.0 if rescale is None else 1 / 255
        layer.set_threshold(granularity * generator.choice([0.3, 1, 2, 7.5, 40, 300], layer.threshold.shape))
    program = Program(compile_model(clip_model).plan)
    of_bytes, of_numbers = NumbaState(program, None), NumbaState(program, None)
    for frame in moving((*size, channels), generator):
        of_bytes.step(frame)
        of_numbers.step(frame.astype(np.float32))
        for index in range(len(program.plan.tensors)):
            np.testing.assert_array_equal(of_bytes.value(index), of_numbers.value(index))
        np.testing.assert_array_equal(of_bytes.counters, of_numbers.counters)


@settings(deadline=None, max_examples=40)
@given(
    size=some.tuples(some.integers(1, 12), some.sampled_from([1, 5, 8, 31, 63, 64, 65, 127, 129, 140])),
    kernel=some.tuples(some.integers(1, 4), some.integers(1, 5)),
    stride=some.integers(1, 4),
    dilation=some.sampled_from([1, 1, 2, 70]),
    padding=some.sampled_from(["same", "valid"]),
    channels=some.sampled_from([1, 3, 7, 8, 9, 16, 17, 24, 40, 65]),
    depthwise=some.booleans(),
    rule=rules,
    seed=seeds,
)
def test_kernels_of_any_shape(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    padding: str,
    channels: int,
    depthwise: bool,
    rule: tuple[str, str],
    seed: int,
) -> None:
    inputs = keras.Input((*size, 3))
    x = layers.Conv2D(channels, 1, activation="relu")(inputs)
    if stride > 1 or padding == "valid":
        dilation = 1  # not with strides, in Keras, and rarely with room for the kernel
    kernel = (min(kernel[0], size[0]), min(kernel[1], size[1]))
    strides = (stride, stride) if padding == "same" or stride <= min(kernel) else (1, 1)
    if depthwise:
        x = layers.DepthwiseConv2D(kernel, strides=strides, padding=padding, dilation_rate=dilation)(x)
    else:
        x = layers.Conv2D(channels + 1, kernel, strides=strides, padding=padding, dilation_rate=dilation)(x)
    x = layers.MaxPooling2D(2, 1, "same")(layers.ReLU()(x))
    model = whole_numbers(keras.Model(inputs, layers.GlobalMaxPooling2D()(x)), seed)
    assert_same(model, *rule, seed)


EXACT: dict[str, Any] = {
    "gelu": lambda x: x * 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "celu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "log_sigmoid": lambda x: -np.logaddexp(-x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
}


@pytest.mark.parametrize("name", EXACT)
def test_activations_have_the_digits_of_single_precision(name: str) -> None:
    """Large and small numbers, both signs and zero, in rows that are no whole number of vectors."""
    generator = np.random.default_rng(0)
    rows = np.concatenate([generator.normal(size=(40, 37)) * scale for scale in (1e-6, 1e-3, 0.1, 1, 4)])
    rows = np.concatenate([rows, np.linspace(-30, 30, 40 * 37).reshape(40, 37), np.zeros((1, 37))])
    frame = rows[None].astype(np.float32)
    inputs = keras.Input(frame.shape)
    answer = DeltaRuntime(keras.Model(inputs, layers.Activation(name)(inputs))).step(frame)
    exact = EXACT[name](frame.astype(np.float64))
    assert np.all(np.isfinite(answer))
    error = np.abs(answer.reshape(exact.shape) - exact)
    # A large negative number of GELU is off by what the square in its exponent is rounded by.
    assert np.all(error <= 3e-7 + 2e-6 * np.abs(exact))
    small = np.abs(frame) < 1e-3
    assert np.all(error[small] <= 2e-6 * np.abs(exact[small]) + 1e-12)


@pytest.mark.parametrize(("tokens", "heads", "size", "value_size"), [(5, 2, 3, 7), (70, 1, 16, 16), (33, 4, 8, 20)])
def test_attention_in_tiles_is_the_sum_of_its_definition(tokens: int, heads: int, size: int, value_size: int) -> None:
    """Keys and numbers that fill no tile; more queries than are computed at a time."""
    inputs = keras.Input((1, tokens, 6))
    flat = layers.Reshape((tokens, 6))(inputs)
    attention = layers.MultiHeadAttention(heads, size, value_dim=value_size, name="attention")
    model = keras.Model(inputs, attention(flat, flat))
    frame = np.random.default_rng(1).normal(size=(1, tokens, 6)).astype(np.float32) * 2
    runtime = DeltaRuntime(model)
    assert any(operation.kind == "attention" for operation in runtime.plan.operations)
    answer = runtime.step(frame)
    weights = {weight.path.split("attention/")[-1]: weight.numpy().astype(np.float64) for weight in attention.weights}
    x = frame[0].astype(np.float64)
    query, key, value = (
        np.einsum("tc,chd->thd", x, weights[f"{name}/kernel"]) + weights[f"{name}/bias"]
        for name in ("query", "key", "value")
    )
    scores = np.einsum("qhd,khd->hqk", query, key) / math.sqrt(size)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed = np.einsum("hqk,khd->qhd", shares, value)
    name = "attention_output"
    exact = np.einsum("qhd,hdc->qc", mixed, weights[f"{name}/kernel"]) + weights[f"{name}/bias"]
    np.testing.assert_allclose(answer.reshape(exact.shape), exact, atol=1e-5 * np.abs(exact).max())
