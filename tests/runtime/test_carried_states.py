"""Networks that carry their own states, frame by frame: causal convolutions, stateful layers, states as inputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import DeltaRuntime
from deltafine.errors import DeltafineError
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from tests.model.small_models import randomise

SHAPE = (8, 6, 3)


def video(frames=10):
    random = np.random.default_rng(0)
    pictures = np.repeat(random.uniform(0, 1, (1, *SHAPE)), frames, axis=0)
    pictures[:, :3] = random.uniform(0, 1, (frames, 3, *SHAPE[1:]))
    return pictures.astype("float32")


def causal(steps):
    """Convolutions over time that read no later frame, as in the streaming form of MoViNet."""
    inputs = keras.Input((steps, *SHAPE))
    x = layers.ZeroPadding3D(((2, 0), (1, 1), (1, 1)))(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Conv3D(4, 3, activation="relu", name="wide")(x))
    x = layers.ZeroPadding3D(((4, 0), (0, 0), (0, 0)))(layers.MaxPooling3D((1, 2, 2))(x))
    x = layers.ReLU()(layers.Conv3D(5, (3, 1, 1), dilation_rate=(2, 1, 1), use_bias=False, name="over_time")(x))
    x = layers.Conv3D(6, (1, 2, 2), strides=(1, 2, 2), padding="same", name="pictures")(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    x = layers.Conv1D(5, 2, padding="causal", activation="relu", name="vectors")(x)
    return randomise(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def refined(steps):
    model = causal(steps)
    return insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.05))


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("make", [causal, refined])
def test_causal_convolutions_answer_each_frame_as_keras_does_with_all_up_to_it(make, engine):
    frames = video()
    runtime = DeltaRuntime(make(4), engine=engine)
    assert not runtime.plan.notes()
    answers = [runtime.step(frame) for frame in frames]
    np.testing.assert_allclose(answers, make(len(frames)).predict(frames[None], verbose=0)[0], rtol=0, atol=1e-6)
    runtime.reset()
    np.testing.assert_array_equal(runtime.step(frames[0]), answers[0])


def test_macs_of_a_causal_convolution_are_all_that_meet_a_change_in_any_frame_it_reads():
    frames = video()
    frames[6:] = frames[5]
    runtime = DeltaRuntime(causal(4), engine="numpy")
    names = [operation.name for operation in runtime.plan.operations]
    found = []
    for frame in frames:
        runtime.step(frame)
        found.append(int(runtime.counts.effective_macs[names.index("wide")]))
    taps = np.array([2, 3, 3, 3, 3, 3, 3, 2])[:3, None] * np.array([2, 3, 3, 3, 3, 2])  # of the rows that change
    changed = 4 * 3 * int(taps.sum())  # filters, channels
    assert found[3:] == [changed * count for count in (3, 3, 3, 2, 1, 0, 0)]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: layers.Conv3D(2, 3, padding="same", name="conv")(x),
        lambda x: layers.Conv3D(2, (2, 1, 1), strides=(2, 1, 1), name="conv")(layers.ZeroPadding3D(((1, 0),) * 3)(x)),
        lambda x: layers.Conv3D(2, 3, name="conv")(layers.ZeroPadding3D(((1, 0), (0, 0), (0, 0)))(x)),
        lambda x: layers.AveragePooling3D(2, name="conv")(x),
    ],
)
def test_convolutions_and_pooling_that_read_later_frames_are_refused(make):
    inputs = keras.Input((4, *SHAPE))
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(make(inputs))
    with pytest.raises(DeltafineError, match=r"'conv' .* works on several frames at once"):
        DeltaRuntime(keras.Model(inputs, x))


def test_layers_that_keep_their_state_from_call_to_call_keep_it_from_frame_to_frame():
    inputs = keras.Input(batch_shape=(1, 1, *SHAPE))
    x = layers.TimeDistributed(layers.Conv2D(4, 3, strides=2, activation="relu"))(inputs)
    x = layers.TimeDistributed(layers.Flatten())(x)
    x = layers.GRU(5, stateful=True, return_sequences=True)(x)
    model = randomise(keras.Model(inputs, layers.Dense(3)(layers.LSTM(6, stateful=True)(x))))
    runtime = DeltaRuntime(model, engine="numpy")
    assert not runtime.plan.notes()
    for frame in video():
        expected = model.predict(frame[None, None], verbose=0)[0]
        np.testing.assert_allclose(runtime.step(frame), expected, rtol=0, atol=1e-6)


def with_states(name="carry"):
    frame, *states = keras.Input(SHAPE, name="frame"), keras.Input((6,), name="hidden"), keras.Input((6,), name="carry")
    x = layers.Flatten()(layers.Conv2D(4, 3, strides=2, activation="relu")(frame))
    x, (hidden, carry) = layers.LSTMCell(6)(x, states)
    given = {"frame": frame, "hidden": states[0], "carry": states[1]}
    return randomise(keras.Model(given, {"answer": layers.Dense(3)(x), "hidden": hidden, name: carry}))


def test_states_among_the_inputs_go_from_frame_to_frame():
    model = with_states()
    runtime = DeltaRuntime(model, engine="numpy")
    states = {name: np.zeros((1, 6), "float32") for name in ("hidden", "carry")}
    for frame in video():
        outputs = model.predict({"frame": frame[None], **states}, verbose=0)
        states = {name: outputs[name] for name in states}
        np.testing.assert_allclose(runtime.step(frame), outputs["answer"][0], rtol=0, atol=1e-6)


def test_inputs_that_are_no_states_are_refused():
    runtime = DeltaRuntime(with_states(name="new_carry"), engine="numpy")
    with pytest.raises(DeltafineError, match=r"it was not given: .* has each new state under its input's name"):
        runtime.step(video()[0])
