"""Checkpoints: everything the rest of a training depends on, in one file that is there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.storage import hdf5
from deltafine.storage.files import make_folder, write_atomically


def save(path: Path, variables: Sequence[Any], facts: dict[str, Any]) -> None:
    """Write variables (in order) and JSON facts."""

    def write(temporary: Path) -> None:
        with hdf5.written(temporary) as file:
            file.attrs["facts"] = json.dumps(facts)
            for index, variable in enumerate(variables):
                file.create_dataset(f"{index:05d}", data=np.asarray(variable))

    make_folder(path.parent)
    write_atomically(path, write)


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint."""
    with _open(path) as file:
        return json.loads(file.attrs["facts"])


def restore(path: Path, variables: Sequence[Any], *, more: bool = False) -> list[np.ndarray]:
    """Assign the saved values to the variables.

    Args:
        path: of the checkpoint.
        variables: in the order in which they were saved.
        more: whether further values may have been saved after theirs.

    Returns:
        These further values.

    Raises:
        DeltafineError: the file is broken or of another model.
    """
    with _open(path) as file:
        names = sorted(file)
        values = [file[name][()] for name in names]
    shapes = [tuple(value.shape) for value in (values[: len(variables)] if more else values)]
    if shapes != [tuple(variable.shape) for variable in variables]:
        raise DeltafineError(f"The checkpoint {path} belongs to another model or other settings: start a new run.")
    for variable, value in zip(variables, values, strict=False):
        variable.assign(value)
    return values[len(variables) :]


def _open(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DeltafineError(f"Cannot read the checkpoint {path}: {error}.") from error
