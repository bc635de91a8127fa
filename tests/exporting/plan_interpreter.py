"""A player of exported plans in NumPy, written from docs/plan.md alone: it shares no code with deltafine.

It computes every frame whole. What the plan saves is what of it is the same as in the frame before; that is counted.
"""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from math import erf
from pathlib import Path
from typing import Any

import numpy as np

F = np.float32
SIGMOID = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
ACTIVATIONS: dict[str, Any] = {
    "linear": lambda x: x,
    "relu": lambda x, slope, most, start: np.minimum(np.where(x >= start, x, F(slope) * (x - F(start))), F(most)),
    "sigmoid": SIGMOID,
    "tanh": np.tanh,
    "silu": lambda x: x * SIGMOID(x),
    "hard_sigmoid": lambda x: np.clip(x / F(6) + F(0.5), 0, 1),
    "hard_silu": lambda x: x * np.clip(x / F(6) + F(0.5), 0, 1),
    "elu": lambda x, alpha: np.where(x > 0, x, F(alpha) * np.expm1(np.minimum(x, 0))),
    "selu": lambda x: F(1.0507009873554805) * np.where(x > 0, x, F(1.6732632423543772) * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: F(0.5) * x * (1 + np.vectorize(erf, otypes=[F])(x / F(np.sqrt(2)))),
    "gelu_tanh": lambda x: F(0.5) * x * (1 + np.tanh(F(np.sqrt(2 / np.pi)) * (x + F(0.044715) * x * x * x))),
    "softplus": lambda x: np.logaddexp(x, F(0)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "softmax": lambda x: (lambda e: e / e.sum(-1, keepdims=True))(np.exp(x - x.max(-1, keepdims=True))),
}
PAIRS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum}


class Interpreter:
    """Plays one stream; ``events`` and ``macs`` are those of the last frame."""

    def __init__(self, file: Path) -> None:
        self.plan = json.loads(file.read_text("utf-8"))
        beside = file.with_name(self.plan["arrays"]["file"])
        assert hashlib.sha256(beside.read_bytes()).hexdigest() == self.plan["arrays"]["sha256"]
        self.arrays = dict(np.load(beside))
        self.shapes = [tuple(tensor["shape"]) for tensor in self.plan["tensors"]]
        self.reset()

    def reset(self) -> None:
        self.values: dict[int, Any] = {}

    def step(self, frame: np.ndarray) -> list[np.ndarray]:
        before, self.values, changed = self.values, {}, {}
        self.events, self.macs = {}, 0
        for op in self.plan["operations"]:
            out = op["output"]
            x = self._finished(op, self._raw(op, frame), before.get(out))
            assert x.shape == self.shapes[out]
            self.values[out] = x
            changed[out] = (x != before[out]) if before else np.ones(x.shape, bool)
            if delta := op.get("finish", op)["delta"]:
                per_pixel = delta["granularity"] == "pixel"
                self.events[delta["name"]] = int((changed[out].any(-1) if per_pixel else changed[out]).sum())
            if op.get("fan"):
                self.macs += int((changed[op["inputs"][0]].sum(-1) * self.arrays[op["fan"]]).sum())
        shaped = [self.plan["tensors"][index]["sample_shape"] for index in self.plan["outputs"]]
        return [self.values[i].reshape(shape) for i, shape in zip(self.plan["outputs"], shaped, strict=True)]

    def _finished(self, op: dict, x: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        finish, arrays = op["finish"], self.arrays
        x = x * arrays[finish["scale"]] if finish["scale"] else x
        x = x + arrays[finish["shift"]] if finish["shift"] else x
        x = np.asarray(ACTIVATIONS[finish["activation"]](x, *finish["parameters"]), F)
        if not (delta := finish["delta"]):
            return x
        t = arrays[delta["threshold"]]
        if delta["rule"] in ("quantize", "paper"):
            return np.asarray(np.round(x / t) * t, F)
        if delta["rule"] in ("identity", "l1") or before is None:
            return x
        if delta["granularity"] == "pixel":
            return np.where(np.sqrt(np.mean(((x - before) / t) ** 2, axis=-1, keepdims=True)) >= 1, x, before)
        return np.where(np.abs(x - before) >= t, x, before)

    def _raw(self, op: dict, frame: np.ndarray) -> np.ndarray:
        kind, shape = op["kind"], self.shapes[op["output"]]
        xs = [self.values[index] for index in op["inputs"]]
        if kind == "input":
            return frame.astype(F).reshape(shape)
        if kind in ("conv", "depthwise"):
            taps, w = self._taps(op, xs[0], shape, 0), self.arrays[op["weights"]]
            if kind == "depthwise":
                return np.einsum("hwklc,klcm->hwcm", taps, w).reshape(shape)
            pieces = zip(np.split(taps, op["groups"], -1), np.split(w, op["groups"], -1), strict=True)
            flat = [t.reshape(*shape[:2], -1) @ g.reshape(-1, g.shape[-1]) for t, g in pieces]
            return np.concatenate(flat, -1)
        if kind == "max_pool":
            return self._taps(op, xs[0], shape, -np.inf).max((2, 3))
        if kind == "average_pool":
            inside = self._taps(op, np.ones_like(xs[0]), shape, 0).sum((2, 3))
            return self._taps(op, xs[0], shape, 0).sum((2, 3)) / inside
        if kind == "global_average":
            return xs[0].mean((0, 1), keepdims=True, dtype=np.float64).astype(F)
        if kind == "global_max":
            return xs[0].max((0, 1), keepdims=True)
        if kind == "place":
            return self._placed(op, xs[0], shape)
        if kind in ("identity", "reshape"):
            return xs[0].reshape(shape)
        if kind == "concatenate":
            return np.concatenate([np.broadcast_to(x, (*shape[:2], x.shape[2])) for x in xs], -1)
        if kind == "average":
            return reduce(np.add, xs) / F(len(xs)) + np.zeros(shape, F)
        return reduce(PAIRS[kind], xs) + np.zeros(shape, F)

    @staticmethod
    def _taps(op: dict, x: np.ndarray, shape: tuple, outside: float) -> np.ndarray:
        """(height, width, kernel height, kernel width, channels): what each output position reads."""
        (kh, kw), (sh, sw), (dh, dw), (top, left) = op["kernel"], op["strides"], op["dilation"], op["padding"]
        y = np.arange(shape[0])[:, None] * sh - top + np.arange(kh) * dh
        z = np.arange(shape[1])[:, None] * sw - left + np.arange(kw) * dw
        inside = ((y >= 0) & (y < x.shape[0]))[:, None, :, None] & ((z >= 0) & (z < x.shape[1]))[None, :, None, :]
        read = x[y.clip(0, x.shape[0] - 1)[:, None, :, None], z.clip(0, x.shape[1] - 1)[None, :, None, :]]
        return np.where(inside[..., None], read, x.dtype.type(outside))

    @staticmethod
    def _placed(op: dict, x: np.ndarray, shape: tuple) -> np.ndarray:
        (top, left), (tall, wide) = op["padding"], op["strides"]
        x, out = x.repeat(tall, 0).repeat(wide, 1), np.zeros(shape, x.dtype)
        for row in range(max(top, 0), min(shape[0], x.shape[0] + top)):
            for column in range(max(left, 0), min(shape[1], x.shape[1] + left)):
                out[row, column] = x[row - top, column - left]
        return out
