"""HDF5 files as plain values and back, attribute by attribute and data set by data set."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FROZEN = Path(__file__).parent / "frozen.json.gz"


def frozen_cases() -> dict[str, Any]:
    """``inputs``, and ``cases`` by name, each with its ``file`` and the ``outputs`` that Keras 2 gave."""
    found: dict[str, Any] = json.loads(gzip.decompress(FROZEN.read_bytes()))
    return found


def as_plain(item: Any) -> dict[str, Any]:
    """A group or data set with its attributes and everything inside."""
    found: dict[str, Any] = {"attributes": {name: _plain_attribute(value) for name, value in item.attrs.items()}}
    if isinstance(item, h5py.Dataset):
        values = np.asarray(item)
        return {**found, "values": values.tolist(), "dtype": values.dtype.str}
    return {**found, "members": {name: as_plain(item[name]) for name in item}}


def write_plain(stored: dict[str, Any], path: Path) -> Path:
    """The file again."""
    with h5py.File(path, "w") as file:
        _fill(file, stored)
    return path


def _fill(group: Any, stored: dict[str, Any]) -> None:
    for name, value in stored["attributes"].items():
        group.attrs[name] = [part.encode() for part in value] if isinstance(value, list) else value
    for name, member in stored.get("members", {}).items():
        if "values" in member:
            group.create_dataset(name, data=np.asarray(member["values"], member["dtype"]))
        else:
            _fill(group.create_group(name), member)


def _plain_attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [part.decode() if isinstance(part, bytes) else str(part) for part in value]
    return value.decode() if isinstance(value, bytes) else str(value)
