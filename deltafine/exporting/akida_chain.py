"""From a plan to what BrainChip's tools take: a chain of blocks, each weights, pooling and a ReLU.

Their rules were read in quantizeml 1.2 (``onnx_support/quantization``) and cnn2snn 2.19 (``onnx_conversion/padding``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NoReturn

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.activation_functions import NO_LIMIT
from deltafine.runtime.plan import Operation, Plan

Pads = tuple[int, int, int, int]
"""Top, left, bottom, right, as in ONNX."""

HEADS = ("softmax", "sigmoid")
"""Activations that may stand at the very end, where the tools leave them to the host."""
_UNEVEN, _UNEVEN_FIRST = (3,), (3, 5, 7)
"""Kernels that may have more padding in front than behind, with strides of 2: of all layers, and of the first."""
_WITH_STRIDES = {"conv": (1, 3), "depthwise": (3, 5, 7)}
"""Kernels that may have strides of 2, behind the first layer."""

_MOST_SUMMED = 128
"""Positions of a mean right behind a convolution. In Akida's simulator its sum ends at 2^24, and what a convolution
adds up reaches 2^17; what a layer that only scales gives stays below 2^14."""


@dataclass
class Pooling:
    """Over all positions where ``kernel`` is None: the mean; else the maximum."""

    kernel: tuple[int, int] | None = None
    strides: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)


@dataclass
class Block:
    """One layer of Akida.

    Attributes:
        name, layer: of the Keras layer with the weights, and its class.
        kind: ``dense`` reads a vector.
        weights: (output channels, input channels / groups, height, width); of ``dense`` (inputs, outputs).
        bias: (output channels,).
        most: the largest value of its ReLU; None for no ReLU.
        pooling: behind the convolution.
    """

    name: str
    layer: str
    kind: Literal["conv", "depthwise", "dense"]
    weights: np.ndarray
    bias: np.ndarray
    strides: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    most: float | None = None
    pooling: Pooling | None = None


@dataclass
class Chain:
    """A network of single frames.

    Attributes:
        blocks: in order of computation.
        offset: added to each channel of the pixels before the first convolution, which then pads with zeros.
        head: the activation at the end, or "".
    """

    blocks: list[Block] = field(default_factory=list)
    offset: np.ndarray | None = None
    head: str = ""


def chain_of(plan: Plan) -> Chain:
    """Fold scales, offsets and normalisations into weights; the answers stay the same.

    Args:
        plan: of a network of single frames, without delta layers.

    Raises:
        DeltafineError: Akida has no layer for something; the sentence names it.
    """
    return _Folding(plan).chain


class _Folding:
    """Goes through the operations; ``_scale`` and ``_shift`` are still to be folded into the weights that come next."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.chain = Chain()
        self._scale, self._shift = np.ones(0), np.zeros(0)
        self._flat: tuple[int, int, int] | None = None
        self._fold_nothing(plan.tensors[plan.operations[0].output].shape[2])
        self._may_pool = False
        self._maxima: list[tuple[Operation, Block]] = []
        before = None
        for operation in plan.operations:
            if before is not None and operation.inputs != (before.output,):
                self._refuse(operation, "does not read the layer before it alone: Akida's tools get chains of layers")
            self._add(operation)
            self._finish(operation)
            before = operation
        assert before is not None
        if not self.chain.blocks:
            self._refuse(before, "ends a network without weights")
        if not self._nothing_to_fold():
            self._refuse(before, "scales what no weights follow")
        for operation, block in self._maxima:
            if block.most is None:
                self._refuse(operation, "takes the maximum without a ReLU before or behind it, which Akida cannot")

    def _refuse(self, operation: Operation, why: str) -> NoReturn:
        self._refuse_layer(f"'{operation.name}'" + (f" ({operation.layer})" if operation.layer else ""), why)

    def _refuse_activation(self, operation: Operation, why: str) -> NoReturn:
        """An activation of a layer of its own is finished with the operation before, and gives the value its name."""
        self._refuse_layer(f"'{self._plan.tensors[operation.output].name}'", why)

    def _refuse_layer(self, layer: str, why: str) -> NoReturn:
        raise DeltafineError(
            f"Layer {layer} of model '{self._plan.name}' {why}: export the model as onnx or int8-onnx, "
            "or replace the layer."
        )

    def _shape(self, operation: Operation, *, output: bool = False) -> tuple[int, int, int]:
        return self._plan.tensors[operation.output if output else operation.inputs[0]].shape

    def _add(self, operation: Operation) -> None:
        kind = operation.kind
        if kind in ("input", "identity"):
            return
        if kind == "reshape" and self._shape(operation, output=True)[:2] == (1, 1):
            self._flatten(operation)
        elif kind in ("conv", "depthwise"):
            self._weights(operation)
        elif kind == "max_pool":
            self._max_pool(operation)
        elif kind == "global_average" or (kind == "average_pool" and self._is_whole(operation)):
            self._mean(operation)
        else:
            self._refuse(operation, "has no counterpart among Akida's layers")

    def _flatten(self, operation: Operation) -> None:
        height, width, channels = self._shape(operation)
        if (height, width) == (1, 1):
            return
        if not self.chain.blocks:
            self._refuse(operation, "flattens the pixels: Akida's tools want a convolution first")
        self._flat = (height, width, channels)
        self._scale = np.tile(self._scale, height * width)
        self._shift = np.tile(self._shift, height * width)

    def _weights(self, operation: Operation) -> None:
        weights = self._plan.arrays[operation.weights].astype(np.float64)
        height, width, _ = self._shape(operation)
        first = not self.chain.blocks
        if operation.kernel[0] != operation.kernel[1] or operation.strides[0] != operation.strides[1]:
            self._refuse(operation, "has a kernel or strides that are not square, which Akida has not")
        if operation.dilation != (1, 1):
            self._refuse(operation, "has dilations, which Akida has not")
        if operation.groups != 1 or (operation.kind == "depthwise" and weights.shape[3] != 1):
            self._refuse(operation, "has groups or a depth multiplier, which Akida has not")
        if first and (operation.kind == "depthwise" or (height, width) == (1, 1)):
            self._refuse(operation, "is the first layer with weights: Akida's tools want a convolution there")
        pads = pads_of(operation, (height, width), self._shape(operation, output=True)[:2])
        sums = "ijck,c->ijk" if operation.kind == "conv" else "ijcm,c->ijc"
        shift = np.einsum(sums, weights, self._shift)  # what the offset adds through each tap
        weights *= self._scale[:, None]
        if self._shift.any() and any(pads):
            shift = self._before_padding(operation, shift)
        bias = shift.sum(axis=(0, 1))
        block = Block(operation.name, operation.layer, "conv", weights, bias, operation.strides, pads)
        if operation.kind == "depthwise":
            block.kind, block.weights = "depthwise", weights.transpose(2, 3, 0, 1)
        elif (height, width) == (1, 1) and operation.kernel == (1, 1):
            block.kind, block.weights = "dense", self._rows(weights[0, 0])
        else:
            block.weights = weights.transpose(3, 2, 0, 1)
        self._require_size(operation, block)
        self._may_pool = self._is_same(operation, block)
        self.chain.blocks.append(block)
        self._fold_nothing(len(bias))

    def _before_padding(self, operation: Operation, shift: np.ndarray) -> np.ndarray:
        """Let the tools add the offset to the pixels: they make of it a padding with the pixel that becomes zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            offset = self._shift / self._scale
        if self.chain.blocks:
            self._refuse(operation, "pads what is scaled after an activation or pooling, which cannot be folded")
        if not np.isfinite(offset).all() or (offset > 0).any() or (offset < -255).any():
            self._refuse(operation, "pads with a value that no pixel has, which Akida cannot")
        self.chain.offset = offset
        return np.zeros_like(shift)

    def _rows(self, weights: np.ndarray) -> np.ndarray:
        """Rows in the order in which ONNX flattens: channels first."""
        if self._flat is None:
            return weights
        return weights.reshape(*self._flat, -1).transpose(2, 0, 1, 3).reshape(weights.shape)

    def _require_size(self, operation: Operation, block: Block) -> None:
        """What cnn2snn asks of kernels, strides and padding."""
        first, kernel, stride = not self.chain.blocks, operation.kernel[0], operation.strides[0]
        if first and self._shape(operation)[2] not in (1, 3):
            self._refuse(operation, "reads pixels of another number of channels than 1 or 3, which Akida cannot")
        if not first and kernel % 2 == 0:
            self._refuse(operation, f"has a kernel of {kernel}x{kernel}, and Akida takes odd ones")
        if not first and (stride > 2 or (stride == 2 and kernel not in _WITH_STRIDES[operation.kind])):
            self._refuse(operation, f"has a kernel of {kernel}x{kernel} with strides of {stride}, which Akida has not")
        _, uneven = _same(operation, self._shape(operation))
        if block.pads == (0, 0, 0, 0) or self._is_same(operation, block):
            return
        if block.pads not in uneven or stride != 2 or kernel not in (_UNEVEN_FIRST if first else _UNEVEN):
            self._refuse(operation, f"is padded by {block.pads} (top, left, bottom, right), which Akida cannot")

    def _is_same(self, operation: Operation, block: Block) -> bool:
        return block.pads == _same(operation, self._shape(operation))[0]

    def _max_pool(self, operation: Operation) -> None:
        if operation.kernel[0] != operation.kernel[1] or operation.strides[0] != operation.strides[1]:
            self._refuse(operation, "has a window or strides that are not square, which Akida has not")
        shape = self._shape(operation)
        pads = pads_of(operation, shape[:2], self._shape(operation, output=True)[:2])
        if pads != _same(operation, shape)[0]:
            self._refuse(operation, f"does not cover {shape[0]}x{shape[1]} as padding='same' does, and Akida's does")
        block = self._block_to_pool(operation, maximum=True)
        block.pooling = Pooling(operation.kernel, operation.strides, pads)
        self._maxima.append((operation, block))

    def _is_whole(self, operation: Operation) -> bool:
        return operation.kernel == self._shape(operation)[:2] and self._shape(operation, output=True)[:2] == (1, 1)

    def _mean(self, operation: Operation) -> None:
        if self._shape(operation)[:2] != (1, 1):
            self._block_to_pool(operation, maximum=False).pooling = Pooling()

    def _block_to_pool(self, operation: Operation, *, maximum: bool) -> Block:
        """The block before, if Akida pools behind one of its kind; else one that only scales is put between."""
        if not self.chain.blocks:
            self._refuse(operation, "pools the pixels: Akida's tools want a convolution first")
        block = self.chain.blocks[-1]
        height, width, _ = self._shape(operation)
        means = len(self.chain.blocks) > 1 and height * width <= _MOST_SUMMED
        able = block.kind == "conv" and block.strides == (1, 1) and block.pooling is None
        if able and (self._may_pool if maximum else means) and self._nothing_to_fold():
            return block
        weights = np.diag(self._scale)[:, :, None, None]
        added = Block(operation.name, operation.layer, "conv", weights, self._shift)
        if maximum and block.most is not None and (self._scale > 0).all() and (self._shift >= 0).all():
            added.most = np.inf  # changes nothing: quantizeml knows no maximum without a ReLU
        self.chain.blocks.append(added)
        self._fold_nothing(len(self._shift))
        return self.chain.blocks[-1]

    def _nothing_to_fold(self) -> bool:
        return bool((self._scale == 1).all()) and not self._shift.any()

    def _fold_nothing(self, channels: int) -> None:
        self._scale, self._shift, self._flat = np.ones(channels), np.zeros(channels), None

    def _finish(self, operation: Operation) -> None:
        finish, arrays = operation.finish, self._plan.arrays
        scale = arrays[finish.scale].astype(np.float64) if finish.scale else np.ones(1)
        shift = arrays[finish.shift].astype(np.float64) if finish.shift else np.zeros(1)
        block = self.chain.blocks[-1] if self.chain.blocks else None
        if block is not None and operation.kind in ("conv", "depthwise"):
            outputs = scale if block.kind == "dense" else scale.reshape(-1, 1, 1, 1)
            block.weights = block.weights * outputs
            block.bias = block.bias * scale + shift
        else:
            self._scale, self._shift = self._scale * scale, self._shift * scale + shift
        if finish.activation == "linear":
            return
        last = operation is self._plan.operations[-1]
        if last and finish.activation in HEADS and self._nothing_to_fold():
            self.chain.head = finish.activation
        elif finish.activation == "relu" and block is not None and self._nothing_to_fold():
            self._relu(operation, block, *finish.parameters)
        else:
            self._refuse_activation(operation, f"computes {finish.activation}, which Akida cannot there")

    def _relu(self, operation: Operation, block: Block, slope: float, most: float, start: float) -> None:
        if slope or start:
            self._refuse_activation(operation, "has a ReLU with a slope or a threshold")
        if block.pooling is not None and block.pooling.kernel is None:
            self._refuse_activation(operation, "has its ReLU behind the mean, and Akida has it before")
        before = np.inf if block.most is None else block.most
        block.most = min(before, np.inf if most >= NO_LIMIT else most)


def _same(operation: Operation, shape: tuple[int, int, int]) -> tuple[Pads, tuple[Pads, Pads]]:
    """The padding with which every position is reached, as Keras has it; and the two that have more of it in front."""
    total = [
        max(kernel - (side % stride or stride), 0)
        for kernel, stride, side in zip(operation.kernel, operation.strides, shape, strict=False)
    ]
    (top, left), (bottom, right) = [one // 2 for one in total], [one - one // 2 for one in total]
    return (top, left, bottom, right), ((bottom, right, top, left), (bottom, right, bottom, right))


def pads_of(
    operation: Operation, size: tuple[int, ...], output: tuple[int, ...], kernel: tuple[int, int] | None = None
) -> Pads:
    """Zeros that are read; what the last window does not reach is none.

    Args:
        operation: a convolution or pooling.
        size, output: (height, width) of what it reads and gives.
        kernel: (height, width), where it is not the operation's.
    """
    behind = [
        max((out - 1) * stride + side - length - front, 0)
        for out, stride, side, length, front in zip(
            output, operation.strides, kernel or operation.kernel, size, operation.padding, strict=True
        )
    ]
    return (*operation.padding, behind[0], behind[1])
