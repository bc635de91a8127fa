"""What kind of file a model lies in, told by its contents: names are given as people like."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import h5py

from deltafine.errors import DeltafineError
from deltafine.storage import run_files
from deltafine.storage.files import is_lfs_pointer, looks_like_onnx
from deltafine.storage.hdf5 import DAMAGE

SAVE_AGAIN = "save it with model.save('model.keras')"
_ZIP = b"PK"


class Kind(StrEnum):
    """The forms in which Keras saves a model, by the ending that Keras wants; and ONNX."""

    archive = ".keras"
    hdf5 = ".h5"
    onnx = ".onnx"


def kind_of(path: Path) -> Kind:
    """Which form a file has.

    Raises:
        DeltafineError: there is none, it is no model, or it holds weights only.
    """
    if not path.exists():
        raise DeltafineError(f"There is no model file {path}.")
    if path.is_dir():
        if (path / run_files.REFINED).exists():
            raise DeltafineError(f"{path} is a run directory: give its model, {path / run_files.REFINED}.")
        if not (path / "saved_model.pb").exists():
            raise DeltafineError(f"{path} is a folder, and no model: give a .keras, .h5 or .onnx file.")
        raise DeltafineError(
            f"{path} is a SavedModel directory, which holds no layer graph to rewrite: load it where it was made and "
            f"{SAVE_AGAIN}."
        )
    if not path.is_file():
        raise DeltafineError(f"{path} is no file: give a Keras model.")
    if is_lfs_pointer(path):
        raise DeltafineError(
            f"{path} is a Git LFS pointer, a note in place of the model: fetch the model itself with git lfs pull."
        )
    with path.open("rb") as file:
        begin = file.read(len(_ZIP))
    if begin == _ZIP or zipfile.is_zipfile(path):
        _check_archive(path)
        return Kind.archive
    if h5py.is_hdf5(path):
        _check_hdf5(path)
        return Kind.hdf5
    if looks_like_onnx(path):
        return Kind.onnx
    raise _unreadable(path)


def _unreadable(path: Path) -> DeltafineError:
    cut = f"it may be cut short; copy or {SAVE_AGAIN} again"
    if path.suffix.lower() == Kind.archive:
        return DeltafineError(f"{path} is not a readable .keras file (no zip archive): {cut}.")
    if path.suffix.lower() in (Kind.hdf5, ".hdf5"):
        return DeltafineError(f"{path} is not a readable HDF5 file (its beginning is none): {cut}.")
    return DeltafineError(
        f"{path} is not a Keras model file: it is neither what Keras saves as .keras, nor as .h5, nor ONNX; load the "
        f"model where it was made and {SAVE_AGAIN}."
    )


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DeltafineError(
            f"{path} is not a readable .keras file ({error}): it may be cut short; copy or {SAVE_AGAIN} again."
        ) from error


def _check_hdf5(path: Path) -> None:
    try:
        with h5py.File(path, "r") as file:
            has_model = "model_config" in file.attrs
            has_weights = bool({"layer_names", "keras_version"} & set(file.attrs)) or "layers" in file
    except DAMAGE as error:
        raise DeltafineError(f"{path} is not a readable HDF5 file ({error}).") from error
    if has_model:
        return
    if has_weights:
        raise DeltafineError(
            f"{path} holds weights only: build the model in Python, call model.load_weights('{path.name}') and "
            f"{SAVE_AGAIN}."
        )
    raise DeltafineError(f"{path} is an HDF5 file but holds no Keras model (no model_config in it).")


@contextmanager
def named_for_keras(path: Path, kind: Kind) -> Iterator[Path]:
    """The file under a name that Keras takes, which goes by the ending."""
    if path.suffix == kind:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="deltafine-") as folder:
        other = Path(folder, f"model{kind}")
        try:
            other.symlink_to(path.resolve())
        except OSError:  # Windows without the right to make links
            shutil.copyfile(path, other)
        yield other
