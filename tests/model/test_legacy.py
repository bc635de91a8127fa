"""Files of Keras 2, as ``legacy/write_fixtures.py`` made them, against the outputs that Keras 2 gave."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.model import DeltaSettings, find_activations, insert_deltas, load
from deltafine.model.legacy_configs import cleaned
from tests.model.comparing import assert_frames_identical, with_identity_deltas

FIXTURES = sorted(Path(__file__).parent.glob("legacy/*.h5"))
PER_FRAME = [path for path in FIXTURES if path.stem not in ("recurrent", "time_distributed")]
LAST_BIT = 6e-8


def id_of(path: Path) -> str:
    return path.stem


def changed(path: Path, folder: Path, change) -> Path:
    """A copy of a fixture whose model configuration went through ``change``."""
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"])
        file.attrs["model_config"] = json.dumps(config)
    return copy


def fixture(name: str) -> Path:
    return next(path for path in FIXTURES if path.stem == name)


@pytest.mark.parametrize("path", FIXTURES, ids=id_of)
def test_a_file_of_keras_2_predicts_what_keras_2_predicted(path):
    data = np.load(path.with_suffix(".npz"))
    model = load(path)
    np.testing.assert_allclose(model.predict(data["inputs"], verbose=0), data["outputs"], rtol=0, atol=LAST_BIT)


@pytest.mark.parametrize("path", PER_FRAME, ids=id_of)
def test_identity_layers_change_no_bit_of_a_legacy_model(path):
    model, clips = load(path), np.load(path.with_suffix(".npz"))["inputs"][None]
    assert_frames_identical(model, with_identity_deltas(model), clips)


def test_a_legacy_model_that_takes_clips_is_rewritten_and_saved(tmp_path):
    path = fixture("time_distributed")
    model, data = load(path), np.load(path.with_suffix(".npz"))
    clip_model = insert_deltas(model, find_activations(model), DeltaSettings(rule="identity"))
    clip_model.save(tmp_path / "clips.keras")
    loaded = keras.models.load_model(tmp_path / "clips.keras")
    np.testing.assert_allclose(loaded.predict(data["inputs"], verbose=0), data["outputs"], rtol=0, atol=1e-6)


def test_operations_of_tensorflow_become_operations_of_keras():
    kinds = [site.kind for site in find_activations(load(fixture("operators")))]
    assert kinds == ["input", "hard_sigmoid", "sigmoid", "relu", "softmax"]


def test_a_saved_copy_of_a_legacy_model_loads_in_keras_3_alone(tmp_path):
    path = fixture("operators")
    data = np.load(path.with_suffix(".npz"))
    load(path).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(model.predict(data["inputs"], verbose=0), data["outputs"], rtol=0, atol=LAST_BIT)


def test_frozen_layers_of_a_legacy_model_stay_frozen(tmp_path):
    def freeze(config):
        config["layers"][1]["config"]["trainable"] = False

    assert not load(changed(fixture("shared"), tmp_path, freeze)).layers[1].trainable


def test_an_unknown_tensorflow_function_is_refused_by_name(tmp_path):
    def rename(config):
        layer = next(layer for layer in config["layers"] if layer["class_name"] == "TFOpLambda")
        layer["config"]["function"] = "math.betainc"

    with pytest.raises(DeltafineError, match=r"tf\.math\.betainc, which has no Keras 3 operation"):
        load(changed(fixture("operators"), tmp_path, rename))


def test_a_lambda_of_keras_2_is_refused(tmp_path):
    def make_lambda(config):
        config["layers"][1]["class_name"] = "Lambda"

    with pytest.raises(DeltafineError, match=r"Lambda saved by Keras 2.*bytecode"):
        load(changed(fixture("shared"), tmp_path, make_lambda))


def test_an_unknown_layer_is_refused_by_name(tmp_path):
    def rename(config):
        config["layers"][1]["class_name"] = "Swirl"

    with pytest.raises(DeltafineError, match=r"class Swirl.*--custom-objects"):
        load(changed(fixture("shared"), tmp_path, rename))


def test_a_layer_that_its_author_registered_is_found_by_its_name(tmp_path):
    class Swirl(keras.layers.Conv2D):
        pass

    def rename(config):
        config["layers"][1]["class_name"] = "Custom>Swirl"

    model = load(changed(fixture("shared"), tmp_path, rename), custom_objects={"Swirl": Swirl})
    data = np.load(fixture("shared").with_suffix(".npz"))
    assert isinstance(model.layers[1], Swirl)
    np.testing.assert_allclose(model.predict(data["inputs"], verbose=0), data["outputs"], rtol=0, atol=LAST_BIT)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    def widen(config):
        config["layers"][-1]["config"]["units"] = 7

    with pytest.raises(DeltafineError, match=r"weights of layer 'dense' have shapes"):
        load(changed(fixture("shared"), tmp_path, widen))


@pytest.mark.parametrize(
    ("class_name", "config", "expected"),
    [
        ("Conv2D", {"name": "a/b/c"}, {"name": "a_b_c"}),
        ("DepthwiseConv2D", {"name": "d", "groups": 1, "kernel_regularizer": None}, {"name": "d"}),
        ("LSTM", {"time_major": False, "implementation": 2, "units": 3}, {"units": 3}),
        ("BatchNormalization", {"axis": [3], "renorm": False}, {"axis": 3}),
        ("Conv2D", {"batch_input_shape": [None, 8, 8, 3], "filters": 2}, {"filters": 2}),
        ("Dense", {"dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}}}, {"dtype": "mixed_float16"}),
        ("LeakyReLU", {"alpha": 0.1}, {"negative_slope": 0.1}),
        ("Dense", {"kernel_initializer": {"class_name": "Gone"}, "units": 2}, {"units": 2}),
        ("RandomFlip", {"rng_type": "stateful", "mode": "horizontal"}, {"mode": "horizontal"}),
    ],
)
def test_each_rule_of_cleaning_cures_its_error(class_name, config, expected):
    assert cleaned(class_name, config) == expected


def test_time_before_the_batch_is_refused():
    with pytest.raises(DeltafineError, match="time_major"):
        cleaned("LSTM", {"name": "recurrent", "time_major": True})
