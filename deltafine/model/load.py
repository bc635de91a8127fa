"""Loading a Keras model from a file, or saying in one sentence why it cannot be used."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import keras

from deltafine import hdf5
from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.legacy import build_legacy, is_legacy, load_legacy
from deltafine.model.safety import check_archive, check_config, check_outputs, parsed

_SUFFIXES = (".keras", ".h5", ".hdf5")
_SAVE_AGAIN = "save it with model.save('model.keras')"


def load(path: str | Path, *, custom_objects: Mapping[str, Any] | None = None, unsafe_lambda: bool = False) -> Any:
    """Load a built Functional or Sequential Keras model.

    Args:
        path: a ``.keras``, ``.h5`` or ``.hdf5`` file that holds a whole model.
        custom_objects: the user's own layers and functions, by the name under which they were saved.
        unsafe_lambda: allow ``Lambda`` layers, which run Python code stored in the file.

    Returns:
        The model, not compiled.

    Raises:
        DeltafineError: the file is missing, unreadable, no Keras model, weights only, or a SavedModel
            directory; or the model is subclassed or unbuilt, and has no graph to rewrite.
    """
    path = Path(path)
    _check_file(path)
    objects = dict(custom_objects or {})
    try:
        _check_contents(path, objects, unsafe_lambda)
        if path.suffix.lower() != ".keras" and is_legacy(path):
            model = load_legacy(path, objects)
        else:
            model = keras.models.load_model(path, custom_objects=objects, compile=False, safe_mode=not unsafe_lambda)
    except DeltafineError as error:
        raise DeltafineError(f"{path} cannot be used: {error}") from error
    except Exception as error:  # Keras raises whatever the layer at fault raises.
        raise DeltafineError(_explanation(path, error)) from error
    check_model(model, where=str(path))
    try:
        check_outputs(model)
    except DeltafineError as error:
        raise DeltafineError(f"{path} cannot be used: {error}") from error
    return model


def _check_contents(path: Path, objects: Mapping[str, Any], unsafe_lambda: bool) -> None:
    """Look at a stranger's file before Keras believes it; see ``safety``."""
    legacy = path.suffix.lower() != ".keras" and is_legacy(path)
    if path.suffix.lower() == ".keras":
        config = check_archive(path)
    else:
        with h5py.File(path, "r") as file:
            hdf5.check(file)
            config = parsed(file.attrs["model_config"])

    def build() -> Any:
        if legacy:
            return build_legacy(deepcopy(config), objects)
        if path.suffix.lower() != ".keras":  # HDF5 keeps the shape of configurations that Keras 2 had
            kind = keras.Sequential if config["class_name"] == "Sequential" else keras.Model
            return kind.from_config(deepcopy(config["config"]), dict(objects))
        uncompiled, safe = _without_compilation(config), not unsafe_lambda
        return keras.saving.deserialize_keras_object(uncompiled, custom_objects=dict(objects), safe_mode=safe)

    check_config(config, build, path.stat().st_size, trusted=unsafe_lambda or bool(objects))


def _without_compilation(config: Any) -> Any:
    """A copy without what models were compiled with: optimisers make variables of their own."""
    if isinstance(config, dict):
        return {key: _without_compilation(value) for key, value in config.items() if key != "compile_config"}
    return [_without_compilation(entry) for entry in config] if isinstance(config, list) else config


def check_model(model: Any, where: str = "") -> None:
    """Refuse a model that has no layer graph.

    Raises:
        DeltafineError: the model is subclassed or unbuilt.
    """
    place = where or f"model '{getattr(model, 'name', model)}'"
    if isinstance(model, keras.Sequential) and not model.built:
        raise DeltafineError(
            f"The Sequential model in {place} is not built, so its shapes are unknown: call "
            f"model.build((None, height, width, channels)) or put keras.Input first, then {_SAVE_AGAIN}."
        )
    if isinstance(model, keras.Sequential) and not graph.is_graph(model):
        raise DeltafineError(
            f"The Sequential model in {place} has no layer graph, because one of its layers does not say what shape it "
            "gives: add compute_output_shape() to your own layers among them."
        )
    if not isinstance(model, keras.Model) or not graph.is_graph(model):
        raise DeltafineError(
            f"The model in {place} is subclassed ({type(model).__name__}) and has no layer graph to rewrite: "
            "rebuild it as keras.Model(inputs, outputs) with the functional API."
        )


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DeltafineError(f"There is no model file {path}.")
    if path.is_dir():
        what = "a SavedModel directory" if (path / "saved_model.pb").exists() else "a directory"
        raise DeltafineError(
            f"{path} is {what}, which holds no layer graph to rewrite: load it where it was made and {_SAVE_AGAIN}."
        )
    if path.suffix.lower() not in _SUFFIXES:
        raise DeltafineError(f"{path} is not a Keras model file: its name must end in {', '.join(_SUFFIXES)}.")
    if path.name.endswith(".weights.h5"):
        raise _weights_only(path)
    if path.suffix.lower() == ".keras":
        _check_archive(path)
    else:
        _check_hdf5(path)


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        if h5py.is_hdf5(path):
            raise DeltafineError(f"{path} is an HDF5 file under a .keras name: rename it to end in .h5.") from error
        raise DeltafineError(
            f"{path} is not a readable .keras file ({error}): it may be cut short; copy or {_SAVE_AGAIN} again."
        ) from error


def _check_hdf5(path: Path) -> None:
    try:
        with h5py.File(path, "r") as file:
            has_model = "model_config" in file.attrs
            has_weights = bool({"layer_names", "keras_version"} & set(file.attrs)) or "layers" in file
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # as the library finds it damaged
        raise DeltafineError(f"{path} is not a readable HDF5 file ({error}).") from error
    if has_model:
        return
    if has_weights:
        raise _weights_only(path)
    raise DeltafineError(f"{path} is an HDF5 file but holds no Keras model (no model_config in it).")


def _weights_only(path: Path) -> DeltafineError:
    return DeltafineError(
        f"{path} holds weights only: build the model in Python, call model.load_weights('{path.name}') and "
        f"{_SAVE_AGAIN}."
    )


def _explanation(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Lambda" in text and ("unsafe" in text or "safe_mode" in text):
        return (
            f"{path} has a Lambda layer, that is Python code stored in the file, which would run with all your rights: "
            "only if you trust whoever made the file, allow it with --unsafe-lambda."
        )
    if "Could not locate" in text or "Unknown layer" in text or "Unknown object" in text:
        return (
            f"{path} uses a layer or function that Keras does not know ({text[:160]}): name it with "
            "--custom-objects module:name."
        )
    return f"Keras cannot load {path} ({type(error).__name__}: {text[:300]})."
