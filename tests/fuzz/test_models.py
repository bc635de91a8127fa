"""Model files of strangers: loaded, or refused in a sentence before they take memory, time or anything else."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

from deltafine.errors import DeltafineError
from deltafine.model.loading import load
from tests.fuzz.harness import FEW, MANY, fuzz, limits
from tests.fuzz.mutations import Blob, changed_bytes, changed_tree
from tests.model.onnx_in.graphs import Graph
from tests.small_runs import small_model

how_many = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A sound model as ``.keras`` and as ``.h5``."""
    folder = tmp_path_factory.mktemp("model")
    for name in ("small.keras", "small.h5"):
        small_model().save(folder / name)
    return (folder / "small.keras").read_bytes(), (folder / "small.h5").read_bytes()


def parts_of(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return Blob(buffer.getvalue())


def with_weights(archive: bytes, change: Callable[[h5py.File], object]) -> bytes:
    """The archive, its HDF5 file changed."""
    parts = parts_of(archive)
    buffer = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return packed({**parts, "model.weights.h5": buffer.getvalue()})


@how_many
def test_onnx_files(tmp_path: Path, examples: int) -> None:
    graph = Graph("batch", 3, 8, 8)
    x = graph.add("MaxPool", graph.add("Relu", graph.conv("input", 4, 3)), kernel_shape=[2, 2], strides=[2, 2])
    x = graph.add("Reshape", x, np.array([0, -1]))
    graph.add("Gemm", x, graph.drawn(64, 2))
    content, file = graph.proto().SerializeToString(), tmp_path / "model.onnx"

    def read(changed: bytes) -> None:
        file.write_bytes(changed)
        assert isinstance(load(file), keras.Model)

    fuzz(changed_bytes([content]), read, examples)


@how_many
def test_keras_archives(files: tuple[bytes, bytes], tmp_path: Path, examples: int) -> None:
    parts = parts_of(files[0])
    config = json.loads(parts["config.json"])

    @st.composite
    def archives(draw: st.DrawFn) -> bytes:
        how = draw(st.sampled_from(["archive", "configuration", "configuration", "weights"]))
        if how == "archive":
            return draw(changed_bytes([files[0]]))
        if how == "weights":
            return packed({**parts, "model.weights.h5": draw(changed_bytes([parts["model.weights.h5"]]))})
        text = json.dumps(draw(changed_tree([config]))).encode("utf-8", "surrogatepass")
        return packed({**parts, "config.json": text})

    file = tmp_path / "model.keras"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        assert isinstance(load(file), keras.Model)

    counts = fuzz(archives(), read, examples)
    assert min(counts["taken"], counts["refused"]) > examples / 50


@how_many
def test_hdf5_models(files: tuple[bytes, bytes], tmp_path: Path, examples: int) -> None:
    with h5py.File(io.BytesIO(files[1])) as whole:
        config = json.loads(whole.attrs["model_config"])
    file = tmp_path / "model.h5"

    @st.composite
    def models(draw: st.DrawFn) -> bytes:
        if draw(st.booleans()):
            return draw(changed_bytes([files[1]]))
        buffer = io.BytesIO(files[1])
        with h5py.File(buffer, "r+") as changed:
            changed.attrs["model_config"] = json.dumps(draw(changed_tree([config])))
            if draw(st.booleans()):
                changed.attrs["keras_version"] = "2.15.0"
        return Blob(buffer.getvalue())

    def read(content: bytes) -> None:
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        assert isinstance(load(file), keras.Model)

    counts = fuzz(models(), read, examples)
    assert min(counts["taken"], counts["refused"]) > examples / 50


def refusal(path: Path) -> str:
    with limits(), pytest.raises(DeltafineError) as refused:
        load(path)
    return str(refused.value)


def replaced(text: bytes, *pairs: tuple[str, str]) -> bytes:
    for before, after in pairs:
        assert before.encode() in text
        text = text.replace(before.encode(), after.encode())
    return text


def hostile(archive: bytes) -> dict[str, tuple[bytes, str]]:
    """Archives made to do harm, and words of their refusal."""
    parts = parts_of(archive)
    config, weights = parts["config.json"], "model.weights.h5"
    huge = {"shape": (1 << 40,), "dtype": "u1", "chunks": (1 << 20,), "compression": "gzip"}
    large = replaced(config, ('"units": 2', f'"units": {10**10}'))

    def configured(text: bytes) -> bytes:
        return packed({**parts, "config.json": text})

    def loader(name: str) -> bytes:
        return configured(replaced(config, ('"class_name": "ReLU"', f'"class_name": "{name}"')))

    return {
        "a zip bomb": (packed({**parts, "assets/a": bytes(200 << 20)}, zipfile.ZIP_DEFLATED), "unpacked it would take"),
        "a way out": (packed({**parts, "../../evil": b"x"}), "leads out of it"),
        "an absolute way out": (packed({**parts, "/etc/evil": b"x"}), "leads out of it"),
        "many files": (packed({**parts, **{f"assets/{n}": b"" for n in range(10_001)}}), "more than a model has"),
        "a deep configuration": (configured(b'{"a":' * 300 + b"1" + b"}" * 300), "not that of a model"),
        "a deeper one": (configured(b"[" * 100_000), "is not valid JSON"),
        "no configuration": (packed({weights: parts[weights]}), "holds no Keras model"),
        "a layer of 10^10 units": (configured(large), "it declares weights of 280,000,00"),
        "a SavedModel": (loader("TFSMLayer"), "loads a program"),
        "a pickle": (loader("TorchModuleWrapper"), "loads a program"),
        "an external link": (
            with_weights(archive, lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/"))),
            "is a link to somewhere else",
        ),
        "an external data set": (
            with_weights(archive, lambda file: file.create_dataset("x", (9,), "u1", external=[("/etc/passwd", 0, 9)])),
            "lies in another file",
        ),
        "a virtual data set": (with_weights(archive, virtual), "lies in another file"),
        "an empty promise": (with_weights(archive, lambda file: file.create_dataset("x", **huge)), "claims 1,099,511,"),
    }


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((9,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (9,))
    file.create_virtual_dataset("x", layout)


def test_models_made_to_do_harm_are_refused_at_once(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    for name, (content, words) in hostile(files[0]).items():
        (tmp_path / "model.keras").write_bytes(content)
        assert words in refusal(tmp_path / "model.keras"), name


def test_what_a_refused_model_declared_is_not_made_later(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(hostile(files[0])["a layer of 10^10 units"][0])
    refusal(tmp_path / "model.keras")
    with limits():  # Keras makes variables that it has put off as soon as a graph is built
        keras.layers.Dense(2)(keras.Input((3,)))
        small_model()


def test_a_layer_that_gives_too_much_is_refused_before_it_does(tmp_path: Path) -> None:
    inputs = keras.Input((16, 16, 3))
    large = keras.layers.UpSampling2D(4000, name="blow")(keras.layers.Conv2D(2, 3, activation="relu")(inputs))
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(large)).save(tmp_path / "model.keras")
    assert "its layer 'blow' gives 56000x56000x2 values for a frame" in refusal(tmp_path / "model.keras")


def test_hdf5_models_made_to_do_harm_are_refused(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    path = tmp_path / "model.h5"

    def changed(change: Callable[[h5py.File], Any]) -> str:
        path.unlink(missing_ok=True)
        path.write_bytes(files[1])
        with h5py.File(path, "r+") as file:
            change(file)
        return refusal(path)

    assert "is a link to somewhere else" in changed(lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")))
    assert "lies in another file" in changed(virtual)
    assert "claims 4,398,046,511,104 bytes" in changed(
        lambda file: file.create_dataset("x", (1 << 40,), np.float32, chunks=(1 << 20,))
    )

    def units(file: h5py.File) -> None:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"units": 2', f'"units": {10**10}')

    assert "it declares weights of 280,000,00" in changed(units)
