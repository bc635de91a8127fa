"""The stripped form in 8-bit integers: calibrated on the run's frames, and judged on its streams."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import deltafine
from deltafine.errors import DeltafineError
from deltafine.exporting.export_format import Source
from deltafine.exporting.int8 import Int8
from deltafine.exporting.writing import write_export
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from tests.exporting.test_plan import tiny, video
from tests.model import small_models
from tests.small_runs import small_model, write_small_videos


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run directory whose model tells light videos from dark ones."""
    folder = tmp_path_factory.mktemp("run")
    write_small_videos(folder / "videos", per_class=2)
    model = small_model()
    bright = np.zeros_like(model.get_layer("head").kernel)
    bright[:, 1] = np.sign(np.asarray(model.get_layer("head").kernel)[:, 1]) + 1.5
    model.get_layer("head").kernel.assign(bright)
    insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.05)).save(folder / "refined.keras")
    (folder / "settings.toml").write_text(f'data = "{folder / "videos"}"\nvalidation = 0.5\n')
    return folder


@pytest.mark.parametrize(("format", "name"), [("int8", "stripped.int8.tflite"), ("int8-onnx", "stripped.int8.onnx")])
def test_the_accuracy_on_the_streams_stands_beside_that_in_floating_point(finished, format, name):
    if format == "int8-onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    done = deltafine.export(finished, format=format)
    assert done.file == finished / "export" / name
    assert done.agreement.largest_difference < 0.1
    assert "on 24 frames of the streams the accuracy is " in done.agreement.sentence
    assert "(in float32 " in done.agreement.sentence


def test_everything_in_the_file_is_int8_and_the_range_is_that_of_the_frames(tmp_path):
    import tensorflow as tf

    refined = tiny("send-on-delta")
    write_export(refined, tmp_path / "a.tflite", "int8", real_frames=lambda wanted: video(20, (12, 10, 3))[None])
    runner = tf.lite.Interpreter(str(tmp_path / "a.tflite"))
    kinds = {detail["dtype"] for detail in runner.get_tensor_details()}
    assert kinds <= {np.int8, np.int32}
    scale, zero = runner.get_input_details()[0]["quantization"]
    assert (scale, zero) == (pytest.approx(1, abs=0.02), -128)


def test_an_onnx_file_multiplies_integers_and_is_near_the_network(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    refined, frames = tiny("send-on-delta"), video(20, (12, 10, 3))[None]
    agreement, _ = write_export(refined, tmp_path / "a.onnx", "int8-onnx", real_frames=lambda wanted: frames)
    spread = np.std([np.asarray(Int8().make(refined).model(frames[0]))])
    assert 1e-4 < agreement.largest_difference < spread
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert [one.name for one in graph.input] == ["frame"]
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    weights = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4]
    assert len(weights) == 3


def test_a_file_that_is_calibrated_on_other_frames_disagrees(tmp_path):
    """Else the calibration would do nothing."""
    refined, frames = tiny("send-on-delta"), video(20, (12, 10, 3))[None]
    dark, _ = write_export(refined, tmp_path / "dark.tflite", "int8", real_frames=lambda wanted: frames / 64)
    made = Int8().complete(Int8().make(refined), Source(clips=frames))
    assert Int8().check(made, tmp_path / "dark.tflite", frames).largest_difference > 10 * dark.largest_difference


def test_without_frames_nothing_is_written(tmp_path):
    with pytest.raises(DeltafineError, match=r"calibrated on frames of the run's videos: leave --no-check out\.$"):
        write_export(tiny("quantize"), tmp_path / "a" / "a.tflite", "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_form_that_a_format_has_not_is_refused(tmp_path):
    with pytest.raises(DeltafineError, match="The format int8 has no form streaming: choose stripped"):
        write_export(tiny("quantize"), tmp_path / "a.tflite", "int8", form="streaming")


def test_a_network_with_several_outputs_is_refused():
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    model = small_models.randomise(keras.Model(inputs, [keras.layers.Dense(2)(x), keras.layers.Dense(3)(x)]))
    with pytest.raises(DeltafineError, match="is not a network of frames with one output"):
        Int8().make(insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25)))
