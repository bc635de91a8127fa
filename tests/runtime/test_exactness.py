"""The runtime against the Keras model, frame by frame."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine import DeltaRuntime
from deltafine.layers import EventRule, Stream
from deltafine.model import delta_layers
from deltafine.runtime.delta_stream import DeltaStream
from tests.runtime.models import MODELS, frame_shape, refined, video, weighted

CLOSE = 1e-5
"""Largest difference, relative to the largest value of a prediction; of networks of a few layers."""

AS_CLOSE = 4
"""How many times as far as TensorFlow from double precision."""

IN_NUMPY = ("convolutions", "pools", "sums", "with_unknown_layers")


def far(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference relative to the largest value."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-6))


class Teacher:
    """The Keras model, each frame from the very state that the runtime was in before it."""

    def __init__(self, model: Any) -> None:
        self.paths = list(delta_layers(model))
        self.first = tf.function(lambda clip: self._run(model, clip, None))
        self.next = tf.function(lambda clip, state: self._run(model, clip, state))

    @staticmethod
    def _run(model: Any, clip: Any, state: Any) -> tuple[Any, Any]:
        with Stream(state) as stream:
            prediction = model(clip)
        return prediction[0, 0], stream.state

    def __call__(self, frame: np.ndarray, sent: dict[str, np.ndarray] | None) -> tuple[np.ndarray, list[np.ndarray]]:
        clip = tf.constant(frame[None, None])
        if sent is None:
            prediction, state = self.first(clip)
        else:
            prediction, state = self.next(clip, [tf.constant(sent[path][None]) for path in self.paths])
        return prediction.numpy(), [value.numpy()[0] for value in state]


@pytest.mark.parametrize(
    ("name", "engine"), [*((name, "numba") for name in MODELS), *((name, "numpy") for name in IN_NUMPY)]
)
def test_a_model_without_deltas_predicts_what_keras_predicts(name: str, engine: str) -> None:
    model = MODELS[name]()
    frames = list(video(frame_shape(model), 40))
    expected = model.predict(np.stack(frames), verbose=0, batch_size=40)
    scale = np.abs(expected).max()
    runtime = DeltaRuntime(model, engine=engine)
    for frame, prediction in zip(frames, expected, strict=True):
        assert np.abs(runtime.step(frame) - prediction).max() < CLOSE * scale


def deep() -> Any:
    """40 convolutions, each rounding what the one before has rounded."""
    inputs = x = keras.Input((12, 12, 3))
    for number in range(40):
        y = keras.layers.Conv2D(8, 1 + 2 * (number % 2), padding="same", use_bias=False)(x)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
        x = keras.layers.Add()([x, y]) if number % 5 == 4 else y
    return weighted(keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))))


def application(name: str) -> Any:
    build = getattr(keras.applications, name)
    return weighted(build(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None))


def in_double_precision(model: Any) -> Any:
    def wide(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    copy = keras.models.clone_model(model, clone_function=wide)
    copy.set_weights([weight.astype(np.float64) for weight in model.get_weights()])
    return copy


@pytest.mark.parametrize(
    ("make", "engine"),
    [
        (deep, "numba"),
        (deep, "numpy"),
        pytest.param(lambda: application("MobileNetV2"), "numba", marks=pytest.mark.slow),
        pytest.param(lambda: application("ResNet50"), "numba", marks=pytest.mark.slow),
    ],
)
def test_deep_networks_are_as_close_to_double_precision_as_tensorflow_is(make: Any, engine: str) -> None:
    model = make()
    exact, runtime = in_double_precision(model), DeltaRuntime(model, engine=engine)
    frames = [frame / 127.5 - 1 for frame in video(frame_shape(model), 5, seed=5)]
    truth = exact(np.stack(frames), training=False).numpy()
    of_tensorflow = max(
        far(model(frame[None], training=False).numpy()[0], right) for frame, right in zip(frames, truth, strict=True)
    )
    ours = max(far(runtime.step(frame), right) for frame, right in zip(frames, truth, strict=True))
    assert truth.dtype == np.float64
    assert 0 < of_tensorflow < 1e-4
    assert ours < AS_CLOSE * of_tensorflow + 1e-6, (ours, of_tensorflow)


@pytest.mark.parametrize(
    ("name", "rule", "granularity", "threshold_per", "engine"),
    [
        ("convolutions", "send-on-delta", "element", "layer", "numba"),
        ("convolutions", "send-on-delta", "pixel", "neuron", "numba"),
        ("depthwise", "send-on-delta", "element", "channel", "numba"),
        ("depthwise", "quantize", "element", "neuron", "numba"),
        ("sums", "send-on-delta", "pixel", "layer", "numba"),
        ("sums", "paper", "pixel", "channel", "numba"),
        ("blocks", "send-on-delta", "element", "layer", "numba"),
        ("blocks", "send-on-delta", "pixel", "layer", "numba"),
        ("convolutions", "send-on-delta", "element", "layer", "numpy"),
        ("sums", "send-on-delta", "pixel", "channel", "numpy"),
    ],
)
def test_from_the_same_state_every_delta_layer_sends_what_keras_sends(
    name: str, rule: str, granularity: str, threshold_per: str, engine: str
) -> None:
    compare_from_the_same_state(name, rule, granularity, threshold_per, engine, frames=40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rule", "granularity"),
    [
        ("convolutions", "send-on-delta", "element"),
        ("depthwise", "send-on-delta", "pixel"),
        ("sums", "quantize", "element"),
    ],
)
def test_over_a_thousand_frames_every_delta_layer_sends_what_keras_sends(
    name: str, rule: str, granularity: str
) -> None:
    compare_from_the_same_state(name, rule, granularity, "layer", "numba", frames=1000)


def compare_from_the_same_state(
    name: str, rule: str | EventRule, granularity: str, threshold_per: str, engine: str, frames: int
) -> None:
    """Run frames through both, each time from the state of the runtime, and compare what is sent and predicted."""
    model = refined(
        MODELS[name](), rule, granularity, 0.1 if granularity == "pixel" else 0.3, threshold_per=threshold_per
    )
    runtime, keras_model = DeltaRuntime(model, engine=engine), Teacher(model)
    steps = {path: np.asarray(layer.threshold) for path, layer in delta_layers(model).items()}
    moved = dict.fromkeys(keras_model.paths, 0)
    sent: dict[str, np.ndarray] | None = None
    decisions = other = 0
    for frame in video(frame_shape(MODELS[name]()), frames):
        prediction, state = keras_model(frame, sent)
        ours = runtime.step(frame)
        now = runtime.sent()
        same = True
        for path, theirs in zip(keras_model.paths, state, strict=True):
            differs = np.abs(now[path] - theirs) > np.maximum(0.01 * steps[path], 1e-5 * np.abs(theirs).max())
            other += np.count_nonzero(differs)
            decisions += differs.size
            same &= not differs.any()
            if sent is not None:
                moved[path] += np.count_nonzero(now[path] != sent[path])
        if same:
            assert far(ours, prediction) < CLOSE
        sent = now
    assert all(moved.values()), "a layer whose output never moves proves nothing"
    assert other <= 1e-5 * decisions  # values within a rounding of a step may go either way


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("convolutions", "identity"),
        ("convolutions", "quantize"),
        ("depthwise", "identity"),
        ("pools", "quantize"),
        ("sums", "identity"),
        ("blocks", "quantize"),
    ],
)
def test_the_state_equals_a_full_recompute_to_the_bit(name: str, rule: str) -> None:
    model = refined(MODELS[name](), rule)
    runtime = DeltaRuntime(model, engine="numba")
    for number, frame in enumerate(video(frame_shape(MODELS[name]()), 120)):
        runtime.step(frame)
        if number % 10 == 9:
            anew = runtime.stream()
            anew.step(frame)
            for index in range(len(runtime.plan.tensors)):
                assert np.array_equal(runtime._stream.state.value(index), anew.state.value(index))


def test_numpy_keeps_quantised_values_equal_to_a_full_recompute() -> None:
    model = refined(MODELS["convolutions"](), "quantize")
    runtime = DeltaRuntime(model, engine="numpy")
    for frame in video(frame_shape(MODELS["convolutions"]()), 60):
        runtime.step(frame)
        anew = runtime.stream()
        anew.step(frame)
        for path, value in runtime.sent().items():
            assert np.array_equal(value, anew.sent()[path])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule"), [("convolutions", "quantize"), ("depthwise", "quantize"), ("sums", "paper")])
def test_after_a_thousand_frames_the_state_equals_a_full_recompute_to_the_bit(name: str, rule: str) -> None:
    runtime = DeltaRuntime(refined(MODELS[name](), rule), engine="numba")
    for frame in video(frame_shape(MODELS[name]()), 1000):
        runtime.step(frame)
    anew = runtime.stream()
    anew.step(frame)
    for index in range(len(runtime.plan.tensors)):
        assert np.array_equal(runtime._stream.state.value(index), anew.state.value(index))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_thousand_frames_do_not_drift(name: str) -> None:
    model = MODELS[name]()
    frames = list(video(frame_shape(model), 1000))
    expected = model.predict(np.stack(frames), verbose=0, batch_size=50)
    runtime = DeltaRuntime(model, engine="numba")
    for frame, prediction in zip(frames, expected, strict=True):
        assert np.abs(runtime.step(frame) - prediction).max() < CLOSE * np.abs(expected).max()


def test_streams_in_two_threads_compute_what_each_computes_alone() -> None:
    runtime = DeltaRuntime(refined(MODELS["convolutions"](), "send-on-delta"), engine="numba")
    videos = [list(video(frame_shape(MODELS["convolutions"]()), 60, seed=seed)) for seed in (1, 2)]

    def predictions(frames: list[np.ndarray]) -> list[np.ndarray]:
        stream = runtime.stream()
        return [stream.step(frame) for frame in frames]

    alone = [predictions(frames) for frames in videos]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(predictions, videos))
    assert np.array_equal(together, alone)
    assert not np.array_equal(*alone)


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_what_stands_still_is_not_computed_not_even_after_everything_changed(engine: str) -> None:
    model = refined(MODELS["convolutions"](), "send-on-delta")
    shape = frame_shape(MODELS["convolutions"]())
    runtime = DeltaRuntime(model, engine=engine)
    noise = np.random.default_rng(0).uniform(0, 255, (4, *shape)).astype(np.float32)
    for frame in noise:
        runtime.step(frame)
        assert runtime.counts is not None
        assert runtime.counts.total("executed_macs") > 0.5 * runtime.plan.dense_macs()
    prediction = runtime.step(noise[-1])
    assert runtime.counts.total("executed_macs") == 0
    assert np.array_equal(prediction, runtime.step(noise[-1]))


def test_reset_begins_a_new_video_and_streams_do_not_touch_each_other() -> None:
    model = refined(MODELS["convolutions"](), "send-on-delta")
    runtime = DeltaRuntime(model)
    shape = frame_shape(MODELS["convolutions"]())
    first, second = list(video(shape, 10, seed=1)), list(video(shape, 10, seed=2))

    def alone(stream: DeltaStream, frames: list[np.ndarray]) -> list[np.ndarray]:
        return [stream.step(frame) for frame in frames]

    apart = alone(runtime.stream(), first), alone(runtime.stream(), second)
    one, other = runtime.stream(), runtime.stream()
    for number in range(10):
        assert np.array_equal(one.step(first[number]), apart[0][number])
        assert np.array_equal(other.step(second[number]), apart[1][number])
    alone(one, second)
    one.reset()
    assert all(np.array_equal(a, b) for a, b in zip(alone(one, first), apart[0], strict=True))
    assert keras.ops.shape(apart[0][0]) == (5,)
