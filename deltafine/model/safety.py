"""Checking a model file that others made before anything in it is believed: sizes, links, classes, shapes."""

from __future__ import annotations

import io
import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import keras

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.keras_private import Config
from deltafine.storage import hdf5

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MOST_MEMBERS = 10_000
MOST_CONFIG_BYTES = 1 << 26
MOST_DEPTH = 200
INFLATION = 20
"""Weights hardly shrink: what grows by more than this when it is unpacked, and is large then, is no model."""
SLACK = 1 << 26
"""Bytes that a file may ask for whatever its own size."""
LARGEST_OUTPUT = 1 << 30
"""Elements that a layer may give for one frame."""
LOADERS = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
"""Layers that load programs of other frameworks."""


def check_archive(path: Path) -> Config:
    """Check what a ``.keras`` archive holds, and give its configuration.

    Raises:
        DeltafineError: it is none, or it is not what Keras writes.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise DeltafineError(f"it holds {len(members)} files, more than a model has.")
        for member in members:
            name = PurePosixPath(member.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
                raise DeltafineError(f"it holds a file named {member.filename!r}, which leads out of it.")
        if CONFIG not in archive.namelist():
            raise DeltafineError(f"it is a zip archive but holds no Keras model (no {CONFIG} in it).")
        unpacked = sum(member.file_size for member in members)
        if unpacked > SLACK + INFLATION * path.stat().st_size or archive.getinfo(CONFIG).file_size > MOST_CONFIG_BYTES:
            raise DeltafineError(f"unpacked it would take {unpacked:,} bytes, which no model of its size does.")
        # Keras reads weights in an order in which no checksum is compared.
        if (damaged := archive.testzip()) is not None:
            raise DeltafineError(f"its member {damaged!r} is damaged: copy the file again, or save the model again.")
        config = parsed(archive.read(CONFIG))
        if WEIGHTS in archive.namelist():
            with _member(archive, WEIGHTS) as stored, h5py.File(stored, "r") as file:
                hdf5.check(file)
    return config


def parsed(text: bytes | str) -> Config:
    """The configuration of a model, if it is a JSON object that is neither large nor deep.

    Raises:
        DeltafineError: it is not.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeltafineError(f"its configuration is not valid JSON ({str(error)[:100]}).") from error
    if len(text) > MOST_CONFIG_BYTES or not isinstance(config, dict) or _depth(config) > MOST_DEPTH:
        raise DeltafineError("its configuration is not that of a model.")
    return config


def check_config(config: Config, build: Callable[[], keras.Model], file_bytes: int, *, trusted: bool) -> None:
    """Check which layers a configuration names, and how much memory its weights ask for, without taking it.

    Args:
        config: of the model.
        build: makes the model, without weights; called where variables are declared but not made.
        file_bytes: how large the model's file is.
        trusted: whether the user has allowed Python code of their own or in the file.

    Raises:
        DeltafineError: a layer loads programs, or the weights cannot be those in the file.
    """
    if not trusted:
        for node in dicts(config):
            if node.get("class_name") in LOADERS:
                raise DeltafineError(f"it has a {node['class_name']}, which loads a program: export it without.")
    # Keras would make the variables the next time that a graph is built; its memory of them ends with the thread.
    with ThreadPoolExecutor(1) as thread:
        declaring = thread.submit(_declared_bytes, build)
    try:
        wanted = declaring.result()
    except DeltafineError:
        raise
    except Exception:
        return  # what is wrong with the model, if anything, Keras says when it is loaded
    if wanted > SLACK + 4 * file_bytes:
        raise DeltafineError(f"it declares weights of {wanted:,} bytes, and holds no more than {file_bytes:,}.")


def _declared_bytes(build: Callable[[], keras.Model]) -> int:
    with keras.StatelessScope(initialize_variables=False):
        return 4 * sum(math.prod(variable.shape) for variable in build().variables)


def check_outputs(model: keras.Model) -> None:
    """Refuse a model that would need absurd room to compute one frame.

    Raises:
        DeltafineError: a layer gives too many values.
    """
    for name, tensor in graph.all_outputs(model):
        sizes = [size for size in tensor.shape[1:] if size is not None]
        if math.prod(sizes) > LARGEST_OUTPUT:
            raise DeltafineError(f"its layer '{name}' gives {'x'.join(map(str, sizes))} values for a frame.")


def _depth(value: Any) -> int:
    """How deep dicts and lists are nested, found without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for node in level
            if isinstance(node, (dict, list))
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
    return depth


def dicts(value: Any) -> Iterator[Config]:
    """Every dict in a configuration, outer ones first."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    """A file of an archive that can be read in any order; Keras stores weights as they are."""
    if archive.getinfo(name).compress_type == zipfile.ZIP_STORED:
        return io.BufferedReader(archive.open(name))  # type: ignore[arg-type]
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    with archive.open(name) as stored:
        shutil.copyfileobj(stored, unpacked)
    unpacked.seek(0)
    return unpacked
