"""Networks that take clips, frame by frame in the runtime: their states go on from frame to frame."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import DeltaRuntime
from deltafine.errors import DeltafineError
from deltafine.jobs.bench import bench
from deltafine.layers import Stream
from deltafine.measurement import Probe
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from tests.model.small_models import randomise

SHAPE = (12, 10, 3)
RECURRENT = {
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "GRU, reset before": lambda *given, **more: layers.GRU(*given, reset_after=False, **more),
    "SimpleRNN": layers.SimpleRNN,
}


def of_clips(kind, steps, *, sequences=False):
    inputs = keras.Input((steps, *SHAPE), name="clip")
    if kind == "ConvLSTM2D":
        x = layers.ConvLSTM2D(4, 3, name="steps", return_sequences=sequences)(inputs)
        pooling = layers.GlobalAveragePooling2D()
        x = layers.TimeDistributed(pooling, name="pool")(x) if sequences else pooling(x)
    else:
        frame = keras.Input(SHAPE)
        x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(frame)
        backbone = keras.Model(frame, layers.GlobalAveragePooling2D()(x), name="backbone")
        x = layers.TimeDistributed(backbone, name="frames")(inputs)
        x = layers.TimeDistributed(layers.Dense(5, activation="relu"), name="features")(x)
        x = RECURRENT[kind](6, return_sequences=sequences, name="steps")(x)
    return randomise(keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x)))


def refined(kind, steps, **options):
    model = of_clips(kind, steps, **options)
    sites = select_sites(find_activations(model), at=["default", "steps/*"])
    return insert_deltas(model, sites, DeltaSettings(initial_threshold=0.05))


def video(frames=14):
    """Every picture stands for two frames, then moves in a part."""
    random = np.random.default_rng(0)
    pictures = np.repeat(random.uniform(0, 1, (1, *SHAPE)), frames // 2, axis=0)
    pictures[:, :4] = random.uniform(0, 1, (frames // 2, 4, *SHAPE[1:]))
    return np.repeat(pictures, 2, axis=0).astype("float32")


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("make", [of_clips, refined])
@pytest.mark.parametrize("kind", [*RECURRENT, "ConvLSTM2D"])
def test_the_answer_to_a_frame_is_that_of_keras_to_the_whole_video_up_to_it(kind, make, engine):
    frames = video()
    runtime = DeltaRuntime(make(kind, 4), engine=engine, clip=0)
    assert not runtime.plan.unknown
    answers = [runtime.step(frame) for frame in frames]
    for length in (1, 2, 9, len(frames)):
        expected = make(kind, length).predict(frames[None, :length], verbose=0)[0]
        np.testing.assert_allclose(answers[length - 1], expected, rtol=0, atol=1e-5)
    runtime.reset()
    np.testing.assert_array_equal(runtime.step(frames[0]), answers[0])


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("make", [of_clips, refined])
@pytest.mark.parametrize("kind", ["LSTM", "GRU, reset before", "ConvLSTM2D"])
def test_by_default_states_begin_anew_with_every_clip_as_in_the_report(kind, make, engine):
    frames, model = video(), make(kind, 4)
    runtime = DeltaRuntime(model, engine=engine)
    answers = [runtime.step(frame) for frame in frames]
    state = None
    for end in (4, 8, 12):
        with Stream(state) as stream:
            expected = np.asarray(model(frames[None, end - 4 : end]))[0]
        state = stream.state
        np.testing.assert_allclose(answers[end - 1], expected, rtol=0, atol=1e-5)
    on = DeltaRuntime(model, engine=engine, clip=0)
    assert np.abs([on.step(frame) for frame in frames][11] - answers[11]).max() > 1e-4
    runtime.reset()
    np.testing.assert_array_equal(runtime.step(frames[0]), answers[0])


def test_a_number_of_frames_after_which_states_begin_anew_is_checked():
    with pytest.raises(DeltafineError, match="whole number of frames"):
        DeltaRuntime(of_clips("LSTM", 4), engine="numpy", clip=-1)
    inputs = keras.Input(SHAPE)
    with pytest.raises(DeltafineError, match="has no states that could begin anew"):
        DeltaRuntime(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)), engine="numpy", clip=4)


@pytest.mark.parametrize("kind", ["LSTM", "ConvLSTM2D"])
def test_answers_along_time_are_those_of_the_frames(kind):
    frames = video()
    runtime = DeltaRuntime(refined(kind, 4, sequences=True), engine="numpy", clip=0)
    expected = refined(kind, len(frames), sequences=True).predict(frames[None], verbose=0)[0]
    np.testing.assert_allclose([runtime.step(frame) for frame in frames], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("kind", [*RECURRENT, "ConvLSTM2D"])
def test_macs_of_every_frame_are_those_of_the_report(kind, engine):
    frames = video()
    model = refined(kind, len(frames), sequences=True)
    runtime, probe = DeltaRuntime(model, engine=engine), Probe(model)
    counted = probe.run(frames[None]).counts
    expected = {
        place.name: counts.macs_delta[0]
        for place, counts in zip(probe.layers, counted, strict=False)
        if place.name.startswith("steps/")
    }
    assert {"steps/input", "steps/state"} <= set(expected)
    for number, frame in enumerate(frames):
        runtime.step(frame)
        if number == 0:
            continue
        by_name = dict(
            zip((o.name for o in runtime.plan.operations), runtime.counts.effective_macs.tolist(), strict=True)
        )
        for name, macs in expected.items():
            assert by_name[name] == macs[number], (name, number)


def test_streams_have_states_of_their_own_and_a_kept_plan_goes_on_alike(tmp_path):
    refined("LSTM", 4).save(tmp_path / "model.keras")
    frames = video()
    first = DeltaRuntime(tmp_path / "model.keras", engine="numpy")
    other = first.stream()
    expected = [first.step(frame) for frame in frames]
    again = DeltaRuntime(tmp_path / "model.keras", engine="numpy")
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(again.step(frame), expected[number])
    fresh = DeltaRuntime(refined("LSTM", 4), engine="numpy")
    np.testing.assert_array_equal(other.step(frames[3]), fresh.step(frames[3]))


def test_what_works_on_several_frames_at_once_is_refused():
    inputs = keras.Input((4, *SHAPE))
    x = layers.GlobalAveragePooling3D(name="everything")(layers.Conv3D(2, 2, name="conv")(inputs))
    with pytest.raises(DeltafineError, match=r"'conv' \(Conv3D\) .* works on several frames at once"):
        DeltaRuntime(keras.Model(inputs, x))


def _from_the_first(x):
    start = layers.Dense(3)(x[:, 0])
    return layers.GRU(3, name="steps")(x, initial_state=start)


def _from_the_end_of_another(x):
    x, *states = layers.LSTM(3, return_sequences=True, return_state=True)(x)
    return layers.LSTM(3, name="steps")(x, initial_state=states)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda x: layers.LSTM(3, go_backwards=True, name="steps")(x), "reads a clip from its last frame on"),
        (lambda x: layers.Bidirectional(layers.LSTM(3), name="steps")(x), "reads a clip from its last frame on"),
        (lambda x: layers.LSTM(3, name="steps")(layers.Masking()(x)), "leaves out steps by a mask"),
        (lambda x: layers.GRU(3, name="steps")(x, mask=keras.ops.any(x > 0, axis=-1)), "leaves out steps by a mask"),
        (_from_the_first, "begins with a state that the model computes"),
        (_from_the_end_of_another, "begins with a state that the model computes"),
    ],
)
def test_recurrent_layers_that_cannot_go_forward_are_refused_with_the_reason(make, why):
    inputs = keras.Input((4, *SHAPE))
    model = keras.Model(inputs, make(layers.TimeDistributed(layers.Flatten())(inputs)))
    with pytest.raises(DeltafineError, match=rf"'steps' \(\w+\) .* {why}"):
        DeltaRuntime(model)


def test_dense_runtimes_are_not_timed_on_networks_that_take_clips(tmp_path):
    refined("LSTM", 4).save(tmp_path / "model.keras")
    with pytest.raises(DeltafineError, match="takes clips, and dense runtimes would run on a whole clip"):
        bench(tmp_path / "model.keras", tmp_path, threads=None)
