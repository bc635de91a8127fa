"""A player of plans in whole numbers, written from docs/plan.md alone; its values have the widths stated there."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from tests.exporting.plan_interpreter import PAIRS, Interpreter

SUMS = np.iinfo(np.int32)


def rounded(v: np.ndarray, right: Any) -> np.ndarray:
    """floor(v / 2 ** right + 1/2)."""
    right = np.broadcast_to(right, v.shape)
    return np.where(
        right > 0, (v + (1 << np.maximum(right - 1, 0))) >> np.maximum(right, 0), v << np.maximum(-right, 0)
    )


def quotient(v: np.ndarray, n: Any) -> np.ndarray:
    return (2 * v + n) // (2 * n)


class FixedInterpreter(Interpreter):
    """Its values are int16; what it adds up is seen to fit into 32 bits."""

    def _finished(self, op: dict, x: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        x = x * self._wide(op["multiplier"]) if op["multiplier"] else x
        x = x + self._wide(op["bias"]) if op["bias"] else x
        assert SUMS.min <= x.min() <= x.max() <= SUMS.max
        x = rounded(x, self._wide(op["right"])).clip(-32768, 32767)
        x = x.clip(op["low"], op["high"]) if op["low"] is not None else x
        if delta := op["delta"]:
            x = self._sent_of(delta, x, None if before is None else before.astype(np.int64))
        assert np.array_equal(x, x.astype(np.int16))
        return x.astype(np.int16)

    def _sent_of(self, delta: dict, x: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        t = self._wide(delta["threshold"])
        if delta["rule"] in ("quantize", "paper"):
            return (quotient(x, t) * t).clip(-32768, 32767)
        if delta["rule"] in ("identity", "l1") or before is None:
            return x
        change = abs(x - before)
        if delta["granularity"] == "element":
            return np.where(change >= t, x, before)
        r = np.minimum(change * self._wide(delta["factor"]) >> 12, 65535)
        return np.where((r * r).sum(-1, keepdims=True) >= x.shape[-1] * 65536, x, before)

    def _wide(self, name: str) -> np.ndarray:
        return self.arrays[name].astype(np.int64)

    def _raw(self, op: dict, frame: np.ndarray) -> np.ndarray:
        kind, shape = op["kind"], self.shapes[op["output"]]
        if kind == "input":
            return frame.astype(np.int64).reshape(shape)
        xs = [self.values[index].astype(np.int64) for index in op["inputs"]]
        if kind in ("conv", "depthwise"):
            assert self.arrays[op["weights"]].dtype == np.int8
            taps, w = self._taps(op, xs[0], shape, 0), self._wide(op["weights"])
            if kind == "depthwise":
                return np.einsum("hwklc,klcm->hwcm", taps, w).reshape(shape)
            pieces = zip(np.split(taps, op["groups"], -1), np.split(w, op["groups"], -1), strict=True)
            flat = [t.reshape(*shape[:2], -1) @ g.reshape(-1, g.shape[-1]) for t, g in pieces]
            return np.concatenate(flat, -1)
        if kind == "max_pool":
            return self._taps(op, xs[0], shape, -32768).max((2, 3))
        if kind == "average_pool":
            inside = self._taps(op, np.ones_like(xs[0]), shape, 0).sum((2, 3))
            return quotient(self._taps(op, xs[0], shape, 0).sum((2, 3)), inside)
        if kind == "global_average":
            return quotient(xs[0].sum((0, 1), keepdims=True), xs[0].shape[0] * xs[0].shape[1])
        if kind == "global_max":
            return xs[0].max((0, 1), keepdims=True)
        if kind == "place":
            return self._placed(op, xs[0], shape)
        if kind in ("identity", "reshape"):
            return xs[0].reshape(shape)
        if kind != "multiply":
            xs = [rounded(x, right) for x, right in zip(xs, op["align"], strict=True)]
        if kind == "concatenate":
            return np.concatenate([np.broadcast_to(x, (*shape[:2], x.shape[2])) for x in xs], -1)
        if kind == "average":
            return quotient(reduce(np.add, xs) + np.zeros(shape, np.int64), len(xs))
        return reduce(PAIRS[kind], xs) + np.zeros(shape, np.int64)
