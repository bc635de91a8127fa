"""netx HDF5 for Intel's Lava and Loihi 2: a chain of sigma-delta layers in whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.comparing import answers_of, compare_streams
from deltafine.exporting.export_format import Agreement, ExportFormat, Source
from deltafine.exporting.lava_chain import LavaBlock, LavaChain, lava_chain
from deltafine.exporting.lava_network import LavaNetwork, LavaPlayer, dense_layers, in_netx_numbers
from deltafine.model.insert import delta_layers
from deltafine.runtime.lowering.lower import compile_model

if TYPE_CHECKING:
    import h5py

_SDNN = np.array([b"SDNN"])
_TRIED = 64
"""Frames on which sizes of messages are tried."""


@dataclass(frozen=True)
class ForLava:
    """What is written.

    Attributes:
        chain: in floating point.
        refined: the model that it was made of.
        network: in whole numbers; None until frames to calibrate on are at hand.
    """

    chain: LavaChain
    refined: keras.Model
    network: LavaNetwork | None = None


class Lava(ExportFormat):
    """An HDF5 file that ``lava.lib.dl.netx.hdf5.Network`` reads, with the ``spike_exp`` among its attributes."""

    name = "lava"
    purpose = "Intel's Lava and Loihi 2: netx HDF5 with sigma-delta layers, thresholds and weights in whole numbers"
    suffix = ".net"
    endings = (".net", ".hdf5", ".h5")
    forms = ()

    def frames_per_video(self, form: str) -> int:
        return 75

    def input_shape(self, made: ForLava) -> tuple[int | None, ...]:
        return (None, *made.refined.inputs[0].shape[2:])

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> ForLava:
        if not delta_layers(refined):
            raise DeltafineError(f"Model '{refined.name}' has no delta layers: give the refined model of a run.")
        plan = compile_model(refined).plan
        if len(plan.outputs) != 1:
            raise DeltafineError(f"Model '{refined.name}' has several outputs, and netx has one: export it as plan.")
        return ForLava(lava_chain(plan), refined)

    def complete(self, made: ForLava, source: Source) -> ForLava:
        if source.clips is None:
            raise DeltafineError("lava is calibrated on frames of the run's videos: leave --no-check out.")
        frames = [np.round(frame).astype(np.uint8).reshape(made.chain.shape) for clip in source.clips for frame in clip]
        networks = in_netx_numbers(made.chain, frames)
        if not networks:
            raise DeltafineError(
                f"Thresholds of model '{made.refined.name}' are so small next to its values that netx's 16 bits do not "
                "hold both: export it as fixed-plan."
            )
        clip = source.clips[0][:_TRIED]
        expected = answers_of(made.refined, clip)

        def error(network: LavaNetwork) -> float:
            step = _stepper(network)
            pairs = zip((step(frame, number == 0)[0] for number, frame in enumerate(clip)), expected, strict=True)
            return float(np.mean([np.abs(found.ravel() - answer[0].ravel()).max() for found, answer in pairs]))

        return replace(made, network=min(networks, key=error))

    def write(self, made: ForLava, file: Path) -> None:
        from deltafine.storage import hdf5

        network = made.network
        assert network is not None
        hdf5.write(file, lambda written: fill_netx(network, written))

    def check(self, made: ForLava, file: Path, clips: np.ndarray | None) -> Agreement | None:
        network = read_netx(file)
        return None if clips is None else compare_streams(_stepper(network), made.refined, clips)


def _stepper(network: LavaNetwork) -> Callable[[np.ndarray, bool], list[np.ndarray]]:
    player = LavaPlayer(network)

    def step(frame: np.ndarray, first: bool) -> list[np.ndarray]:
        if first:
            player.reset()
        return [network.answer(player.step(np.round(frame)))]

    return step


def fill_netx(network: LavaNetwork, written: h5py.File) -> None:
    """Fill a file with a network as netx reads it: channels first, kernels as correlations.

    What netx does not know are attributes: of the file ``spike_exp``, ``latency`` in steps, ``scale`` and ``head``; of
    a layer its ``name``.
    """
    written.attrs.update(
        spike_exp=network.spike_exp, latency=len(network.blocks), scale=network.scale, head=network.head
    )
    layers = written.create_group("layer")
    _add(layers, "input", "input", network.shape, **{"neuron/vThMant": network.threshold})
    shape: tuple[int, ...] = network.shape
    flat = False
    for block, dense in zip(network.blocks, dense_layers(network.blocks), strict=True):
        if dense and not flat:
            _add(layers, "flatten", "flatten", (1, 1, int(np.prod(shape))))
        weights = block.weights.transpose(3, 2, 0, 1)
        if dense:
            values: dict[str, Any] = {
                "weight": weights.reshape(len(weights), -1),
                "inFeatures": int(np.prod(shape)),
                "outFeatures": len(weights),
            }
        else:
            values = {
                "weight": weights,
                "inChannels": shape[2],
                "outChannels": len(weights),
                "kernelSize": weights.shape[2:],
                "stride": block.strides,
                "padding": block.padding,
                "dilation": (1, 1),
                "groups": block.groups,
            }
        if block.threshold is None:
            values["neuron/sigma_output"] = True
        else:
            # netx reverses nothing of a bias for each neuron: (width, height, channels).
            bias = block.bias if block.bias.ndim == 1 else block.bias.transpose(1, 0, 2)
            values.update({"neuron/vThMant": int(block.threshold), "bias": bias.ravel() if dense else bias})
        _add(layers, "dense" if dense else "conv", block.name, block.shape, **values)
        shape, flat = block.shape, dense


def _add(layers: h5py.Group, kind: str, name: str, shape: tuple[int, ...], **values: Any) -> None:
    layer = layers.create_group(str(len(layers)))
    layer.attrs["name"] = name
    layer["type"] = np.array([kind.encode()])
    layer["shape"] = [shape[2]] if kind in ("dense", "flatten") else [shape[2], *shape[:2]]
    if kind != "flatten":
        layer["neuron/type"] = _SDNN
    for key, value in values.items():
        layer[key] = value


def read_netx(file: Path) -> LavaNetwork:
    """Read what ``fill_netx`` wrote.

    Raises:
        DeltafineError: it is damaged, or of another make.
    """
    import h5py

    try:
        with h5py.File(file) as read:
            layers = [read["layer"][str(place)] for place in range(len(read["layer"]))]
            channels, height, width = layers[0]["shape"][()].tolist()
            shape: tuple[int, ...] = (height, width, channels)
            frame, blocks = shape, []
            for layer in layers[1:]:
                if layer["type"][0] != b"flatten":
                    blocks.append(_block(layer, shape))
                    shape = blocks[-1].shape
            threshold, spike_exp = int(layers[0]["neuron/vThMant"][()]), int(read.attrs["spike_exp"])
            scale, head = float(read.attrs["scale"]), str(read.attrs["head"])
            return LavaNetwork(frame, threshold, tuple(blocks), spike_exp, scale, head)
    except Exception as error:  # whatever HDF5 makes of a file that is damaged
        raise DeltafineError(f"{file} cannot be read ({type(error).__name__}: {error}): export it again.") from error


def _block(layer: h5py.Group, before: tuple[int, ...]) -> LavaBlock:
    dense = layer["type"][0] == b"dense"
    size = layer["shape"][()].tolist()
    weights = layer["weight"][()]
    if dense:
        weights = weights.reshape(-1, before[2], *before[:2])
    bias = layer["bias"][()] if "bias" in layer else np.zeros(size[0], np.int64)
    sides = {} if dense else {"strides": layer["stride"], "padding": layer["padding"]}
    return LavaBlock(
        name=layer.attrs["name"],
        layer="",
        weights=weights.transpose(2, 3, 1, 0),
        bias=bias if bias.ndim == 1 else bias.transpose(1, 0, 2),
        shape=(*(size[1:] or (1, 1)), size[0]),
        groups=1 if dense else int(layer["groups"][()]),
        relu="neuron/vThMant" in layer,
        threshold=layer["neuron/vThMant"][()] if "neuron/vThMant" in layer else None,
        **{key: tuple(value[()].tolist()) for key, value in sides.items()},
    )
