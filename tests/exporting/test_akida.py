"""ONNX for Akida: the same answers, in the order of layers that quantizeml and cnn2snn take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import deltafine
from deltafine.errors import DeltafineError
from deltafine.exporting import Source
from deltafine.exporting.akida import Akida, AkidaNetwork, to_akida_onnx
from deltafine.exporting.akida_chain import chain_of
from deltafine.exporting.onnx_file import session_of
from deltafine.exporting.writing import write_export
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from deltafine.report.store import json_text
from deltafine.runtime.lowering.lower import compile_model
from tests.report.builders import make_report
from tests.small_runs import write_small_videos

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


def network(*between: keras.layers.Layer, size: tuple[int, int] = (12, 16), channels: int = 3) -> keras.Model:
    """A network with random weights, statistics and offsets."""
    inputs = keras.Input((*size, channels))
    x = inputs
    for layer in between:
        x = layer(x)
    model = keras.Model(inputs, x, name="tiny")
    generator = np.random.default_rng(0)
    for weight in model.weights:
        spread = 1.4 / np.sqrt(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 0.3
        positive = any(word in weight.path for word in ("gamma", "variance"))
        drawn = generator.uniform(0.5, 1.5, weight.shape) if positive else generator.normal(0, spread, weight.shape)
        weight.assign(drawn)
    return model


def conv(name: str, filters: int = 4, kernel: int = 3, **more) -> keras.layers.Layer:
    return layers.Conv2D(filters, kernel, name=name, **{"padding": "same", "activation": "relu", **more})


def centred() -> keras.layers.Layer:
    return layers.Rescaling(1 / 127.5, -1, name="scale")


def head() -> tuple[keras.layers.Layer, ...]:
    return layers.GlobalAveragePooling2D(name="mean"), layers.Dense(3, activation="softmax", name="head")


def flat() -> tuple[keras.layers.Layer, ...]:
    return layers.Flatten(), layers.Dense(3, name="head")


def written(model: keras.Model) -> bytes:
    return to_akida_onnx(AkidaNetwork(model, chain_of(compile_model(model).plan)))


def kinds(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


NETWORKS = {
    "no scaling": lambda: network(conv("a"), conv("b"), *head()),
    "padded pixels from -1 to 1": lambda: network(centred(), conv("a"), conv("b", strides=2), *head()),
    "pixels from -1 to 1, not padded": lambda: network(centred(), conv("a", padding="valid"), *flat()),
    "another scaling of each channel": lambda: network(
        layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3500.0, 4000.0]), conv("a"), *head()
    ),
    "one channel": lambda: network(centred(), conv("a"), conv("b"), *head(), channels=1),
    "padding layers": lambda: network(
        centred(), layers.ZeroPadding2D(1), conv("a", padding="valid", strides=2), conv("b"), *head()
    ),
    "odd sizes": lambda: network(centred(), conv("a", strides=2), conv("b", strides=2), *flat(), size=(13, 17)),
    "normalisation before the ReLU": lambda: network(
        centred(), conv("a", activation=None, use_bias=False), layers.BatchNormalization(), layers.ReLU(6.0), *head()
    ),
    "normalisation behind the ReLU": lambda: network(
        centred(), conv("a"), layers.BatchNormalization(), conv("b", padding="valid"), *flat()
    ),
    "normalisation before the mean": lambda: network(centred(), conv("a"), layers.BatchNormalization(), *head()),
    "normalisation of what is flattened": lambda: network(
        centred(), conv("a", strides=2), layers.Flatten(), layers.BatchNormalization(), layers.Dense(3)
    ),
    "depthwise": lambda: network(
        centred(), conv("a"), layers.DepthwiseConv2D(3, strides=2, padding="same"), conv("b", kernel=1), *head()
    ),
    "depthwise before the mean": lambda: network(
        centred(), conv("a"), layers.DepthwiseConv2D(3, activation="relu6"), *head()
    ),
    "separable": lambda: network(centred(), conv("a"), layers.SeparableConv2D(5, 3, activation="relu"), *head()),
    "a maximum": lambda: network(centred(), conv("a"), layers.MaxPooling2D(2), conv("b"), *head()),
    "a maximum before the ReLU": lambda: network(
        centred(), conv("a", activation=None), layers.MaxPooling2D(3, 2, padding="same"), layers.ReLU(), *flat()
    ),
    "a maximum behind a convolution without padding": lambda: network(
        centred(), conv("a"), conv("b", padding="valid"), layers.MaxPooling2D(2, padding="same"), *flat()
    ),
    "two maxima": lambda: network(centred(), conv("a"), layers.MaxPooling2D(2), layers.MaxPooling2D(2), *head()),
    "several dense layers": lambda: network(
        centred(), conv("a", strides=2), layers.Flatten(), layers.Dense(5, "relu"), layers.Dense(1, "sigmoid")
    ),
    "a mean by its window": lambda: network(
        centred(), conv("a"), layers.AveragePooling2D((12, 16)), layers.Flatten(), layers.Dense(2)
    ),
    "a map": lambda: network(centred(), conv("a"), conv("b", filters=2, activation="softmax")),
    "a map that is flattened": lambda: network(centred(), conv("a"), conv("b", filters=2), layers.Flatten()),
    "a vector with two axes more": lambda: network(
        centred(), conv("a"), layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(3, 1)
    ),
    "dropout": lambda: network(centred(), conv("a"), layers.SpatialDropout2D(0.5), conv("b"), *head()),
    "a network within": lambda: network(
        centred(), keras.Sequential([keras.Input((12, 16, 3)), conv("a"), conv("b")]), *head()
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_answers_are_those_of_the_network(name):
    model = NETWORKS[name]()
    frames = np.random.default_rng(1).integers(0, 256, (5, *model.input_shape[1:])).astype(np.uint8)
    found = session_of(written(model)).run(None, {"frame": frames})[0]
    expected = model(frames.astype("float32"), training=False).numpy()
    assert found.shape == expected.shape
    assert np.std(expected) > 1e-3  # else anything would do
    assert np.allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_an_offset_is_what_quantizeml_makes_a_padding_of():
    """It looks for Cast, Transpose, Add and a padded Conv, and pads with the pixel that becomes zero."""
    content = written(network(centred(), conv("a"), *head()))
    graph = onnx.load_from_string(content).graph
    assert kinds(content)[:5] == ["Cast", "Transpose", "Add", "Conv", "Relu"]
    (offset,) = (one for one in graph.initializer if one.name == graph.node[2].input[1])
    assert onnx.numpy_helper.to_array(offset).ravel() == pytest.approx([-127.5] * 3)
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert "Add" not in kinds(written(network(layers.Rescaling(1 / 255), conv("a"), *head())))
    assert "Add" not in kinds(written(network(centred(), conv("a", padding="valid"), *head())))


def test_pooling_stands_where_quantizeml_looks_for_it():
    middle = kinds(written(network(centred(), conv("a"), conv("b"), layers.MaxPooling2D(2), conv("c"), *head())))[3:]
    assert middle[:7] == ["Conv", "Relu", "Conv", "MaxPool", "Relu", "Conv", "Relu"]
    assert middle[7:] == ["GlobalAveragePool", "Flatten", "Gemm", "Softmax"]
    strided = kinds(written(network(conv("a"), conv("b", strides=2), layers.MaxPooling2D(2), conv("c"), *head())))
    assert strided[4:9] == ["Conv", "Relu", "Conv", "MaxPool", "Relu"]


def test_a_mean_where_akida_has_none_gets_a_convolution_of_its_own():
    """Akida cannot average behind its first layer or behind strides, and its sums end at 2^24."""
    own = ["Conv", "GlobalAveragePool"]
    assert kinds(written(network(centred(), conv("a"), *head())))[3:7] == ["Conv", "Relu", *own]
    wide = written(network(centred(), conv("a"), conv("b"), *head()))
    assert kinds(wide)[5:9] == ["Conv", "Relu", *own]
    names = [node.name for node in onnx.load_from_string(wide).graph.node if node.op_type == "Conv"]
    assert names == ["a", "b", "mean"]
    strided = network(centred(), conv("a"), conv("b", strides=2), *head())
    assert kinds(written(strided))[5:9] == ["Conv", "Relu", *own]
    small = network(centred(), conv("a", strides=2), conv("b"), *head())
    assert kinds(written(small))[5:8] == ["Conv", "Relu", "GlobalAveragePool"]


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (
            conv("odd", kernel=(3, 5)),
            r"Layer 'odd' \(Conv2D\) of model 'tiny' has a kernel or strides that are not squ",
        ),
        (conv("odd", kernel=4), "'odd' .* has a kernel of 4x4, and Akida takes odd ones"),
        (conv("odd", kernel=5, strides=2), "'odd' .* has a kernel of 5x5 with strides of 2, which Akida has not"),
        (conv("odd", dilation_rate=2), "'odd' .* has dilations"),
        (conv("odd", groups=2), "'odd' .* has groups or a depth multiplier"),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, name="odd"), "'odd' .* has groups or a depth multiplier"),
        (conv("odd", activation="tanh"), "'odd' .* computes tanh, which Akida cannot there"),
        (layers.LeakyReLU(name="odd"), "'odd' .* has a ReLU with a slope"),
        (layers.AveragePooling2D(2, name="odd"), "'odd' .* has no counterpart among Akida's layers"),
        (layers.GlobalMaxPooling2D(keepdims=True, name="odd"), "'odd' .* has no counterpart"),
        (layers.UpSampling2D(2, name="odd"), "'odd' .* has no counterpart"),
        (layers.Activation("gelu", name="odd"), "'odd' .* computes gelu"),
        (layers.LayerNormalization(name="odd"), "'odd/normalized' .* computes normalize"),
        (layers.MaxPooling2D(3, 2, name="odd"), "'odd' .* does not cover 12x16 as padding='same' does"),
    ],
)
def test_what_akida_has_not_is_refused_by_name(layer, match):
    linear = "slope" in match or "gelu" in match
    model = network(centred(), conv("a", activation=None if linear else "relu"), layer, conv("z"), *head())
    with pytest.raises(DeltafineError, match=match):
        written(model)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: network(layers.Rescaling(1 / 255, 1), conv("a"), *head()), "'a' .* pads with a value that no pixel"),
        (lambda: network(centred(), conv("a"), *head(), channels=4), "'a' .* another number of channels than 1 or 3"),
        (lambda: network(layers.Flatten(name="flat"), layers.Dense(3)), "'flat' .* flattens the pixels"),
        (lambda: network(layers.DepthwiseConv2D(3, name="a"), *head()), "'a' .* is the first layer with weights"),
        (lambda: network(layers.MaxPooling2D(2, name="pool"), conv("a"), *head()), "'pool' .* pools the pixels"),
        (
            lambda: network(centred(), conv("a"), layers.BatchNormalization(), conv("b"), *head()),
            "'b' .* pads what is scaled after an activation",
        ),
        (
            lambda: network(conv("a"), conv("b", activation=None), layers.MaxPooling2D(2, name="pool"), *head()),
            "'pool' .* takes the maximum without a ReLU",
        ),
        (
            lambda: network(centred(), conv("a"), *head()[:1], layers.Rescaling(2.0, name="last")),
            "'mean' .* scales what no weights follow",
        ),
        (lambda: network(conv("a"), layers.Softmax(name="soft"), conv("b"), *head()), "'soft' .* computes softmax"),
    ],
)
def test_a_network_that_begins_or_ends_otherwise_is_refused_by_name(build, match):
    with pytest.raises(DeltafineError, match=match):
        written(build())


def test_a_network_that_is_no_chain_is_refused_by_name():
    inputs = keras.Input((12, 16, 3))
    x = conv("a")(inputs)
    x = layers.Add(name="sum")([x, conv("b")(x)])
    with pytest.raises(DeltafineError, match=r"'sum' .* does not read the layer before it alone"):
        written(keras.Model(inputs, head()[1](head()[0](x))))


def refined() -> keras.Model:
    model = network(
        centred(),
        conv("conv1", strides=2, activation=None, use_bias=False),
        layers.BatchNormalization(name="norm1"),
        layers.ReLU(6.0, name="relu1"),
        layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu", name="conv2"),
        conv("conv3", kernel=1),
        layers.MaxPooling2D(2, name="pool"),
        conv("conv4", filters=8),
        *head(),
        size=(32, 32),
    )
    return insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25))


NAMES = ["conv1", "conv2", "conv3", "conv4", "head", "else"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run directory with a report."""
    folder = tmp_path_factory.mktemp("run")
    write_small_videos(folder / "videos", per_class=2)
    refined().save(folder / "refined.keras")
    (folder / "settings.toml").write_text(f'data = "{folder / "videos"}"\nvalidation = 0.5\n')
    (folder / "report.json").write_text(json_text(make_report(layer_names=NAMES)), "utf-8")
    return folder


