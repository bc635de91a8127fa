"""The plan in plain NumPy: the engine where numba is not installed, and the one that says what the kernels must do.

For each operation: which output rows does a change of the inputs reach, compute these, finish them, keep what differs.
A *row* is all channels of one position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deltafine.runtime.activation_functions import ACTIVATIONS
from deltafine.runtime.array_sizes import owned_bytes
from deltafine.runtime.event_rules import follows_sensitivity, require_rules, sent, sent_by_own_rule
from deltafine.runtime.frame_counts import FrameCounts
from deltafine.runtime.numpy_tables import attended, blended, gathered, reached_by_table
from deltafine.runtime.plan import DELAY, ELEMENTWISE, GIVEN, MACS, UNKNOWN, WHOLE, Operation, Plan, begins_anew
from deltafine.runtime.single_thread import NotCopied

KerasCall = Callable[[Sequence[Operation], Mapping[int, np.ndarray]], list[np.ndarray]]
"""Computes neighbouring operations that are left to Keras, see ``deltafine.runtime.keras_calls``."""


class NumpyState(NotCopied):
    """One stream: every value of the current frame, and how many channels of each position changed."""

    def __init__(self, plan: Plan, keras_call: KerasCall, weights: dict[str, np.ndarray] | None = None) -> None:
        require_rules(plan)
        self.plan = plan
        self._keras_call = keras_call
        self._weights = matrices(plan) if weights is None else weights
        self._sensitivity = np.float32(1)
        self._sections = plan.sections()
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is a first frame."""
        self.values = [np.zeros(tensor.shape, np.float32) for tensor in self.plan.tensors]
        self.changed = [np.zeros(tensor.shape[:2], np.int32) for tensor in self.plan.tensors]
        self._delayed = {delay.output: np.zeros_like(self.values[delay.output]) for delay in self.plan.delays}
        self._given = {one.output: np.zeros_like(self.values[one.output]) for one in self.plan.further}
        self._counts = FrameCounts(self.plan)
        self.fresh, self._compare_all, self.frames = True, False, 0
        self._restarting = False

    def set_sensitivity(self, sensitivity: float, *, compare_all: bool) -> None:
        """Multiply thresholds from the next frame on; in it, ``compare_all``, also of values that stand still."""
        self._sensitivity = np.float32(sensitivity)
        self._compare_all |= compare_all

    def give(self, further: Mapping[int, np.ndarray]) -> None:
        """Set further inputs, by tensor, for the next frames; all of them before a first one."""
        for index, values in further.items():
            self._given[index][...] = values.reshape(self._given[index].shape)

    def value(self, index: int) -> np.ndarray:
        """A copy of the current value of a tensor, (height, width, channels)."""
        return self.values[index].copy()

    def as_kept(self, index: int) -> np.ndarray:
        """A copy of a tensor as the state holds it."""
        return self.values[index].copy()

    @staticmethod
    def is_finite(pixels: np.ndarray) -> bool:
        """Whether a frame holds neither NaN nor infinity."""
        return bool(np.isfinite(pixels).all())

    @property
    def memory(self) -> int:
        """Bytes of state."""
        return owned_bytes(
            [*self.values, *self.changed, *self._counts.arrays, *self._delayed.values(), *self._given.values()]
        )

    def step(self, frame: np.ndarray) -> None:
        """Advance by one frame (height, width, channels), any number type."""
        frame = frame.astype(np.float32, copy=False)
        self._counts = FrameCounts(self.plan)
        self._restarting = begins_anew(self.plan, self.frames)
        if self._restarting:
            self._delayed = {index: np.zeros_like(values) for index, values in self._delayed.items()}
        with np.errstate(all="ignore"):  # as in the kernels, and in Keras
            for first, last in self._sections:
                results = self._of_keras(first, last)
                for place in range(first, last):
                    operation = self.plan.operations[place]
                    self._advance(place, operation, results.get(operation.output, frame), self._counts)
        for operation in self.plan.delays:
            self._delayed[operation.output] = self.values[operation.before].copy()
        self.fresh = self._compare_all = False
        self.frames += 1

    def counts(self) -> FrameCounts:
        """What the last frame took."""
        return self._counts

    def _of_keras(self, first: int, last: int) -> dict[int, np.ndarray]:
        """By tensor what Keras makes of operations that are left to it; nothing of others, or if nothing changed."""
        operations, read = self.plan.operations[first:last], self.plan.read_by(first, last)
        moved = self.fresh or any(self.changed[index].any() for index in read)
        if operations[0].kind != UNKNOWN or not moved:
            return {}
        given = {index: self.values[index].reshape(self.plan.tensors[index].sample_shape) for index in read}
        results = self._keras_call(operations, given)
        return {operation.output: result for operation, result in zip(operations, results, strict=True)}

    def _advance(self, place: int, operation: Operation, given: np.ndarray, counts: FrameCounts) -> None:
        """Advance one operation; ``given`` is the frame, or what Keras has made of the operation."""
        active = self._reached(operation)
        rows = self._rows(operation, active, given) if active.any() else np.zeros((0, 0), np.float32)
        changed = np.zeros(active.shape, np.int32)
        if len(rows):
            old = self.values[operation.output][active]
            new = self._finished(operation, rows, old, active)
            changed[active] = (new != old).sum(axis=-1) if not self.fresh else new.shape[-1]
            self.values[operation.output][active] = new
        self.changed[operation.output] = changed
        counts.rows[place] = len(rows)
        counts.changed_rows[place] = np.count_nonzero(changed)
        counts.changed_elements[place] = changed.sum(dtype=np.int64)
        if operation.fan:
            fan = self.plan.arrays[operation.fan]
            counts.effective_macs[place] = (self.changed[operation.inputs[0]].astype(np.int64) * fan).sum()
        elif operation.kind in WHOLE and len(rows):
            counts.effective_macs[place] = operation.dense_macs or 0

    def _reached(self, operation: Operation) -> np.ndarray:
        """(height, width) bool: the output rows that a change of the inputs reaches."""
        height, width, _ = self.plan.tensors[operation.output].shape
        everywhere: np.ndarray = np.ones((height, width), bool)
        if self.fresh or operation.kind in ("input", DELAY, GIVEN) or self.plan.own_rule(operation) is not None:
            return everywhere
        if operation.restarts:
            return everywhere
        if self._compare_all and follows_sensitivity(self.plan, operation):
            return everywhere
        masks = [self.changed[index] > 0 for index in operation.inputs]
        if not any(mask.any() for mask in masks):
            return np.zeros_like(everywhere)
        kind = operation.kind
        if kind in MACS or kind in ("max_pool", "average_pool"):
            return np.asarray(patches(operation, masks[0], (height, width)).any(axis=(2, 3)))
        if kind in ("identity", "concatenate") or kind in ELEMENTWISE:
            reached = np.zeros_like(everywhere)
            for mask in masks:
                reached |= mask  # a mask of one position reaches everywhere
            return reached
        if kind == "place":
            return placed(operation, masks[0][:, :, None], (height, width))[:, :, 0]
        if kind in ("gather", "blend"):
            channels = [self.plan.tensors[index].shape[2] for index in operation.inputs]
            return reached_by_table(kind, self.plan.arrays[operation.table], masks, channels)
        return everywhere

    def _rows(self, operation: Operation, active: np.ndarray, given: np.ndarray) -> np.ndarray:
        """(rows, channels) of the active positions before they are finished."""
        kind, size = operation.kind, active.shape
        if kind == "input":
            return given[active]
        if kind == DELAY:
            return self._delayed[operation.output][active]
        if kind == GIVEN:
            return self._given[operation.output][active]
        if kind == UNKNOWN:
            return given.reshape(-1, self.plan.tensors[operation.output].shape[2])
        channels = self.plan.tensors[operation.output].shape[2]
        if kind == "constant":
            return self.plan.arrays[operation.weights].reshape(-1, channels)
        inputs = [self.values[index] for index in operation.inputs]
        first = inputs[0]
        if kind == "conv":
            return multiplied(operation, patches(operation, first, size)[active], self._weights[operation.name])
        if kind == "depthwise":
            taps = patches(operation, first, size)[active]
            return np.einsum("nhwc,hwcm->ncm", taps, self._weights[operation.name]).reshape(len(taps), -1)
        if kind == "max_pool":
            return patches(operation, first, size, outside=-np.inf)[active].max(axis=(1, 2))
        if kind == "average_pool":
            inside = patches(operation, np.ones((*first.shape[:2], 1), np.float32), size)[active].sum(axis=(1, 2))
            return patches(operation, first, size)[active].sum(axis=(1, 2)) / inside
        if kind == "global_average":
            return first.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)[None]
        if kind == "global_max":
            return first.max(axis=(0, 1))[None]
        if kind == "place":
            return placed(operation, first, size)[active]
        if kind == "reshape":
            return first.reshape(-1, self.plan.tensors[operation.output].shape[2])
        if kind == "concatenate":
            whole = [np.broadcast_to(value, (*size, value.shape[2])) for value in inputs]
            return np.concatenate(whole, axis=2)[active]
        if kind == "gather":
            return gathered(self.plan.arrays[operation.table], inputs, active, channels)
        if kind == "blend":
            return blended(self.plan.arrays[operation.table], self._weights[operation.name], first, active)
        if kind == "attention":
            scale = self._weights[operation.name]
            queries, keys, values = (value.reshape(-1, value.shape[2]) for value in inputs)
            return attended(queries, keys, values, operation.groups, scale)
        return _combine(kind, [np.broadcast_to(value, (*size, channels))[active] for value in inputs])

    def _finished(self, operation: Operation, rows: np.ndarray, old: np.ndarray, active: np.ndarray) -> np.ndarray:
        finish, arrays = operation.finish, self.plan.arrays
        if finish.scale:
            rows = rows * arrays[finish.scale]
        if finish.shift:
            rows = rows + arrays[finish.shift]
        rows = ACTIVATIONS[finish.activation](rows, *finish.parameters).astype(np.float32, copy=False)
        if finish.delta is None:
            return rows
        first = self.fresh or (self._restarting and operation.restarts)
        if self.plan.own_rule(operation) is not None:
            shape = self.plan.tensors[operation.output].shape
            before = None if first else old.reshape(shape)
            whole = sent_by_own_rule(self.plan, operation, rows.reshape(shape), before, float(self._sensitivity))
            return whole.reshape(rows.shape)
        threshold = arrays[finish.delta.threshold]
        if threshold.ndim == 3:
            threshold = threshold[active]
        if follows_sensitivity(self.plan, operation):
            threshold = threshold * self._sensitivity
        return sent(finish.delta, rows, None if first else old, threshold)


