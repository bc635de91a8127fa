"""Small plans in floating point with random weights, all of whose layers have a form in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deltafine.runtime.activation_functions import NO_LIMIT
from deltafine.runtime.int8.byte_plan import BytePlan
from deltafine.runtime.int8.quantise import in_bytes
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.plan import Delta, Finish, Operation, Plan, Tensor
from deltafine.runtime.value_ranges import of_bytes, value_ranges

RULES = (("quantize", "element"), ("send-on-delta", "element"), ("send-on-delta", "pixel"), ("identity", "element"))
KINDS = (
    "conv", "conv", "conv", "depthwise", "depthwise", "add", "subtract", "average", "identity", "max_pool",
    "average_pool", "place", "grouped", "grouped", "multiply", "concatenate", "gate",
)  # fmt: skip
BY_TABLE: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("silu", ()), ("hard_silu", ()), ("gelu", ()), ("sigmoid", ()), ("tanh", ()), ("elu", (1.0,)),
    ("relu", (0.2, NO_LIMIT, 0.0)),
)  # fmt: skip
CHANNELS = (1, 3, 7, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96, 130)


class Maker:
    """Appends random operations to a plan."""

    def __init__(self, seed: int, size: tuple[int, int, int]) -> None:
        self.random = np.random.default_rng(seed)
        self.plan = Plan("random", [], [], ())
        self.scale = self._array("scale", np.full(size[2], 1 / 127.5))
        self.shift = self._array("shift", np.full(size[2], -1.0))
        self._add("input", (), size, finish=Finish(scale=self.scale, shift=self.shift))

    def _array(self, name: str, values: np.ndarray) -> str:
        self.plan.arrays[name] = np.asarray(values, np.float32)
        return name

    def _add(self, kind: str, inputs: tuple[int, ...], shape: tuple[int, int, int], **fields: object) -> int:
        index = len(self.plan.tensors)
        self.plan.tensors.append(Tensor(f"{kind}{index}", shape, shape))
        self.plan.operations.append(Operation(kind, f"{kind}{index}", inputs, index, **fields))  # type: ignore[arg-type]
        return index

    def _finish(self, shape: tuple[int, int, int], *, activation: bool = True) -> Finish:
        name, random = f"of {len(self.plan.tensors)}", self.random
        rule, granularity = RULES[random.integers(len(RULES))]
        by_table = activation and random.random() < 0.4
        shapes = [(), (shape[2],), shape]  # of neurons, quantising stays in float32, and of channels, tables do
        threshold_shape = shapes[random.integers(3 if rule != "quantize" else 1 if by_table else 2)]
        size = {"quantize": 0.1, "send-on-delta": 0.4}.get(rule, 0.1)
        threshold = self._array(f"{name}: threshold", random.uniform(size / 3, size, threshold_shape))
        delta = Delta(name, rule, granularity, threshold) if random.random() < 0.7 else None
        most = [NO_LIMIT, 1.0][random.integers(2)]
        kinds = [("linear", ()), ("relu", (0.0, most, 0.0))]
        function, parameters = kinds[random.integers(2) if activation else 0]
        if by_table:
            function, parameters = BY_TABLE[random.integers(len(BY_TABLE))]
        shift = self._array(f"{name}: shift", random.normal(0, 0.3, shape[2])) if activation else ""
        return Finish("", shift, function, parameters, delta)  # type: ignore[arg-type]

    def _sides(
        self, shape: tuple[int, int, int], kernel: tuple[int, ...], dilation: tuple[int, ...]
    ) -> dict[str, tuple]:
        strides = tuple(int(one) for one in self.random.integers(1, 4, 2))
        around = [int(self.random.integers(0, k)) for k in kernel]
        sizes = [
            max(
                (shape[a] + around[a] + int(self.random.integers(0, kernel[a])) - (kernel[a] - 1) * dilation[a] - 1)
                // strides[a] + 1,
                1,
            )
            for a in (0, 1)
        ]  # fmt: skip
        return {"strides": strides, "padding": tuple(around), "sizes": tuple(sizes)}

    def append(self, kind: str, source: int, outputs: int | None = None) -> int:
        """Append an operation of a kind; returns its output. ``outputs``: channels of a convolution."""
        random, shape = self.random, self.plan.tensors[source].shape
        name = f"weights {len(self.plan.tensors)}"
        if kind in ("conv", "depthwise"):
            kernel = tuple(int(one) for one in random.choice([1, 1, 2, 3, 3, 5], 2))
            dilation = tuple(int(one) for one in random.choice([1, 1, 2], 2))
            sides = self._sides(shape, kernel, dilation)
            if outputs is None or kind == "depthwise":
                outputs = int(random.choice(CHANNELS)) if kind == "conv" else shape[2]
            target = (*sides.pop("sizes"), outputs)
            inside = (*kernel, shape[2], outputs if kind == "conv" else 1)
            spread = np.sqrt(2 / np.prod(inside[:3] if kind == "conv" else kernel))
            weights = random.normal(0, spread, inside) * random.choice([0.3, 1, 3], inside[3])
            return self._add(
                kind, (source,), target, kernel=kernel, dilation=dilation, **sides, finish=self._finish(target),
                weights=self._array(name, weights),
                fan=self._fan(shape, outputs), dense_macs=1,
            )  # fmt: skip
        if kind == "grouped":
            own, each = ((4, 4), (8, 8), (16, 16), (2, 2), (3, 6), (24, 8), (40, 40), (64, 2))[random.integers(8)]
            groups = int(random.integers(1, 9))
            source = self.append("conv", source, each * groups)
            shape = self.plan.tensors[source].shape
            kernel = tuple(int(one) for one in random.choice([1, 2, 3], 2))
            dilation = tuple(int(one) for one in random.choice([1, 1, 2], 2))
            sides = self._sides(shape, kernel, dilation)
            target = (*sides.pop("sizes"), own * groups)
            spread = np.sqrt(2 / (kernel[0] * kernel[1] * each))
            return self._add(
                "conv", (source,), target, kernel=kernel, dilation=dilation, groups=groups, **sides,
                finish=self._finish(target), fan=self._fan(shape, own), dense_macs=1,
                weights=self._array(f"{name} of groups", random.normal(0, spread, (*kernel, each, own * groups))),
            )  # fmt: skip
        if kind == "gate":
            gate = self._add("global_average", (source,), (1, 1, shape[2]), finish=self._finish((1, 1, shape[2])))
            inputs = (source, gate) if random.random() < 0.5 else (gate, source)
            return self._add("multiply", inputs, shape, finish=self._finish(shape))
        if kind == "concatenate":
            others = [i for i, tensor in enumerate(self.plan.tensors) if tensor.shape[:2] == shape[:2] and i]
            inputs = tuple(random.permutation([source, *random.choice(others, random.integers(1, 3))]).tolist())
            return self._add(kind, inputs, (*shape[:2], sum(self.plan.tensors[i].shape[2] for i in inputs)))
        if kind in ("add", "subtract", "average", "multiply"):
            others = [index for index, tensor in enumerate(self.plan.tensors) if tensor.shape == shape and index]
            inputs = (
                (source, *(int(random.choice(others)) for _ in range(random.integers(1, 3)))) if others else (source,)
            )
            kind = "identity" if len(inputs) == 1 else kind
            return self._add(kind, inputs, shape, finish=self._finish(shape))
        if kind == "identity":
            finish = self._finish(shape)
            finish.scale = self._array(
                f"{name}: scale", random.uniform(0.2, 2, shape[2]) * random.choice([-1, 1], shape[2])
            )
            return self._add(kind, (source,), shape, finish=finish)
        if kind in ("max_pool", "average_pool"):
            kernel = tuple(min(int(random.integers(1, 4)), side) for side in shape[:2])
            sides = self._sides(shape, kernel, (1, 1))
            sizes = sides.pop("sizes")
            if kind == "average_pool":  # what is outside would count
                sides["padding"] = (0, 0)
                sizes = tuple((shape[a] - kernel[a]) // sides["strides"][a] + 1 for a in (0, 1))
            target = (*sizes, shape[2])
            finish = Finish() if kind == "max_pool" else self._finish(target, activation=False)
            return self._add(kind, (source,), target, kernel=kernel, **sides, finish=finish)
        top, left, more = (int(one) for one in random.integers(0, 3, 3))
        target = (shape[0] + top + more, shape[1] + left, shape[2])
        return self._add("place", (source,), target, padding=(top, left), layer="ZeroPadding2D")

    def _fan(self, shape: tuple[int, int, int], outputs: int) -> str:
        name = f"fan {len(self.plan.tensors)}"
        self.plan.arrays[name] = np.full(shape[:2], outputs, np.int32)
        return name

    def end(self, source: int, flat: bool) -> Plan:
        """Append a dense layer of all positions, or of their means, and make it the output."""
        height, width, channels = self.plan.tensors[source].shape
        if flat:
            source = self._add("reshape", (source,), (1, 1, height * width * channels))
        else:
            source = self._add("global_average", (source,), (1, 1, channels), finish=self._finish((1, 1, channels)))
        inputs = self.plan.tensors[source].shape[2]
        weights = self._array("dense", self.random.normal(0, inputs**-0.5, (1, 1, inputs, 5)))
        last = self._add(
            "conv", (source,), (1, 1, 5), weights=weights, fan=self._fan((1, 1, inputs), 5), dense_macs=5 * inputs,
            finish=Finish(shift=self._array("bias", self.random.normal(size=5))),
        )  # fmt: skip
        self.plan.outputs = (last,)
        return self.plan


def random_plan(seed: int) -> Plan:
    """A network of up to seven layers on small frames."""
    random = np.random.default_rng(seed)
    height, width = (int(one) for one in random.integers(5, 14, 2))
    maker = Maker(seed, (height, width, int(random.choice([1, 3, 4]))))
    source = maker.append("conv", 0)
    for kind in random.choice(KINDS, random.integers(2, 6)):
        source = maker.append(str(kind), source)
    return maker.end(source, flat=bool(random.random() < 0.4))


def video(shape: tuple[int, ...], frames: int, seed: int) -> Iterator[np.ndarray]:
    """Bytes: few values change, or many, or none."""
    random = np.random.default_rng(seed)
    frame = random.integers(0, 256, shape, dtype=np.uint8)
    for _ in range(frames):
        changed = random.random(shape[:2]) < random.choice([0, 0.02, 0.1, 1])
        frame = np.where(changed[:, :, None], random.integers(0, 256, shape, dtype=np.uint8), frame)
        yield frame.copy()


def no_keras(*_: object) -> list[np.ndarray]:
    raise AssertionError


def byte_plan(plan: Plan, frames: list[np.ndarray]) -> BytePlan:
    """The plan in 8-bit integers, calibrated on these frames."""
    return in_bytes(plan, of_bytes(plan, value_ranges(plan, NumpyState(plan, no_keras), frames)))
