"""The figures of NeuroBench (PyPI ``neurobench``) for the same weights and frames, to the last integer."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine.measurement.density import Density
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.model import insert_deltas
from tests.measurement.by_hand import collect, sparse_video

missing = [name for name in ("torch", "neurobench") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed: pip install torch neurobench"),
]
FRAMES = 7


def network(seed: int = 0, activation: str | None = "relu") -> Any:
    """Whole numbers other than 0 as weights, so that both frameworks compute exactly and skip no weight."""
    model = keras.Sequential(
        [
            keras.Input((10, 8, 4)),
            layers.Conv2D(6, 3, padding="same", activation=activation),
            layers.Conv2D(8, (3, 2), strides=2, activation=activation),
            layers.Conv2D(6, 3, groups=2, padding="same", activation=activation),
            layers.Flatten(),
            layers.Dense(12, activation=activation),
            layers.Dense(3),
        ]
    )
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(generator.choice([-2, -1, 1, 2], weight.shape))
    return model


def in_torch(model: Any) -> Any:
    """The same network with the same weights."""
    import torch
    from torch import nn

    class ChannelsLast(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    def like(layer: Any) -> Any:
        if isinstance(layer, layers.Flatten):
            return ChannelsLast()
        if isinstance(layer, layers.Dense):
            made: Any = nn.Linear(layer.kernel.shape[0], layer.units)
            kernel = np.asarray(layer.kernel).T
        else:
            inputs = layer.kernel.shape[2] * layer.groups
            padding = 1 if layer.padding == "same" else 0
            made = nn.Conv2d(inputs, layer.filters, layer.kernel_size, layer.strides, padding, groups=layer.groups)
            kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        with torch.no_grad():
            made.weight.copy_(torch.tensor(kernel.copy()))
            made.bias.copy_(torch.tensor(np.array(layer.bias)))
        return made

    modules = []
    for layer in model.layers:
        modules.append(like(layer))
        if getattr(layer, "activation", None) is keras.activations.relu:
            modules.append(nn.ReLU())
    return nn.Sequential(*modules)


def neurobench(model: Any, frames: np.ndarray, batch: int | None = None) -> dict[str, Any]:
    """NeuroBench's figures for frames (frames, height, width, channels), all in one batch if not told otherwise."""
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    net = in_torch(model)
    x = torch.tensor(frames.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        np.testing.assert_array_equal(net(x).numpy(), np.asarray(model(frames)))  # it is the same network
    loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=batch or len(x))
    metrics: Any = [[], [ActivationSparsity, SynapticOperations]]
    with torch.no_grad():
        return Benchmark(TorchModel(net), loader, [], [], metrics).run(quiet=True)


@pytest.mark.parametrize("seed", range(3))
def test_synaptic_operations_are_equal_to_the_last_integer(seed):
    model, clip = network(seed), sparse_video((1, FRAMES, 10, 8, 4), seed)
    theirs = neurobench(model, clip[0])["SynapticOperations"]
    ours = collect(insert_deltas(model, []), [clip]).operations()
    assert theirs["Effective_ACs"] == 0
    assert round(theirs["Effective_MACs"] * FRAMES) == round(ours.effective_macs_spatial_with_first * FRAMES)
    assert theirs["Effective_MACs"] == pytest.approx(ours.effective_macs_spatial_with_first, rel=1e-12)
    assert theirs["Dense"] == ours.dense_macs
    assert 0 < theirs["Effective_MACs"] < theirs["Dense"]


@pytest.mark.parametrize("seed", range(3))
def test_activation_sparsity_is_equal_where_activations_feed_layers(seed):
    """NeuroBench looks at the outputs of activations, deltafine at the inputs of layers: the frame is one too."""
    model, clip = network(seed), sparse_video((1, FRAMES, 10, 8, 4), seed)
    theirs = neurobench(model, clip[0])["ActivationSparsity"]
    density = collect(insert_deltas(model, []), [clip]).metric(Density)
    behind_activations = 1 - int(density.nonzero[1:].sum()) / (int(density.elements[1:].sum()) * FRAMES)
    assert theirs == pytest.approx(behind_activations, rel=1e-12)
    zeros_of_the_frames = clip.size - np.count_nonzero(clip)
    zeros = round(theirs * int(density.elements[1:].sum()) * FRAMES) + zeros_of_the_frames
    assert density.activation_sparsity == pytest.approx(zeros / (int(density.elements.sum()) * FRAMES), rel=1e-12)


def test_accumulates_are_those_of_frames_fed_one_by_one_there():
    """A layer whose inputs all lie in {-1, 0, 1} has ACs: decided per batch there, per frame here."""
    model = network()
    clip = np.minimum(sparse_video((1, FRAMES, 10, 8, 4)), 1)
    clip[0, 3] = 0
    clip[0, 5, 0, 0, 0] = 2
    ours = collect(insert_deltas(model, []), [clip]).operations()
    acs = round(ours.accumulates_spatial_with_first * FRAMES)
    one_by_one = neurobench(model, clip[0], batch=1)["SynapticOperations"]
    assert round(one_by_one["Effective_ACs"] * FRAMES) == acs > 0
    assert round((one_by_one["Effective_ACs"] + one_by_one["Effective_MACs"]) * FRAMES) == round(
        ours.effective_macs_spatial_with_first * FRAMES
    )
    at_once = neurobench(model, clip[0])["SynapticOperations"]
    assert at_once["Effective_ACs"] == 0  # a single 2 in one frame makes the whole batch multiply


def test_weights_that_are_zero_are_skipped_there_and_counted_here():
    model, clip = network(), sparse_video((1, FRAMES, 10, 8, 4))
    kernel = model.layers[0].kernel
    before = neurobench(model, clip[0])["SynapticOperations"]
    kernel.assign(np.where(np.arange(6) % 2, np.asarray(kernel), 0))
    theirs = neurobench(model, clip[0])["SynapticOperations"]
    collector = collect(insert_deltas(model, []), [clip])
    ours = collector.operations()
    assert theirs["Dense"] == before["Dense"] == ours.dense_macs
    # Three of six filters of the first layer have no weight to multiply with.
    skipped = collector.metric(EffectiveMacs).spatial[0] / 2 / FRAMES
    assert theirs["Effective_MACs"] == pytest.approx(ours.effective_macs_spatial_with_first - skipped, rel=1e-12)