def matrices(plan: Plan) -> dict[str, np.ndarray]:
    """The weights as this engine multiplies with them, by operation; to be shared by all streams."""
    return {
        operation.name: matrix_of(operation, plan.arrays[operation.weights])
        for operation in plan.operations
        if operation.weights
    }


def matrix_of(operation: Operation, weights: np.ndarray) -> np.ndarray:
    """Weights of a convolution as (groups, taps * input channels, output channels); others as they are."""
    if operation.kind != "conv":
        return weights
    height, width, inputs, outputs = weights.shape
    grouped = weights.reshape(height * width * inputs, operation.groups, outputs // operation.groups)
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def patches(operation: Operation, x: np.ndarray, size: tuple[int, int], outside: float = 0) -> np.ndarray:
    """A view (output height, output width, kernel height, kernel width, ...) of what each output reads of ``x``."""
    pads, reach = [], []
    for axis in (0, 1):
        kernel, stride, dilation = operation.kernel[axis], operation.strides[axis], operation.dilation[axis]
        before, span = operation.padding[axis], (operation.kernel[axis] - 1) * operation.dilation[axis] + 1
        needed = (size[axis] - 1) * stride + span
        pads.append((before, max(needed - before - x.shape[axis], 0)))
        reach.append((kernel, stride, dilation, span))
    padded = np.pad(x, [*pads, *[(0, 0)] * (x.ndim - 2)], constant_values=outside)
    view = np.lib.stride_tricks.sliding_window_view(padded, (reach[0][3], reach[1][3]), axis=(0, 1))
    view = view[:: reach[0][1], :: reach[1][1]][: size[0], : size[1]]
    view = view[..., :: reach[0][2], :: reach[1][2]]
    return view if x.ndim == 2 else view.transpose(0, 1, 3, 4, 2)


def multiplied(operation: Operation, taps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A convolution's (rows, channels), of what each row reads (rows, kernel height, kernel width, input channels)."""
    rows, each = len(taps), taps.shape[3] // operation.groups
    if operation.groups == 1:
        return taps.reshape(rows, -1) @ weights[0]
    pieces = [
        taps[..., group * each : (group + 1) * each].reshape(rows, -1) @ matrix for group, matrix in enumerate(weights)
    ]
    return np.concatenate(pieces, axis=1)


def placed(operation: Operation, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``x`` stretched by ``strides`` and laid ``padding`` into zeros (or cropped, where that is negative)."""
    (top, left), (tall, wide) = operation.padding, operation.strides
    stretched = x.repeat(tall, axis=0).repeat(wide, axis=1)[max(-top, 0) :, max(-left, 0) :]
    result = np.zeros((*size, x.shape[2]), x.dtype)
    piece = stretched[: size[0] - max(top, 0), : size[1] - max(left, 0)]
    result[max(top, 0) : max(top, 0) + piece.shape[0], max(left, 0) : max(left, 0) + piece.shape[1]] = piece
    return result


def _combine(kind: str, rows: list[np.ndarray]) -> np.ndarray:
    """An element-wise operation of two or more, from left to right; an identity of one."""
    if kind == "average":
        return (_combine("add", rows) / np.float32(len(rows))).astype(np.float32)
    functions: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
        "divide": np.divide, "power": np.power, "prelu": lambda x, slope: np.where(x >= 0, x, x * slope),
    }  # fmt: skip
    result = rows[0]
    for other in rows[1:]:
        result = functions[kind](result, other)
    return result
