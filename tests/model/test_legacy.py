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
from deltafine.model.legacy.configs import cleaned
from tests.model.comparing import assert_frames_identical, with_identity_deltas
from tests.model.legacy.files import frozen_cases, write_plain

FIXTURES = sorted(Path(__file__).parent.glob("legacy/*.h5"))
PER_FRAME = [path for path in FIXTURES if path.stem not in ("recurrent", "time_distributed")]
LAST_BIT = 2e-7


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
    assert kinds == ["input", "hard_sigmoid", "sigmoid", "relu", "pooling", "softmax"]


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


LAMBDA = {"name": "doubling", "function": ["4wEA", None, None], "function_type": "lambda", "output_shape": None,
          "output_shape_type": "raw", "arguments": {"factor": 2}}  # fmt: skip


def with_lambda(folder: Path) -> Path:
    """A model whose last layer but one is a Lambda of Keras 2."""

    def insert(config):
        before = config["layers"][-1]
        call = [[[before["name"], 0, 0, {}]]]
        config["layers"].append(
            {"class_name": "Lambda", "name": "doubling", "config": LAMBDA, "inbound_nodes": call},
        )
        config["output_layers"] = [["doubling", 0, 0]]

    return changed(fixture("shared"), folder, insert)


def test_a_lambda_of_keras_2_is_refused(tmp_path):
    for options in ({}, {"unsafe_lambda": True}):
        with pytest.raises(DeltafineError, match=r"bytecode.*--custom-objects doubling=module:function"):
            load(with_lambda(tmp_path), **options)


def test_a_function_given_for_a_lambda_of_keras_2_takes_its_place(tmp_path):
    data = np.load(fixture("shared").with_suffix(".npz"))
    model = load(with_lambda(tmp_path), custom_objects={"doubling": lambda x, factor: factor * x})
    found = model.predict(data["inputs"], verbose=0)
    np.testing.assert_allclose(found, 2 * data["outputs"], rtol=0, atol=2 * LAST_BIT)


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


FROZEN = frozen_cases()


