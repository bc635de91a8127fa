"""One operator of an ONNX graph: what it reads, its attributes and names, and how it says that it cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.onnx_import.placed import Placed, channels_last, moved, plain

_NO_MODULES = ("Add", "Sub", "Mul", "Div", "Concat")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Step:
    """A node of the graph.

    Attributes:
        node: as onnx holds it.
        values: what was made before, by name: tensors of the network, and constants.
        names: of layers, that are taken.
        opset: of the operators.
        batch: the size of a batch where shapes are computed: 1 if the file leaves it open.
        readers: operators that read what it makes.
    """

    node: Any
    values: Mapping[str, Placed | np.ndarray]
    names: set[str]
    opset: int
    batch: int
    readers: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{self.node.op_type}" + (f" '{self.node.name}'" if self.node.name else "")

    def refused(self, why: str) -> DeltafineError:
        """To be raised: that the operator cannot be used, and why."""
        return DeltafineError(f"its operator {self} {why}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node; text as text."""
        import onnx

        for entry in self.node.attribute:
            if entry.name == name:
                value = onnx.helper.get_attribute_value(entry)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def given(self, place: int) -> bool:
        """Whether there is an input at this place."""
        return place < len(self.node.input) and bool(self.node.input[place])

    def input(self, place: int) -> Placed | np.ndarray:
        """A tensor or a constant."""
        if not self.given(place) or self.node.input[place] not in self.values:
            raise self.refused("reads a value that nothing before it makes: export the file again.")
        return self.values[self.node.input[place]]

    def tensor(self, place: int = 0) -> Placed:
        """A tensor of the network."""
        value = self.input(place)
        if isinstance(value, np.ndarray):
            raise self.refused("works on constants alone, which deltafine does not compute for it.")
        return value

    def picture(self, place: int = 0) -> Placed:
        """A tensor with its channels last."""
        tensor = self.tensor(place)
        return moved(tensor, channels_last(len(tensor.order)), self.name)

    def plain(self, place: int = 0) -> Placed:
        """A tensor with the axes as in ONNX."""
        return plain(self.tensor(place), self.name)

    def constant(self, place: int) -> np.ndarray | None:
        """A constant; None where there is no such input."""
        if not self.given(place):
            return None
        value = self.input(place)
        if isinstance(value, Placed):
            raise self.refused(f"takes its input {place + 1} from what the network computes; it must be a constant.")
        return value

    def whole_numbers(self, place: int, attribute: str = "") -> list[int] | None:
        """A constant of whole numbers, or the attribute that it was; None where neither is given."""
        value = self.constant(place)
        if value is not None:
            return [int(one) for one in value.ravel()]
        found = self.attribute(attribute) if attribute else None
        return None if found is None else [int(one) for one in found]

    def name(self, word: str = "") -> str:
        """A free name for a layer: of the node, and a word for what stands beside it."""
        return free_name(f"{_name_of(self.node)}_{word}" if word else _name_of(self.node), self.names)

    def operation(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of ``keras.ops``, and name what it made; Keras would count through the process."""
        made = function(*args, **kwargs)
        operation = graph.maker(keras.tree.flatten(made)[0])
        if not isinstance(operation, keras.layers.Layer):
            operation.name = self.name()
        return made


def free_name(wanted: str, taken: set[str]) -> str:
    """The name, as Keras allows it, or with the next number that is free; it is taken then."""
    base = re.sub(r"[^A-Za-z0-9.\-]+", "_", wanted).strip("_.-") or "layer"
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def _name_of(node: Any) -> str:
    """``/layer1/layer1.0/conv1/Conv`` is the module layer1.0.conv1, whose operator needs no mention; a sum is none."""
    parts: list[str] = []
    for part in (_by_module(node) or node.name).strip("/").split("/"):
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    if len(parts) > 1 and node.op_type not in _NO_MODULES and re.fullmatch(rf"{node.op_type}(_\d+)?", parts[-1]):
        parts.pop()
    return "_".join(parts) or node.op_type.lower()


def _by_module(node: Any) -> str | None:
    """The name that PyTorch's older exporter gives, for a node of the newer one, which says its module beside it.

    What it says is the path of the module, and what is called in it: ``['', 'layer1', 'layer1.0', 'layer1.0.relu',
    'relu_5']``. A convolution may have been joined with the normalisation behind it, but keeps the name of its weights.
    """
    said = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    scopes = re.findall(r"'([^']*)'", said)
    module = scopes[-2] if len(scopes) > 1 else ""
    weights = node.input[1] if node.op_type in _WEIGHTED and len(node.input) > 1 else ""
    if weights.endswith(".weight"):
        module = weights.removesuffix(".weight")
    if not said:
        return None
    return "/".join([re.sub(r"\.(?!\d+(\.|$))", "/", module), node.op_type])
