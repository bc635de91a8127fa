"""From a plan to what Lava's netx reads: a chain of convolutions, each with a ReLU that sends on delta.

Its rules were read in lava-dl 0.6 (``netx/hdf5.py``) and lava-nc 0.10 (``proc/sdn``, ``proc/conv``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.exporting.akida_chain import HEADS, pads_of
from deltafine.exporting.fixed_player import convolved, taps
from deltafine.runtime.activation_functions import NO_LIMIT
from deltafine.runtime.plan import Delta, Operation, Plan


@dataclass
class LavaBlock:
    """A convolution over all channels or in groups, padded alike on opposite sides, and a ReLU that sends on delta.

    Attributes:
        name, layer: of the Keras layer, and its class.
        weights: (height, width, input channels / groups, output channels).
        bias: (channels,) or (height, width, channels).
        shape: (height, width, channels) of what it gives.
        strides, padding: (height, width).
        relu: without, a block only adds up.
        threshold: (channels,), 0 to send every change; None for no delta layer.
    """

    name: str
    layer: str
    weights: np.ndarray
    bias: np.ndarray
    shape: tuple[int, ...]
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    relu: bool = False
    threshold: np.ndarray | None = None

    def sums(self, x: np.ndarray) -> np.ndarray:
        """What arrives, without bias, of (height, width, input channels)."""
        kernel = self.weights.shape[:2]
        read = taps(x, self.shape, kernel=kernel, strides=self.strides, padding=self.padding)
        return convolved(read, self.weights, self.groups)

    def of_one_group(self) -> LavaBlock:
        """The same, with zeros for the weights between groups."""
        if self.groups == 1:
            return self
        height, width, inputs, outputs = self.weights.shape
        weights = np.zeros((height, width, inputs * self.groups, outputs), self.weights.dtype)
        for group in range(self.groups):
            ours = slice(group * outputs // self.groups, (group + 1) * outputs // self.groups)
            weights[:, :, group * inputs : (group + 1) * inputs, ours] = self.weights[..., ours]
        return LavaBlock(**{**self.__dict__, "weights": weights, "groups": 1})


@dataclass
class LavaChain:
    """A network of single frames.

    Attributes:
        shape: (height, width, channels) of a frame.
        threshold: of pixels, (channels,).
        blocks: in order of computation; the last has no ReLU.
        head: the activation at the end, or "".
    """

    shape: tuple[int, int, int]
    threshold: np.ndarray
    blocks: list[LavaBlock] = field(default_factory=list)
    head: str = ""


def lava_chain(plan: Plan) -> LavaChain:
    """Fold scales, offsets, normalisations and means into weights; the answers stay the same.

    Args:
        plan: of a network of single frames.

    Raises:
        DeltafineError: netx has no layer for something; the sentence names it.
    """
    return _LavaFolding(plan).chain


class _LavaFolding:
    """Goes through the operations; ``_scale`` and ``_shift`` are still to be folded into the weights that come next."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        first = plan.operations[0]
        shape = plan.tensors[first.output].shape
        self.chain = LavaChain(shape, np.zeros(shape[2]))
        self._fold_nothing(shape[2])
        before = None
        for operation in plan.operations:
            if before is not None and operation.inputs != (before.output,):
                self._refuse(operation, "does not read the layer before it alone, and netx reads chains of layers")
            self._add(operation)
            self._finish(operation)
            before = operation
        assert before is not None
        self._end(before)

    def _refuse(self, operation: Operation, why: str) -> NoReturn:
        self._refuse_layer(f"'{operation.name}'" + (f" ({operation.layer})" if operation.layer else ""), why)

    def _refuse_end(self, operation: Operation, why: str) -> NoReturn:
        """What is finished with an operation gives the value its name: an activation, then a delta layer behind it."""
        name = self._plan.tensors[operation.output].name
        self._refuse_layer(f"'{name.removesuffix('_delta') if operation.finish.delta else name}'", why)

    def _refuse_layer(self, layer: str, why: str) -> NoReturn:
        raise DeltafineError(
            f"Layer {layer} of model '{self._plan.name}' {why}: export the model as fixed-plan, or replace the layer."
        )

    def _shape(self, operation: Operation, *, output: bool = False) -> tuple[int, int, int]:
        return self._plan.tensors[operation.output if output else operation.inputs[0]].shape

    def _fold_nothing(self, channels: int) -> None:
        self._scale, self._shift = np.ones(channels), np.zeros(channels)
        self._flat: tuple[int, int, int] | None = None

    @property
    def _last(self) -> LavaBlock | None:
        return self.chain.blocks[-1] if self.chain.blocks else None

    @property
    def _is_open(self) -> bool:
        """Whether the last block only adds up, so that what follows can become part of it."""
        return self._last is not None and not self._last.relu

    def _add(self, operation: Operation) -> None:
        kind, (height, width, channels) = operation.kind, self._shape(operation, output=True)
        if kind in ("input", "identity"):
            return
        if kind == "reshape" and (height, width) == (1, 1):
            self._flatten(operation)
        elif kind in ("conv", "depthwise"):
            self._weights(operation)
        elif kind in ("global_average", "average_pool"):
            size = self._shape(operation)[:2]
            kernel = size if kind == "global_average" else operation.kernel
            pads = (0, 0, 0, 0) if kind == "global_average" else pads_of(operation, size, (height, width))
            if any(pads):
                self._refuse(operation, "takes means of fewer values at the edges, which netx cannot")
            mean = np.full((*kernel, 1, channels), 1 / np.prod(kernel))
            strides = (1, 1) if kind == "global_average" else operation.strides
            self._convolve(operation, mean, channels, strides, pads)
        else:
            self._refuse(operation, "has no counterpart in netx")

    def _flatten(self, operation: Operation) -> None:
        height, width, channels = self._shape(operation)
        if (height, width) != (1, 1):
            self._close()
            self._flat = (height, width, channels)
            self._scale, self._shift = (np.tile(one, height * width) for one in (self._scale, self._shift))

    def _weights(self, operation: Operation) -> None:
        weights, groups = self._plan.arrays[operation.weights].astype(np.float64), operation.groups
        if operation.kind == "depthwise":
            groups = weights.shape[2]
            weights = weights.reshape(*weights.shape[:2], 1, -1)
        if operation.dilation != (1, 1):
            tall, wide = ((side - 1) * by + 1 for side, by in zip(weights.shape[:2], operation.dilation, strict=True))
            spread = np.zeros((tall, wide, *weights.shape[2:]))
            spread[:: operation.dilation[0], :: operation.dilation[1]] = weights
            weights = spread
        size, output = self._shape(operation)[:2], self._shape(operation, output=True)[:2]
        kernel = (weights.shape[0], weights.shape[1])
        self._convolve(operation, weights, groups, operation.strides, pads_of(operation, size, output, kernel))

    def _convolve(
        self, operation: Operation, weights: np.ndarray, groups: int, strides: tuple[int, int], pads: tuple[int, ...]
    ) -> None:
        shape, size = self._shape(operation, output=True), self._shape(operation)[:2]
        bias = np.zeros(shape[2])
        if self._is_open and weights.shape[:2] == (1, 1) and strides == (1, 1) and not any(pads):
            self._compose(operation, LavaBlock("", "", weights, bias, shape, groups).of_one_group())
            return
        self._close()
        shift, scale = self._shift, self._scale
        if self._flat is not None:
            weights, size = weights.reshape(*self._flat, -1), self._flat[:2]
            scale, shift = scale.reshape(self._flat), shift.reshape(self._flat)
        block = LavaBlock(operation.name, operation.layer, weights, bias, shape, groups, strides)
        block.weights, block.padding = _padded(weights, strides, pads, size, shape[:2])
        if shift.any():
            # With padding, what the offset adds is not the same everywhere. netx takes a bias for each neuron.
            added = block.sums(np.broadcast_to(shift, (*size, shift.shape[-1])))
            same = np.allclose(added, added[:1, :1], rtol=1e-9, atol=0)
            block.bias = added[0, 0] if same else added
        if self._flat is not None:
            block.weights = block.weights * scale[..., None]
        else:
            by_group = scale.reshape(groups, -1).repeat(shape[2] // groups, axis=0).T
            block.weights = block.weights * by_group
        self.chain.blocks.append(block)
        self._fold_nothing(shape[2])

    def _compose(self, operation: Operation, pointwise: LavaBlock) -> None:
        """A convolution of 1x1 behind one that only adds up is one convolution."""
        before = self.chain.blocks[-1].of_one_group()
        mixed = pointwise.weights[0, 0]
        before.weights, before.bias = before.weights @ mixed, before.bias @ mixed
        before.name, before.layer, before.shape = operation.name, operation.layer, pointwise.shape
        self.chain.blocks[-1] = before
        self._fold_nothing(before.shape[2])

    def _close(self) -> None:
        """What netx computes ends with a ReLU; what cannot be negative is the same with it."""
        if not self._is_open:
            return
        block, before = self.chain.blocks[-1], self.chain.blocks[:-1]
        if not before or (block.weights < 0).any() or (block.bias < 0).any():
            self._refuse_layer(
                f"'{block.name}' ({block.layer})", "has no ReLU, and in netx every layer but the last ends with one"
            )
        block.relu = True

    def _finish(self, operation: Operation) -> None:
        finish, arrays, block = operation.finish, self._plan.arrays, self._last
        scale = arrays[finish.scale].astype(np.float64) if finish.scale else np.ones(1)
        shift = arrays[finish.shift].astype(np.float64) if finish.shift else np.zeros(1)
        if operation.kind == "average_pool" and (finish.scale or finish.shift):
            self._close()
        if block is not None and not block.relu:
            block.weights, block.bias = block.weights * scale, block.bias * scale + shift
        else:
            self._scale, self._shift = self._scale * scale, self._shift * scale + shift
        last = operation is self._plan.operations[-1]
        if finish.activation == "relu":
            slope, most, start = finish.parameters
            if slope or start or most < NO_LIMIT:
                self._refuse_end(operation, "has a ReLU with a slope, a threshold or a limit, which netx has not")
            if block is None or self._has_to_fold():
                self._refuse_end(operation, "has a ReLU without weights before it")
            block.relu = True
        elif finish.activation in HEADS and last:
            self.chain.head = finish.activation
        elif finish.activation != "linear":
            self._refuse_end(operation, f"computes {finish.activation}, which netx has not")
        if finish.delta is not None:
            self._delta(operation, finish.delta)

    def _has_to_fold(self) -> bool:
        return bool((self._scale != 1).any() or self._shift.any())

    def _delta(self, operation: Operation, delta: Delta) -> None:
        threshold = np.zeros(1)
        if delta.rule == "send-on-delta":
            if delta.granularity != "element":
                self._refuse_end(operation, "sends whole positions, and netx sends single values")
            threshold = self._plan.arrays[delta.threshold].astype(np.float64)
            flat = threshold.reshape(-1, threshold.shape[-1]) if threshold.ndim else threshold.reshape(1, 1)
            if (flat != flat[0]).any():
                self._refuse_end(operation, "has a threshold for each neuron, and netx has one for each layer")
            threshold = flat[0]
        elif delta.rule not in ("identity", "l1"):
            self._refuse_end(operation, f"has the rule {delta.rule}, and netx's neurons send on delta")
        if self._has_to_fold() or self._flat is not None:
            self._refuse_end(operation, "has a delta layer behind a scaling or flattening")
        channels = self._shape(operation, output=True)[2]
        threshold = np.broadcast_to(threshold, channels).copy()
        self._close()
        if self._last is None:
            if len(set(np.ceil(threshold))) > 1:
                self._refuse_end(operation, "has a threshold for each channel of the pixels, and netx has one")
            self.chain.threshold = threshold
        elif self._last.threshold is not None:
            self._refuse_end(operation, "has two delta layers, one behind the other")
        else:
            self._last.threshold = threshold

    def _end(self, operation: Operation) -> None:
        block = self._last
        if block is None or len(self.chain.blocks) < 2:
            self._refuse(operation, "ends a network of fewer than two layers with weights, which is none for netx")
        if block.relu and block.threshold is None and not self.chain.head and not self._has_to_fold():
            block.relu, self.chain.head = False, "relu"
        if block.relu or self._flat is not None:
            self._refuse(operation, "is not the sum of a layer with weights, which netx gives at the end")
        if block.bias.any() and (any(block.padding) or block.bias.ndim > 1):
            self._refuse(operation, "ends the network with a padded convolution and a bias, which netx cannot")


def _padded(
    weights: np.ndarray, strides: tuple[int, int], pads: tuple[int, ...], size: tuple[int, ...], output: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Zeros around the kernel, so that the same padding on opposite sides reads what ``pads`` says.

    Args:
        weights: (height, width, input channels, output channels).
        strides: (height, width).
        pads: top, left, bottom, right.
        size, output: (height, width) of input and output.

    Returns:
        The weights, and the padding (height, width).
    """
    around, both = [], []
    for axis in (0, 1):
        front, behind = pads[axis], pads[axis + 2]
        padding = max(front, behind)
        kernel = weights.shape[axis] + padding - front
        too_many = max(size[axis] + 2 * padding - kernel - (output[axis] * strides[axis] - 1), 0)
        around.append((padding - front, too_many))
        both.append(padding)
    return np.pad(weights, (*around, (0, 0), (0, 0))), (both[0], both[1])
