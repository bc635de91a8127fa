"""Checkpoints: everything the rest of a training depends on, in one file that is there whole or not at all.

Each holds digests of what is in it, so that damage on the disk is told apart from values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import h5py
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.storage import hdf5
from deltafine.storage.files import JsonObject, is_damage, make_folder

if TYPE_CHECKING:
    import keras


Result = TypeVar("Result")

_OF_FACTS, _OF_VALUES = "digest of facts", "digest of values"


class Damaged(DeltafineError):
    """A checkpoint cannot be read, or is not as it was written; ``reason`` names the file, without advice."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason[:1].upper()}{reason[1:]}: start a new run.")
        self.reason = reason


def save(path: Path, variables: Sequence[keras.Variable], facts: JsonObject) -> None:
    """Write variables (in order) and JSON facts.

    Raises:
        CannotWrite: the disk is full, or the place may not be written.
    """

    def fill(file: hdf5.WrittenFile) -> None:
        text = json.dumps(facts)
        file.attrs["facts"] = text
        file.attrs[_OF_FACTS] = _digest(text)
        digests = []
        for index, variable in enumerate(variables):
            value = np.asarray(variable)
            file.create_dataset(f"{index:05d}", data=value)
            digests.append(_digest(value))
        file.attrs[_OF_VALUES] = _digest("".join(digests))

    make_folder(path.parent)
    hdf5.write(path, fill)


def read_facts(path: Path) -> JsonObject:
    """The JSON facts of a checkpoint.

    Raises:
        Damaged: they are not as they were written.
        DeltafineError: the file cannot be read now.
    """
    return _read(path, _facts)


def restore(path: Path, variables: Sequence[keras.Variable], *, more: bool = False) -> list[np.ndarray]:
    """Assign the saved values to the variables.

    Args:
        path: of the checkpoint.
        variables: in the order in which they were saved.
        more: whether further values may have been saved after theirs.

    Returns:
        These further values.

    Raises:
        Damaged: the values are not as they were written; the variables are as they were.
        DeltafineError: the file is of another model, or cannot be read now.
    """
    values = _read(path, _values)
    shapes = [tuple(value.shape) for value in (values[: len(variables)] if more else values)]
    if shapes != [tuple(variable.shape) for variable in variables]:
        raise DeltafineError(f"The checkpoint {path} belongs to another model or other settings: start a new run.")
    for variable, value in zip(variables, values, strict=False):
        variable.assign(value)
    return values[len(variables) :]


def check(path: Path) -> None:
    """Read everything, and keep nothing.

    Raises:
        Damaged: something is not as it was written.
        DeltafineError: the file cannot be read now.
    """
    _read(path, lambda file: (_facts(file), _values(file)))


def _facts(file: h5py.File) -> JsonObject:
    text = file.attrs["facts"]
    # Earlier versions wrote no digests.
    if file.attrs.get(_OF_FACTS, _digest(text)) != _digest(text):
        raise ValueError("its facts have changed")
    facts: JsonObject = json.loads(text)
    return facts


def _values(file: h5py.File) -> list[np.ndarray]:
    values = [file[name][()] for name in sorted(file)]
    digest = _digest("".join(map(_digest, values)))
    if file.attrs.get(_OF_VALUES, digest) != digest:
        raise ValueError("its values have changed")
    return values


def _digest(content: str | np.ndarray) -> str:
    if isinstance(content, str):
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    digest = hashlib.blake2b(f"{content.dtype.str} {content.shape} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(content).data)
    return digest.hexdigest()


def _read(path: Path, what: Callable[[h5py.File], Result]) -> Result:
    try:
        with h5py.File(path, "r") as file:
            return what(file)
    except Exception as error:  # whatever HDF5, JSON and NumPy make of a file that is damaged
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        if not is_damage(error):
            raise DeltafineError(f"The checkpoint {path} cannot be read: {reason}.") from error
        raise Damaged(f"the checkpoint {path} is damaged ({reason})") from error