def test_a_run_gives_the_network_frames_to_calibrate_on_and_figures(finished):
    done = deltafine.export(finished, format="akida", overwrite=True)
    assert done.file == finished / "export" / "stripped.akida.onnx"
    assert done.agreement.frames == 48
    assert done.agreement.largest_difference < 1e-5
    with np.load(done.file.with_suffix(".npz")) as read:
        frames = read["frames"]
    assert (frames.dtype, frames.shape) == (np.uint8, (48, 32, 32, 3))
    assert frames.std() > 10
    figures = json.loads(done.file.with_suffix(".json").read_text("utf-8"))
    streams = make_report(layer_names=NAMES).models["refined"].streams
    assert figures["model"] == "refined"
    assert figures["mac_density"] == streams.operations.mac_density
    assert list(figures["layers"]) == NAMES[:5]
    for layer in streams.layers[:5]:
        found = figures["layers"][layer.name]
        assert found["input_event_density"] == layer.delta_density
        assert found["input_delta_sparsity"] == 1 - layer.delta_density
        assert found["input_activation_sparsity"] == 1 - layer.activation_density
        assert found["mac_density"] == layer.mac_density


def test_of_a_run_that_was_not_trained_the_calibrated_model_counts(finished, tmp_path):
    report = make_report(models=("original", "calibrated"), layer_names=NAMES)
    clips = np.zeros((1, 2, 32, 32, 3))
    write_export(
        refined(), tmp_path / "a.onnx", "akida", real_frames=lambda wanted: clips, source=Source(report=lambda: report)
    )
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["model"] == "calibrated"


