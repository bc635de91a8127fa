"""The streaming form: one frame and the state in, one prediction and the new state out, in every format."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

import deltafine
from deltafine.errors import DeltafineError
from deltafine.exporting import FORMATS
from deltafine.exporting.comparing import answers_of
from deltafine.exporting.streaming import Streaming, export_streaming
from deltafine.exporting.writing import write_export
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from tests.exporting.test_plan import tiny, video
from tests.layers.own_rules import Halfway, Hysteresis
from tests.model import small_models
from tests.runtime import models

FRAMES = 300


def needs_onnx() -> None:
    for name in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def refined():
    """Its sums are exact, so that nothing but a fault makes two ways of playing it differ."""
    return tiny("send-on-delta")


@pytest.fixture(scope="module")
def frames():
    return video(FRAMES, (12, 10, 3))


@pytest.fixture(scope="module")
def expected(refined, frames):
    """What the runtime answers, and what each delta layer has sent at last."""
    runtime = deltafine.DeltaRuntime(refined, cache=False, engine="numpy")
    answers = np.stack([runtime.step(frame) for frame in frames])
    return answers, runtime.sent()


def test_the_names_and_shapes_are_those_of_the_delta_layers(refined):
    model = export_streaming(refined)
    shapes = {tensor.name: tensor.shape[1:] for tensor in model.inputs}
    assert shapes == {
        "frame": (12, 10, 3), "first": (1,), "state_input_delta": (12, 10, 3), "state_first_delta": (6, 5, 6),
        "state_depthwise_delta": (4, 3, 6), "state_pointwise_delta": (4, 3, 8),
    }  # fmt: skip
    states = {name for name in shapes if name.startswith("state_")}
    assert set(model.output) == {"prediction", *(f"new_{name}" for name in states)}
    assert "deltafine" not in str(model.get_config())


@pytest.mark.parametrize("name", ["keras", "tflite", "onnx"])
def test_a_file_plays_300_frames_as_the_runtime_does(refined, frames, expected, name, tmp_path):
    if name == "onnx":
        needs_onnx()
    format = FORMATS.get(name)
    made = format.make(refined, form="streaming")
    format.write(made, tmp_path / format.file_name("streaming"))
    answers, sent = expected
    found, states = zip(*played(name, tmp_path / format.file_name("streaming"), made, frames), strict=True)
    np.testing.assert_allclose(np.stack(found), answers, rtol=0, atol=1e-5)
    for delta, values in sent.items():
        np.testing.assert_allclose(states[-1][f"state_{delta}"][0], values, rtol=0, atol=1e-5)


def played(name, file, made, frames):
    """The loop of a receiver, with nothing of deltafine but the file: each prediction, and the state behind it."""
    if name == "keras":
        import tensorflow as tf

        model = keras.models.load_model(file)
        call = tf.function(lambda given: model(given, training=False))
    elif name == "tflite":
        import tensorflow as tf

        runner = tf.lite.Interpreter(str(file)).get_signature_runner("step")
        call = lambda given: runner(**given)  # noqa: E731
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        assert {one.name for one in session.get_inputs()} == set(made.inputs)
        call = lambda given: dict(zip(names, session.run(names, given), strict=True))  # noqa: E731
    state = {name: np.full(shape, 7, "float32") for name, shape in made.inputs.items() if name.startswith("state_")}
    for number, frame in enumerate(frames):
        given = {"frame": frame[None].astype("float32"), "first": np.full((1, 1), number == 0, "float32"), **state}
        outputs = call(given)
        state = {name: np.asarray(outputs[f"new_{name}"]) for name in state}
        yield np.asarray(outputs["prediction"])[0], state


def test_the_state_makes_a_difference_and_first_starts_again(refined, frames):
    """Else a network that holds nothing would pass all of the above."""
    made = Streaming(export_streaming(refined), refined)
    step = made.player(lambda given: made.model(given, training=False))
    begun = [step(frame, number == 0)[0] for number, frame in enumerate(frames[:12])]
    afresh = [step(frame, True)[0] for frame in frames[:12]]
    again = [step(frame, number == 0)[0] for number, frame in enumerate(frames[:12])]
    np.testing.assert_array_equal(begun, again)
    np.testing.assert_array_equal(begun[0], afresh[0])
    assert not np.array_equal(begun[1:], afresh[1:])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("nested", {"rule": "send-on-delta", "granularity": "pixel", "threshold_per": "channel"}),
        ("shared_layer", {"rule": "send-on-delta", "threshold_per": "neuron"}),
        ("plain", {"rule": Hysteresis(0.4)}),
        ("plain", {"rule": Halfway(), "granularity": "pixel"}),
        ("sequential", {"rule": "quantize"}),
    ],
)
def test_rules_granularities_and_nested_models_play_as_the_refined_model(name, settings):
    model = getattr(small_models, name)()
    refined = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25, **settings))
    made = Streaming(export_streaming(refined), refined)
    step = made.player(lambda given: made.model(given, training=False))
    clip = np.stack(list(models.video((12, 10, 3), 8)))
    found = [step(frame, number == 0) for number, frame in enumerate(clip)]
    for one, other in zip(found, answers_of(refined, clip), strict=True):
        np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-6)
    with_memory = settings["rule"] != "quantize"
    assert ("first" in made.inputs) == with_memory


def test_a_network_with_several_outputs_keeps_their_names():
    inputs = keras.Input((12, 10, 3), name="frame")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    heads = {"kind": keras.layers.Dense(3, name="a")(x), "place": keras.layers.Dense(2, name="b")(x)}
    model = small_models.randomise(keras.Model(inputs, heads))
    refined = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25))
    made = Streaming(export_streaming(refined), refined)
    assert {"kind", "place"} < set(made.model.output)
    step = made.player(lambda given: made.model(given, training=False))
    clip = small_models.clips()[0]
    found = [step(frame, number == 0) for number, frame in enumerate(clip)]
    for one, other in zip(found, answers_of(refined, clip), strict=True):
        assert [value.shape for value in one] == [(3,), (2,)]
        np.testing.assert_allclose(np.concatenate(one), np.concatenate(other), rtol=1e-5, atol=1e-5)


def test_the_check_compares_with_the_refined_model_frame_by_frame(refined, frames, tmp_path):
    clips = frames[None, :40]
    agreement, _ = write_export(
        refined, tmp_path / "streaming.keras", "keras", form="streaming", real_frames=lambda wanted: clips
    )
    assert (agreement.frames, agreement.stream) == (40, True)
    assert agreement.largest_difference < 1e-5
    assert "on 40 frames of the videos, one by one, the largest difference to the refined model" in agreement.sentence
    other = FORMATS.get("keras").make(tiny("send-on-delta", "pixel"), form="streaming")
    assert FORMATS.get("keras").check(other, tmp_path / "streaming.keras", clips).largest_difference > 1e-2


def test_a_network_of_clips_has_no_streaming_form():
    inputs = keras.Input((4, 12, 10, 3))
    x = keras.layers.Conv3D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    refined = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25))
    with pytest.raises(DeltafineError, match="takes clips, so it has no streaming form"):
        export_streaming(refined)


@pytest.mark.parametrize("form", ["stripped", "quantized"])
def test_the_other_forms_as_onnx_agree_and_have_named_inputs(form, tmp_path):
    needs_onnx()
    model = models.MODELS["depthwise"]()  # with an exact GELU, for which ONNX has another operation
    refined = insert_deltas(model, find_activations(model), DeltaSettings(rule="quantize", initial_threshold=1e-3))
    clips = np.stack(list(models.video(models.SIZE, 6)))[None]
    file = tmp_path / f"{form}.onnx"
    agreement, _ = write_export(refined, file, "onnx", form=form, real_frames=lambda wanted: clips)
    assert agreement.frames == 6
    assert agreement.largest_difference < (1e-4 if form == "stripped" else 2e-2)
    import onnx

    graph = onnx.load(file).graph
    assert [one.name for one in graph.input] == ["frame"]
    assert [one.name for one in graph.output] == ["prediction"]
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}


@keras.saving.register_keras_serializable("tests.exporting")
class Gamma(keras.layers.Layer):
    """An operation that neither ONNX nor its converter knows."""

    def call(self, x):
        import tensorflow as tf

        return tf.math.lgamma(x + 1.0)

    def compute_output_shape(self, input_shape):
        return input_shape


def test_an_operation_that_onnx_has_not_is_refused_with_its_layer(tmp_path):
    needs_onnx()
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Dense(2)(keras.layers.Flatten()(Gamma(name="gamma")(x)))
    model = keras.Model(inputs, x)
    refined = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25))
    with pytest.raises(DeltafineError, match=r"Layer 'gamma' of model .* needs the operation Lgamma, which ONNX has"):
        write_export(refined, tmp_path / "a.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_its_packages_onnx_is_refused_in_one_sentence(refined, tmp_path, monkeypatch):
    from deltafine.exporting import onnx_file

    monkeypatch.setattr(onnx_file, "_NEEDED", ("onnx_that_is_not_there",))
    with pytest.raises(DeltafineError, match=r"needs onnx_that_is_not_there: pip install 'deltafine\[onnx\]'\.$"):
        write_export(refined, tmp_path / "a" / "a.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_streaming_file_is_read_without_deltafine(refined, tmp_path):
    file = tmp_path / "streaming.keras"
    write_export(refined, file, "keras", form="streaming")
    program = (
        "import sys; sys.modules['deltafine'] = None\n"
        f"import keras; print(sorted(keras.models.load_model({str(file)!r}).output)[-1])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "prediction"
