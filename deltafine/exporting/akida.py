"""ONNX for BrainChip's Akida, as ``quantizeml`` and ``cnn2snn`` take it, and the figures that they do not measure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.document.report import MODEL_NAMES, Report
from deltafine.errors import DeltafineError
from deltafine.exporting.akida_chain import Block, Chain, chain_of
from deltafine.exporting.comparing import compare_answers
from deltafine.exporting.export_format import Agreement, ExportFormat, Source
from deltafine.exporting.forms import export_plain, frames_of
from deltafine.exporting.onnx_file import OPSET, require_packages, session_of
from deltafine.exporting.streaming import FRAME, prediction_names
from deltafine.model.precision import in_single_precision
from deltafine.runtime.lowering.lower import compile_model
from deltafine.storage.files import JsonObject, write_atomically

_IR_VERSION = 8
"""Of ONNX files with this opset."""


@dataclass(frozen=True)
class AkidaNetwork:
    """What is written.

    Attributes:
        model: of single frames.
        chain: what it is in Akida's layers.
        frames: pixels to calibrate on, (frames, height, width, channels), uint8; None until they are at hand.
        figures: the temporal figures; empty until the run's report is at hand.
    """

    model: keras.Model
    chain: Chain
    frames: np.ndarray | None = None
    figures: JsonObject | None = None


class Akida(ExportFormat):
    """``FILE.onnx``; beside it ``FILE.npz`` with frames to calibrate on, and ``FILE.json`` with temporal figures."""

    name = "akida"
    purpose = "BrainChip's Akida: ONNX for quantizeml and cnn2snn, frames to calibrate on, and temporal figures"
    suffix = ".akida.onnx"
    endings = (".onnx",)
    forms = ("stripped",)

    def files(self, file: Path) -> tuple[Path, ...]:
        return (file, file.with_suffix(".npz"), file.with_suffix(".json"))

    def input_shape(self, made: AkidaNetwork) -> tuple[int | None, ...]:
        return tuple(made.model.inputs[0].shape)

    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> AkidaNetwork:
        model = export_plain(refined, "stripped", frames=frames)
        if len(model.inputs[0].shape) != 4 or len(model.outputs) != 1 or None in model.inputs[0].shape[1:]:
            raise DeltafineError(
                f"Model '{model.name}' is not a network of frames of one size with one output, which akida is for: "
                "export it as onnx."
            )
        require_packages()
        model = in_single_precision(model)
        return AkidaNetwork(model, chain_of(compile_model(model).plan))

    def complete(self, made: AkidaNetwork, source: Source) -> AkidaNetwork:
        if source.clips is None:
            raise DeltafineError("akida is calibrated on frames of the run's videos: leave --no-check out.")
        if source.report is None:
            raise DeltafineError(
                f"The format akida holds figures of a run, and model '{made.model.name}' comes without one: give a run "
                "directory."
            )
        frames = np.concatenate([_pixels(frame) for frame in frames_of(source.clips, made.model)])
        return replace(made, frames=frames, figures=temporal_figures(source.report(), made.chain.blocks))

    def write(self, made: AkidaNetwork, file: Path) -> None:
        _, frames, figures = self.files(file)
        write_atomically(frames, lambda path: np.savez_compressed(path, frames=made.frames))  # type: ignore[arg-type]
        write_atomically(figures, (json.dumps(made.figures, indent=1) + "\n").encode())
        write_atomically(file, to_akida_onnx(made))

    def check(self, made: AkidaNetwork, file: Path, clips: np.ndarray | None) -> Agreement | None:
        assert made.frames is not None
        session = session_of(file.read_bytes())
        with np.load(self.files(file)[1]) as read:
            frames = read["frames"]
        return compare_answers(
            lambda value: session.run(None, {FRAME: value})[0], made.model, np.split(frames, len(frames))
        )


def _pixels(frame: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def temporal_figures(report: Report, blocks: Sequence[Block]) -> JsonObject:
    """How much of what each layer reads changes from frame to frame, which Akida's ``sparsity`` does not measure.

    Args:
        report: of the run.
        blocks: the layers of Akida, which have the names of the Keras layers.

    Returns:
        ``model``, ``frames``, the totals, and ``layers`` by name; docs/refined-model.md explains them.

    Raises:
        DeltafineError: the report has no streams.
    """
    name = next((one for one in reversed(MODEL_NAMES) if one in report.models and report.models[one].streams), None)
    if name is None:
        raise DeltafineError("The report of the run has no figures of streams: measure it with deltafine report.")
    figures = report.models[name].streams
    measured = {layer.name: layer for layer in figures.layers}
    layers: JsonObject = {}
    for block in blocks:
        if (layer := measured.get(block.name)) is not None:
            layers[block.name] = {
                "input_activation_sparsity": 1 - layer.activation_density,
                "input_event_density": layer.delta_density,
                "input_delta_sparsity": 1 - layer.delta_density,
                "input_pixel_density": layer.pixel_density,
                "dense_macs": layer.dense_macs,
                "effective_macs_delta": layer.effective_macs_delta,
                "mac_density": layer.mac_density,
            }
    operations = figures.operations
    return {
        "model": name,
        "frames": figures.frames,
        "dense_macs": operations.dense_macs,
        "effective_macs_delta": operations.effective_macs_delta,
        "mac_density": operations.mac_density,
        "delta_sparsity": operations.delta_sparsity,
        "layers": layers,
    }


def to_akida_onnx(made: AkidaNetwork) -> bytes:
    """Write a chain as ONNX: pixels in uint8 and channels last in, the Keras model's answers out.

    The first nodes are those that quantizeml takes as its input quantiser, and an offset that it makes a padding of.
    """
    import onnx

    model = made.model
    (output,) = prediction_names(model)
    graph = _Graph(FRAME)
    graph.node("Cast", to=onnx.TensorProto.FLOAT)
    graph.node("Transpose", perm=[0, 3, 1, 2])
    if made.chain.offset is not None:
        graph.node("Add", graph.constant("offset", made.chain.offset.reshape(1, -1, 1, 1)))
    for block in made.chain.blocks:
        graph.block(block)
    if graph.is_map:
        graph.node("Transpose", perm=[0, 2, 3, 1])
    if len(model.outputs[0].shape) != (4 if graph.is_map else 2):
        graph.node("Reshape", graph.constant("shape", [-1, *model.outputs[0].shape[1:]], np.int64))
    if made.chain.head:
        attributes: dict[str, Any] = {"axis": -1} if made.chain.head == "softmax" else {}
        graph.node(made.chain.head.capitalize(), **attributes)
    graph.nodes[-1].output[0] = output
    tensors = [
        onnx.helper.make_tensor_value_info(name, kind, ["N", *tensor.shape[1:]])
        for name, kind, tensor in (
            (FRAME, onnx.TensorProto.UINT8, model.inputs[0]),
            (output, onnx.TensorProto.FLOAT, model.outputs[0]),
        )
    ]
    written = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, model.name, tensors[:1], tensors[1:], graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="deltafine",
    )
    onnx.checker.check_model(written, full_check=True)
    return bytes(written.SerializeToString())


class _Graph:
    """Nodes one after the other; each reads the one before."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.is_map = True

    def node(self, kind: str, *constants: str, name: str = "", **attributes: Any) -> None:
        import onnx

        name = name or f"{kind.lower()}_{len(self.nodes)}"
        made = onnx.helper.make_node(kind, [self._source, *constants], [f"{name}:out"], name=name, **attributes)
        self.nodes.append(made)
        self._source = made.output[0]

    def constant(self, name: str, values: Any, kind: type = np.float32) -> str:
        import onnx

        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def block(self, block: Block) -> None:
        """Weights, maximum, ReLU, mean: in the order in which quantizeml looks for them."""
        weights = [self.constant(f"{block.name}:{key}", getattr(block, key)) for key in ("weights", "bias")]
        if block.kind == "dense":
            if self.is_map:
                self.node("Flatten", axis=1)
            self.node("Gemm", *weights, name=block.name)
        else:
            attributes: dict[str, Any] = {"group": len(block.weights)} if block.kind == "depthwise" else {}
            attributes["kernel_shape"] = list(block.weights.shape[2:])
            self.node("Conv", *weights, name=block.name, strides=block.strides, pads=block.pads, **attributes)
        self.is_map = block.kind != "dense"
        pooling = block.pooling
        if pooling is not None and pooling.kernel is not None:
            self.node("MaxPool", kernel_shape=pooling.kernel, strides=pooling.strides, pads=pooling.pads)
        if block.most is not None:
            limits = () if np.isinf(block.most) else (0.0, block.most)
            names = [self.constant(f"{block.name}:limit{place}", value) for place, value in enumerate(limits)]
            self.node("Clip" if limits else "Relu", *names)
        if pooling is not None and pooling.kernel is None:
            self.node("GlobalAveragePool")
