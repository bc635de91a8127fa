"""netx HDF5 for Lava: the same network in netx's layers, and the same bits as netx and as Lava's simulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from keras import layers

from deltafine.errors import DeltafineError
from deltafine.exporting.lava import read_netx
from deltafine.exporting.lava_chain import lava_chain
from deltafine.exporting.lava_network import LavaNetwork, LavaPlayer, in_netx_numbers
from deltafine.exporting.writing import write_export
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from deltafine.model.insert import delta_layers
from deltafine.runtime.lowering.lower import compile_model
from tests.exporting import netx_interpreter
from tests.exporting.test_akida import centred, conv, flat, head, network
from tests.exporting.test_plan import video

SIMULATOR = Path(__file__).with_name("lava_simulator.py")


def small(*between: keras.layers.Layer) -> keras.Model:
    return network(*between, size=(9, 8))


def dead() -> keras.Model:
    """Without a positive weight in the middle layer, so that netx may not read it as dense."""
    model = small(conv("a", strides=3), layers.Flatten(), layers.Dense(4, "relu", name="b"), layers.Dense(3, name="c"))
    kernel, bias = model.get_layer("b").get_weights()
    model.get_layer("b").set_weights([-np.abs(kernel), np.full_like(bias, 2000)])
    return model


NETWORKS = {
    "without a positive weight": dead,
    "one position": lambda: small(conv("a", 4, (9, 8), padding="valid"), conv("b", 4, 1), *head()),
    "flattened": lambda: small(centred(), conv("a", strides=2), conv("b", strides=2), *flat()),
    "a mean before the last layer": lambda: small(conv("a", strides=2), conv("b", padding="valid"), *head()),
    "pixels from -1 to 1, padded": lambda: small(centred(), conv("a"), conv("b", kernel=1, strides=3), *head()),
    "normalisation before the ReLU": lambda: small(
        centred(), conv("a", activation=None, use_bias=False), layers.BatchNormalization(), layers.ReLU(), *head()
    ),
    "normalisation behind the ReLU": lambda: small(
        conv("a", strides=2), layers.BatchNormalization(), conv("b"), layers.BatchNormalization(), *flat()
    ),
    "depthwise at the end": lambda: small(
        centred(), conv("a", strides=2), layers.DepthwiseConv2D(3, padding="same", activation="relu"), *head()
    ),
    "groups and an even kernel": lambda: small(conv("a"), conv("b", 6, 2, strides=3, groups=2), *head()),
    "separable": lambda: small(conv("a", strides=2), layers.SeparableConv2D(5, 3, activation="relu"), *head()),
    "dilated": lambda: small(conv("a", strides=2), conv("b", dilation_rate=2), *head()),
    "padding layers": lambda: small(
        centred(), layers.ZeroPadding2D(((0, 2), (1, 0))), conv("a", padding="valid", strides=2), *head()
    ),
    "means of windows": lambda: small(
        conv("a"), layers.AveragePooling2D(2), layers.BatchNormalization(), conv("b"), *head()
    ),
    "dense layers": lambda: small(
        conv("a", strides=3), layers.Flatten(), layers.Dropout(0.5), layers.Dense(6, "relu"), layers.Dense(1, "sigmoid")
    ),
    "a map": lambda: small(conv("a", strides=2), layers.Conv2D(2, 1, name="b")),
    "a ReLU at the end": lambda: small(conv("a", strides=3), layers.Flatten(), layers.Dense(2), layers.ReLU()),
}


def refined(model: keras.Model, threshold: float = 0.25, **more) -> keras.Model:
    thresholds = {layer.name: threshold for layer in model.layers} | {"input": 4.5}
    found = [one for one in find_activations(model) if "re_lu" not in one.name or one.name != model.layers[-1].name]
    return insert_deltas(model, found, DeltaSettings(initial_threshold=thresholds, **more))


def exported(model: keras.Model, file: Path, frames: np.ndarray):
    return write_export(model, file, "lava", real_frames=lambda wanted: frames[None])[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_chain_is_the_same_network(name):
    model = NETWORKS[name]()
    chain = lava_chain(compile_model(refined(model, rule="identity")).plan)
    for frame in video(3, (9, 8, 3)):
        x = frame.astype(np.float64)
        for block in chain.blocks:
            x = block.sums(x) + block.bias
            x = np.maximum(x, 0) if block.relu else x
        expected = model(frame[None], training=False).numpy()[0]
        found = LavaNetwork((9, 8, 3), 0, (), 0, 1.0, chain.head).answer(x).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_interpreter_of_its_own_gives_the_same_bits(name, tmp_path):
    frames = video(12, (9, 8, 3))
    exported(refined(NETWORKS[name]()), tmp_path / "a.net", frames)
    player = LavaPlayer(read_netx(tmp_path / "a.net"))
    expected = netx_interpreter.play(tmp_path / "a.net", frames)
    answers = [player.step(frame) for frame in frames]
    for found, other in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(found.transpose(1, 0, 2).ravel(), other.ravel())
    assert len(np.unique([found.sum() for found in answers])) > 3  # they move
    player.reset()
    np.testing.assert_array_equal(player.step(frames[0]), answers[0])


def test_what_is_sent_is_what_the_refined_model_sends_but_for_rounding(tmp_path):
    model = small(centred(), conv("a", strides=2), conv("b", padding="valid"), *head())
    agreement = exported(refined(model, 0.1), tmp_path / "a.net", video(60, (9, 8, 3)))
    assert (agreement.frames, agreement.stream) == (60, True)
    assert agreement.largest_difference < 0.1  # of probabilities
    assert agreement.same_class > 0.9


def test_thresholds_of_channels_become_one_by_the_units_of_the_channels(tmp_path):
    model = refined(NETWORKS["flattened"](), threshold_per="channel")
    thresholds = np.array([0.1, 0.2, 0.4, 0.3], np.float32)
    for name, layer in delta_layers(model).items():
        if "input" not in name:
            layer.set_threshold(thresholds)
    chain = lava_chain(compile_model(model).plan)
    np.testing.assert_allclose(chain.blocks[0].threshold, thresholds, rtol=1e-6)
    exported(model, tmp_path / "a.net", video(20, (9, 8, 3)))
    block, exact = read_netx(tmp_path / "a.net").blocks[0], chain.blocks[0]
    units = int(block.threshold) / thresholds  # for 1, by channel
    np.testing.assert_allclose(block.bias / units, exact.bias, atol=0.51 / units.min())
    np.testing.assert_allclose(block.weights / (64 * units), exact.weights, atol=0.51 / (64 * units.min()))


def test_the_file_is_laid_out_as_netx_reads_it(tmp_path):
    exported(refined(NETWORKS["flattened"]()), tmp_path / "a.net", video(4, (9, 8, 3)))
    with h5py.File(tmp_path / "a.net") as file:
        kinds = [file["layer"][str(place)]["type"][0].decode() for place in range(len(file["layer"]))]
        shapes = [file["layer"][str(place)]["shape"][()].tolist() for place in range(len(file["layer"]))]
        first, last = file["layer/1"], file["layer/4"]
        assert (file.attrs["latency"], first.attrs["name"]) == (3, "a")
        assert first["weight"].shape == (4, 3, 3, 4)  # of 8 columns, the padding of two on one side
        assert file["layer/0/neuron/vThMant"][()] == 5  # whole pixels that differ by 4.5 differ by 5
        assert "neuron/sigma_output" in last
        assert "bias" not in last
        assert np.abs(first["weight"][()]).max() > 10
    assert kinds == ["input", "conv", "conv", "flatten", "dense"]
    assert shapes == [[3, 9, 8], [4, 5, 4], [6, 3, 2], [36], [3]]  # two channels more, which stand for the bias


@given(st.integers(0, 2**31), st.floats(0.05, 3), st.floats(0.05, 1))
@example(seed=1, spread=1.0625, threshold=0.40625)  # weights of so few digits that rounding makes much of them
@settings(max_examples=8, deadline=None)
def test_what_was_seen_fits_its_bits(seed, spread, threshold):
    model = NETWORKS["dense layers"]()
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(generator.normal(0, spread * generator.uniform(0.1, 1), weight.shape))
    frames = video(5, (9, 8, 3))
    for made in in_netx_numbers(lava_chain(compile_model(refined(model, threshold)).plan), frames):
        for frame in frames:
            x = frame.astype(np.int64) << made.spike_exp
            for block in made.blocks:
                sums = np.rint(block.sums(x.astype(np.float64))).astype(np.int64)
                x = np.maximum(sums + (block.bias << 6 + made.spike_exp), 0) >> 6
                assert np.abs(block.weights).max() <= 127
                assert np.abs(sums).max() < 2**23
                assert block.threshold is None or x.max() < 2**15


def test_thresholds_that_do_not_fit_beside_the_values_are_refused(tmp_path):
    with pytest.raises(DeltafineError, match="so small next to its values that netx's 16 bits do not hold both"):
        exported(refined(NETWORKS["flattened"](), 1e-6), tmp_path / "a.net", video(2, (9, 8, 3)))


@pytest.mark.parametrize(
    ("between", "said"),
    [
        ((layers.MaxPooling2D(2, name="pool"),), r"'pool' \(MaxPooling2D\) .* has no counterpart in netx"),
        ((layers.ReLU(6.0, name="limit"),), "'limit' of .* has a ReLU with a slope, a threshold or a limit"),
        ((layers.Activation("tanh", name="act"),), "'act' of .* computes tanh, which netx has not"),
        (
            (layers.Conv2D(4, 3, name="linear"), layers.Conv2D(4, 3, name="next", activation="relu")),
            r"'linear' \(Conv2D\) of .* has no ReLU, and in netx every layer but the last",
        ),
        ((layers.AveragePooling2D(3, padding="same", name="means"),), "'means' .* takes means of fewer values at the"),
    ],
)
def test_what_netx_cannot_express_is_refused_by_its_name(between, said, tmp_path):
    model = small(conv("a", activation=None), layers.BatchNormalization(), layers.ReLU(name="relu"), *between, *head())
    with pytest.raises(DeltafineError, match=f"Layer {said}.* export the model as fixed-plan"):
        exported(
            insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25)),
            tmp_path / "a.net",
            video(2, (9, 8, 3)),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rule": "quantize"}, "has the rule quantize, and netx's neurons send on delta"),
        ({"granularity": "pixel"}, "sends whole positions, and netx sends single values"),
    ],
)
def test_other_events_than_netx_has_are_refused(more, said, tmp_path):
    with pytest.raises(DeltafineError, match=said):
        exported(refined(NETWORKS["flattened"](), **more), tmp_path / "a.net", video(2, (9, 8, 3)))


def test_thresholds_that_differ_from_neuron_to_neuron_are_refused(tmp_path):
    model = refined(NETWORKS["flattened"](), threshold_per="neuron")
    layer = next(layer for name, layer in delta_layers(model).items() if "input" not in name)
    layer.set_threshold(np.arange(1, 1 + layer.threshold.shape[0] * layer.threshold.shape[1] * 4).reshape(-1, 4, 4))
    with pytest.raises(DeltafineError, match=r"'a' of .* has a threshold for each neuron, and netx has one"):
        exported(model, tmp_path / "a.net", video(2, (9, 8, 3)))


def test_branches_and_several_outputs_are_refused(tmp_path):
    inputs = keras.Input((9, 8, 3))
    x = conv("a")(inputs)
    y = layers.Add(name="sum")([x, conv("b")(x)])
    for outputs, said in (
        (layers.Flatten()(y), "'sum' .*Add.* does not read the layer before it alone"),
        ([x, y], "several"),
    ):
        model = keras.Model(inputs, outputs)
        with pytest.raises(DeltafineError, match=said):
            exported(insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=0.25)),
                     tmp_path / "a.net", video(2, (9, 8, 3)))  # fmt: skip


def test_without_frames_and_of_a_damaged_file_there_is_a_sentence(tmp_path):
    with pytest.raises(
        DeltafineError, match=r"lava is calibrated on frames of the run's videos: leave --no-check out\."
    ):
        write_export(refined(NETWORKS["a map"]()), tmp_path / "a.net", "lava")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b.net").write_bytes(b"no HDF5")
    with pytest.raises(DeltafineError, match=r"b\.net cannot be read"):
        read_netx(tmp_path / "b.net")


def installed(folder: Path) -> Path:
    """The Python of an environment with Lava; skips where there is no way to get it."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet"]
    for packages in (
        ["numpy<2", "scipy", "h5py", "networkx<=2.8.7", "asteval<0.10"],
        ["--no-deps", "--ignore-requires-python", "lava-nc==0.10.0", "lava-dl==0.6.0"],
    ):
        done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"lava-nc and lava-dl cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_lavas_simulator_gives_the_same_bits(tmp_path):
    python = installed(tmp_path / "env")
    frames = video(40, (9, 8, 3))
    np.savez(tmp_path / "frames.npz", frames=frames)
    for name, make in NETWORKS.items():
        (tmp_path / "a.net").unlink(missing_ok=True)
        exported(refined(make()), tmp_path / "a.net", frames)
        words = [python, SIMULATOR, tmp_path / "a.net", tmp_path / "frames.npz", tmp_path / "answers.npz"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, (name, done.stderr[-3000:])
        with np.load(tmp_path / "answers.npz") as read:
            answers = read["answers"]
        player = LavaPlayer(read_netx(tmp_path / "a.net"))
        expected = [player.step(frame).transpose(1, 0, 2).ravel() for frame in frames]
        np.testing.assert_array_equal(answers.reshape(len(frames), -1), expected, err_msg=name)