def test_without_frames_or_a_report_nothing_is_written(tmp_path):
    with pytest.raises(DeltafineError, match=r"calibrated on frames of the run's videos: leave --no-check out\.$"):
        write_export(refined(), tmp_path / "a" / "a.onnx", "akida", source=Source(report=make_report))
    with pytest.raises(DeltafineError, match="model 'tiny' comes without one: give a run directory"):
        write_export(
            refined(), tmp_path / "a" / "a.onnx", "akida", real_frames=lambda wanted: np.zeros((1, 2, 32, 32, 3))
        )
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_several_outputs_is_refused():
    inputs = keras.Input((12, 10, 3))
    x = layers.Flatten()(conv("a")(inputs))
    model = keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(3)(x)])
    with pytest.raises(DeltafineError, match="is not a network of frames of one size with one output"):
        Akida().make(insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25)))


PREDICT = """
import sys
import akida
import numpy as np
model = akida.Model(sys.argv[1])
frames = np.load(sys.argv[2])["frames"]
np.savez(sys.argv[3], answers=model.predict(frames).reshape(len(frames), -1), names=[one.name for one in model.layers])
model.map(akida.TwoNodesIPv2(), hw_only=True)  # raises where the hardware lacks a layer
"""


def called(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_akidas_tools_take_the_file_and_their_simulator_gives_its_answers(finished, tmp_path):
    tools = tmp_path / "tools"
    called(sys.executable, "-m", "venv", tools)
    install = [tools / "bin" / "pip", "install", "--quiet", "quantizeml>=1.2", "cnn2snn>=2.19"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"quantizeml and cnn2snn cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    file = deltafine.export(finished, format="akida", output=tmp_path / "net.onnx").file
    calibrated = ("-sa", file.with_suffix(".npz"), "--per_tensor_activations")
    said = called(tools / "bin" / "quantizeml", "quantize", "-m", file, *calibrated)
    assert "(Softmax)']. Continuing" in said  # the only node that is left over
    called(tools / "bin" / "cnn2snn", "convert", "-m", tmp_path / "net_i8_w8_a8.onnx")
    script = tmp_path / "predict.py"
    script.write_text(PREDICT)
    called(tools / "bin" / "python", script, tmp_path / "net_i8_w8_a8.fbz", file.with_suffix(".npz"), tmp_path / "a")
    with np.load(tmp_path / "a.npz") as read, np.load(file.with_suffix(".npz")) as pixels:
        logits, names, frames = read["answers"], list(read["names"]), pixels["frames"]
    expected = session_of(Path(file).read_bytes()).run(None, {"frame": frames})[0]
    found = np.exp(logits - logits.max(-1, keepdims=True))
    found /= found.sum(-1, keepdims=True)
    assert np.abs(found - expected).max() < 0.05
    assert names[2:-1] == ["conv2", "conv3", "conv4", "head"]
