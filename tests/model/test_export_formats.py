"""The contract of an export format: made, written, read back by the receiver, and compared on real frames."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.exporting import FORMATS, ExportFormat, Source
from deltafine.exporting.comparing import compare_answers
from deltafine.exporting.forms import frames_of
from deltafine.exporting.writing import write_export
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from deltafine.storage.files import write_atomically
from tests.model import small_models
from tests.report.builders import make_report

ROUNDED = ("int8", "int8-onnx", "fixed-plan", "lava")


def for_lava():
    """Without a maximum, and with a rule that has memory."""
    inputs = keras.Input((12, 10, 3), name="frame")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dense(5, activation="softmax", name="head")(keras.layers.GlobalAveragePooling2D()(x))
    model = small_models.randomise(keras.Model(inputs, x))
    return insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.02))


@pytest.fixture(scope="module")
def refined():
    model = small_models.plain()
    return insert_deltas(model, find_activations(model), DeltaSettings(rule="quantize", initial_threshold=0.25))


class Weights(ExportFormat):
    """The weights alone, with a fault where it is asked for."""

    name = "npz"
    suffix = ".npz"
    compared = "no"

    def make(self, refined, *, form="stripped", frames=None):
        return {weight.path: np.asarray(weight) for weight in refined.weights}

    def write(self, made, file):
        write_atomically(file, lambda path: np.savez(path, **made))

    def check(self, made, file, clips):
        assert clips is None
        with np.load(file) as read:
            if set(read) != set(made):
                raise DeltafineError(f"{file} lacks weights.")
        return None


@pytest.mark.parametrize("name", FORMATS.names)
def test_every_format_writes_its_files_and_is_checked_on_them(refined, tmp_path, name):
    format = FORMATS.get(name)
    assert format.name == name
    if "onnx" in name or name == "akida":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    (tmp_path / "refined.keras").write_bytes(b"a model")
    file = tmp_path / "made" / format.file_name("stripped")
    model = for_lava() if name == "lava" else refined
    asked = []

    def real_frames(wanted):
        asked.append(wanted)
        return small_models.clips()

    agreement, why = write_export(
        model, file, name, real_frames=real_frames, source=Source(tmp_path / "refined.keras", report=make_report)
    )
    assert sorted(file.parent.iterdir()) == sorted(format.files(file))
    assert why == ""
    if format.compared == "no":
        assert (agreement, asked) == (None, [])
    else:
        assert agreement.frames == small_models.clips().shape[0] * small_models.clips().shape[1]
        assert agreement.largest_difference < (0.1 if name in ROUNDED else 1e-4)
        assert agreement.same_class == 1 or name in ROUNDED


@pytest.mark.parametrize("name", ["keras", "tflite"])
def test_a_file_that_holds_another_model_disagrees(refined, tmp_path, name):
    format = FORMATS.get(name)
    file = tmp_path / format.file_name("quantized")
    made, other = format.make(refined, form="quantized"), format.make(refined, form="quantized")
    other.set_weights([weight + 1 for weight in other.get_weights()])
    format.write(other, file)
    assert format.check(made, file, small_models.clips()).largest_difference > 1e-2


def test_thresholds_that_read_back_as_others_are_refused(refined, tmp_path):
    format = FORMATS.get("thresholds")
    made = format.make(refined)
    made["layers"][0]["threshold"] = float("nan")
    format.write(made, tmp_path / "thresholds.json")
    with pytest.raises(DeltafineError, match="not finite"):
        format.check(made, tmp_path / "thresholds.json", None)


def test_without_frames_a_format_that_must_be_compared_writes_nothing(refined, tmp_path):
    def none(plain):
        raise DeltafineError("There are no videos.")

    with pytest.raises(DeltafineError, match="no videos"):
        write_export(refined, tmp_path / "a" / "plain.tflite", "tflite", real_frames=none)
    assert not (tmp_path / "a").exists()
    assert write_export(refined, tmp_path / "plain.keras", "keras", real_frames=none) == (
        None,
        "not compared with the Keras model: There are no videos",
    )
    assert write_export(refined, tmp_path / "plain.tflite", "tflite")[1] == "not compared with the Keras model"


@pytest.mark.parametrize("name", FORMATS.names)
def test_a_model_without_delta_layers_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(DeltafineError, match="has no delta layers"):
        write_export(small_models.plain(), tmp_path / "a" / FORMATS.get(name).file_name("stripped"), name)
    assert list(tmp_path.iterdir()) == []


def test_a_keras_file_with_a_function_that_keras_does_not_know_is_written_and_that_is_said(tmp_path):
    def bent(x):
        return keras.ops.relu(x) * 0.5

    inputs = keras.Input((12, 10, 3))
    outputs = keras.layers.Dense(2, activation=bent)(keras.layers.Flatten()(keras.layers.ReLU()(inputs)))
    model = keras.Model(inputs, outputs)
    format, file = FORMATS.get("keras"), tmp_path / "plain.keras"
    with keras.saving.custom_object_scope({"bent": bent}):
        refined = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25))
        made = format.make(refined)
        format.write(made, file)
        assert format.check(made, file, small_models.clips()).largest_difference == 0
    with pytest.warns(DeltafineWarning, match="needs more than Keras"):
        assert format.check(made, file, small_models.clips()) is None


def test_a_format_of_ones_own_is_taken_as_an_instance(refined, tmp_path):
    write_export(refined, tmp_path / Weights().file_name("stripped"), Weights())
    with np.load(tmp_path / "stripped.npz") as read:
        assert len(read.files) == len(refined.weights)


def test_to_name_the_formats_loads_no_tensorflow():
    code = "import sys, deltafine.exporting as e\nprint(sorted({'tensorflow', 'keras', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout.replace("'", '"')) == [], done.stderr


def test_answers_that_are_no_numbers_show_in_the_difference(refined):
    plain = FORMATS.get("keras").make(refined)
    inputs = frames_of(small_models.clips(), plain)
    agreement = compare_answers(lambda value: np.full((1, plain.output_shape[-1]), np.nan), plain, inputs)
    assert np.isnan(agreement.largest_difference)
