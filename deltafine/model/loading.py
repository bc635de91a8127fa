"""Loading a model from a file of Keras or ONNX, or saying in one sentence why it cannot be used."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import keras

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.keras_hdf5 import build_hdf5, load_hdf5
from deltafine.model.keras_private import Config, CustomObjects
from deltafine.model.lambdas import refuse_code, supplied, write_with_config
from deltafine.model.legacy.models import build_legacy, is_legacy, load_legacy
from deltafine.model.model_file import SAVE_AGAIN, Kind, kind_of, named_for_keras
from deltafine.model.onnx_import.importing import load_onnx
from deltafine.model.onnx_import.onnx_reading import files_beside
from deltafine.model.safety import check_archive, check_config, check_outputs, parsed
from deltafine.storage import hdf5
from deltafine.storage.files import looks_like_onnx


def load(path: str | Path, *, custom_objects: CustomObjects | None = None, unsafe_lambda: bool = False) -> keras.Model:
    """Load a built Functional or Sequential Keras model.

    Args:
        path: a file that holds a whole model, as Keras saves it under a name that ends in ``.keras`` or ``.h5``,
            whatever it is called now; or a convolutional network in ONNX, which is made a Keras model.
        custom_objects: the user's own layers and functions, by the name under which they were saved, and the functions
            of ``Lambda`` layers, by the layer's name.
        unsafe_lambda: allow ``Lambda`` layers, which run Python code stored in the file.

    Returns:
        The model, not compiled.

    Raises:
        DeltafineError: the file is missing, unreadable, no Keras model, weights only, or a SavedModel
            directory; or the model is subclassed or unbuilt, and has no graph to rewrite.
    """
    path = Path(path)
    kind = kind_of(path)
    objects = dict(custom_objects or {})
    try:
        model = _loaded(path, kind, objects, unsafe_lambda)
    except DeltafineError as error:
        raise DeltafineError(f"{path} cannot be used: {error}") from error
    except Exception as error:  # Keras raises whatever the layer at fault raises.
        raise DeltafineError(_explanation(path, kind, error)) from error
    check_model(model, where=str(path))
    try:
        check_outputs(model)
    except DeltafineError as error:
        raise DeltafineError(f"{path} cannot be used: {error}") from error
    return model


def _loaded(path: Path, kind: Kind, objects: CustomObjects, unsafe_lambda: bool) -> keras.Model:
    """Check a file that others made before Keras believes it (see ``safety``), and load it."""
    if kind is Kind.onnx:
        return load_onnx(path)
    stored = _config_in(path, kind)
    config = supplied(stored, objects)
    legacy = kind is Kind.hdf5 and is_legacy(path)
    if not unsafe_lambda and not legacy:  # no code of Keras 2 is ever run
        refuse_code(config)

    def build() -> keras.Model:
        if legacy:
            return build_legacy(deepcopy(config), objects)
        if kind is Kind.hdf5:
            return build_hdf5(deepcopy(config), objects, unsafe_lambda=unsafe_lambda)
        uncompiled, safe = _without_compilation(config), not unsafe_lambda
        return keras.saving.deserialize_keras_object(uncompiled, custom_objects=dict(objects), safe_mode=safe)

    check_config(config, build, path.stat().st_size, trusted=unsafe_lambda or bool(objects))
    if legacy:
        return load_legacy(path, config, objects)
    if kind is Kind.hdf5:
        return load_hdf5(path, config, objects, unsafe_lambda=unsafe_lambda)
    how: dict[str, Any] = {"custom_objects": dict(objects), "compile": False, "safe_mode": not unsafe_lambda}
    if config is stored:
        with named_for_keras(path, kind) as file:
            return keras.models.load_model(file, **how)
    with tempfile.TemporaryDirectory(prefix="deltafine-") as folder:
        return keras.models.load_model(write_with_config(path, config, Path(folder, "model.keras")), **how)


def _config_in(path: Path, kind: Kind) -> Config:
    if kind is Kind.archive:
        return check_archive(path)
    with h5py.File(path, "r") as file:
        hdf5.check(file)
        return parsed(file.attrs["model_config"])


def _without_compilation(config: Any) -> Any:
    """A copy without what models were compiled with: optimisers make variables of their own."""
    if isinstance(config, dict):
        return {key: _without_compilation(value) for key, value in config.items() if key != "compile_config"}
    return [_without_compilation(entry) for entry in config] if isinstance(config, list) else config


def files_of(path: Path) -> list[Path]:
    """The file of a model that was loaded before, and those beside it that hold weights of an ONNX file."""
    return [path, *files_beside(path)] if kind_of(path) is Kind.onnx else [path]


def pixels_note(path: str | os.PathLike[str], model: keras.Model, rescale: str | None) -> str | None:
    """What to say of a network in ONNX that gets its pixels as they are: before PyTorch's, others normalise them.

    Args:
        path: of its file.
        model: made of that.
        rescale: how the user scales the pixels.

    Returns:
        None where they are scaled, by the user or in the network.
    """
    scaling = (keras.layers.Rescaling, keras.layers.BatchNormalization)
    if rescale is not None or not looks_like_onnx(Path(path)) or isinstance(model.layers[1], scaling):
        return None
    return (
        f"{path} gets pixels from 0 to 255 as they are, and PyTorch's networks want them normalised: give --rescale "
        "torch for the mean and deviation of ImageNet, or 0..1 for pixels divided by 255."
    )


def check_model(model: keras.Model, where: str = "") -> None:
    """Refuse a model that has no layer graph.

    Raises:
        DeltafineError: the model is subclassed or unbuilt.
    """
    place = where or f"model '{getattr(model, 'name', model)}'"
    if isinstance(model, keras.Sequential) and not model.built:
        raise DeltafineError(
            f"The Sequential model in {place} is not built, so its shapes are unknown: call "
            f"model.build((None, height, width, channels)) or put keras.Input first, then {SAVE_AGAIN}."
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


def _explanation(path: Path, kind: Kind, error: Exception) -> str:
    text = " ".join(str(error).split())
    if kind is Kind.archive and (version := _version_in(path)) is not None and version < 3:
        return (
            f"{path} was written by Keras {version} in a form of .keras that Keras 3 does not read: load it with the "
            "Keras that wrote it, and save it as .h5."
        )
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


def _version_in(path: Path) -> int | None:
    """The main version of the Keras that wrote an archive, where it says so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return int(json.loads(archive.read("metadata.json"))["keras_version"].split(".")[0])
    except (OSError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile):
        return None