@pytest.mark.parametrize("case", FROZEN["cases"])
def test_a_nested_model_predicts_what_it_did_whatever_was_frozen_in_it(case, tmp_path):
    stored, outputs = FROZEN["cases"][case]["file"], FROZEN["cases"][case]["outputs"]
    model = load(write_plain(stored, tmp_path / "model.h5"))
    np.testing.assert_allclose(model(np.float32(FROZEN["inputs"])), outputs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", [case for case in FROZEN["cases"] if "functional, norms" in case][::4])
def test_where_weights_have_no_names_the_frozen_layers_tell_their_order(case, tmp_path):
    stored, outputs = FROZEN["cases"][case]["file"], FROZEN["cases"][case]["outputs"]
    path = without_names(write_plain(stored, tmp_path / "model.h5"))
    np.testing.assert_allclose(load(path)(np.float32(FROZEN["inputs"])), outputs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("freeze", ["frozen", "last_thawed", "last_frozen"])
def test_layers_are_frozen_as_the_file_says(freeze, tmp_path):
    stored = FROZEN["cases"][f"functional, plain, {freeze}, in functional"]["file"]
    base = load(write_plain(stored, tmp_path / "model.h5")).get_layer("base")
    flags = [base.trainable, *(layer.trainable for layer in base.layers if layer.weights)]
    expected = {
        "frozen": [False, False, False, False],
        "last_thawed": [False, False, False, True],
        "last_frozen": [True, True, True, False],
    }
    assert flags == expected[freeze]


def names_in(group: h5py.Group, attribute: str) -> list[str]:
    return [name if isinstance(name, str) else name.decode() for name in group.attrs.get(attribute, [])]


def without_names(path: Path) -> Path:
    """The file, its weights called as those of layers that give them no names."""
    with h5py.File(path, "r+") as file:
        for group in file["model_weights"].values():
            names = names_in(group, "weight_names")
            for number, name in enumerate(names):
                group[f"Variable_{number}:0"] = group[name][()]
            group.attrs["weight_names"] = [f"Variable_{number}:0".encode() for number in range(len(names))]
    return path


def two_deep(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Sequential models within each other, which have no flags in a file; the values of their kernels by layer."""

    def conv(name: str, trainable: bool) -> dict:
        config = {"name": name, "trainable": trainable, "filters": 3, "kernel_size": [1, 1], "use_bias": False}
        return {"class_name": "Conv2D", "config": config}

    def sequential(name: str, layers: list) -> dict:
        config = {"name": name, "layers": layers, "build_input_shape": [None, 2, 2, 3]}
        return {"class_name": "Sequential", "config": config}

    deep = sequential("deep", [conv("thawed", True), conv("frozen", False)])
    whole = sequential("whole", [sequential("base", [deep, conv("free", True)]), conv("last", True)])
    random = np.random.default_rng(0)
    kernels = {name: random.normal(size=(1, 1, 3, 3)) for name in ("thawed", "free", "frozen", "last")}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["model_config"] = "2.4.0", json.dumps(whole)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"base", b"last"]
        for layer, names in (("base", ["thawed", "free", "frozen"]), ("last", ["last"])):
            weights.create_group(layer).attrs["weight_names"] = [f"{name}/kernel:0".encode() for name in names]
            for name in names:
                weights[layer][f"{name}/kernel:0"] = kernels[name]
    return path, kernels


def test_names_tell_weights_apart_where_their_order_cannot(tmp_path):
    path, kernels = two_deep(tmp_path / "model.h5")
    model = load(path)
    base = model.get_layer("base")
    found = [*base.get_layer("deep").layers, base.get_layer("free"), model.get_layer("last")]
    for layer, name in zip(found, ("thawed", "frozen", "free", "last"), strict=True):
        np.testing.assert_array_equal(layer.kernel, np.float32(kernels[name]))


def test_weights_that_neither_names_nor_order_tell_apart_are_refused(tmp_path):
    path, _ = two_deep(tmp_path / "model.h5")
    with pytest.raises(DeltafineError, match=r"layer 'base' depends on what was frozen in it.*save it as \.keras"):
        load(without_names(path))


def test_names_that_tensorflow_1_has_numbered_again_still_tell_layers(tmp_path):
    path, kernels = two_deep(tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        for group in file["model_weights"].values():
            names = names_in(group, "weight_names")
            for name in names:
                group.move(name, name.replace("/", "_1/"))
            group.attrs["weight_names"] = [name.replace("/", "_1/").encode() for name in names]
    np.testing.assert_array_equal(load(path).get_layer("base").get_layer("free").kernel, np.float32(kernels["free"]))


def test_a_file_without_the_weights_of_a_layer_is_refused(tmp_path):
    path = changed(fixture("shared"), tmp_path, lambda config: None)
    with h5py.File(path, "r+") as file:
        weights = file["model_weights"]
        weights.attrs["layer_names"] = [name for name in names_in(weights, "layer_names") if name != "dense"]
    with pytest.raises(DeltafineError, match="no weights of layer 'dense'"):
        load(path)


def test_weights_of_a_layer_that_the_model_lacks_are_refused(tmp_path):
    path = changed(fixture("shared"), tmp_path, lambda config: None)
    with h5py.File(path, "r+") as file:
        weights = file["model_weights"]
        weights.move("dense", "other")
        names = names_in(weights, "layer_names")
        weights.attrs["layer_names"] = ["other" if name == "dense" else name for name in names]
    with pytest.raises(DeltafineError, match="weights of a layer 'other', which its model does not have"):
        load(path)


def test_lists_of_names_too_long_for_one_attribute_are_read_in_parts(tmp_path):
    path = changed(fixture("shared"), tmp_path, lambda config: None)
    with h5py.File(path, "r+") as file:
        for group, name in ((file["model_weights"], "layer_names"), (file["model_weights/dense"], "weight_names")):
            for number, part in enumerate(group.attrs[name]):
                group.attrs[f"{name}{number}"] = [part]
            del group.attrs[name]
    data = np.load(fixture("shared").with_suffix(".npz"))
    np.testing.assert_allclose(load(path).predict(data["inputs"], verbose=0), data["outputs"], rtol=0, atol=LAST_BIT)
