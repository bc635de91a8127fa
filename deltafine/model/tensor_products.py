"""Products of two tensors: which axes of theirs meet, and how many multiply-accumulates that takes.

Each axis of the two has a label, and axes that go through a product together have the same one, as in ``einsum``: every
combination of the labels is one multiply-accumulate. The batch axis is not among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import keras

from deltafine.model.trace import Call, Value

NAMES = ("Matmul", "Dot", "Einsum", "Tensordot", "Inner", "Outer", "Vdot", "DotProductAttention")
"""Operations of ``keras.ops`` that multiply tensors."""


@dataclass(frozen=True)
class Product:
    """The labels of the two tensors' axes without the batch axis, and the size of every label.

    ``constant`` tells for either whether it is one of the model's constants or weights, which have no batch axis.
    """

    labels: tuple[str, str]
    sizes: dict[str, int]
    constant: tuple[bool, bool]

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return math.prod(self.sizes.values())


def product_of(call: Call) -> Product | None:
    """The product that a traced call is; None if it is none, or one of a form that is not known."""
    operands = operands_of(call.args, call.kwargs)
    if len(operands) != 2 or not all(hasattr(operand, "shape") for operand in operands):
        return None
    constant = [not isinstance(operand, Value) for operand in operands]
    shapes = [tuple(operand.shape) for operand in operands]
    terms = _terms(call.operation, shapes)
    if terms is None or all(constant):
        return None
    batch = {term[0] for term, is_constant in zip(terms, constant, strict=True) if not is_constant}
    if len(batch) != 1:
        return None  # samples of the batch would be mixed
    sizes: dict[str, int] = {}
    labels = []
    for term, shape, is_constant in zip(terms, shapes, constant, strict=True):
        start = 0 if is_constant else 1
        # An axis of size 1 meets every place of the other's: it is alone.
        own = [name.upper() if size == 1 else name for name, size in zip(term, shape, strict=True)][start:]
        if len(set(own)) != len(own) or batch & {name.lower() for name in own} or None in shape[start:]:
            return None
        for name, size in zip(own, shape[start:], strict=True):
            if sizes.setdefault(name, size) != size:
                return None
        labels.append("".join(own))
    return Product((labels[0], labels[1]), sizes, (constant[0], constant[1]))


def operands_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call, flat, by which a product is known."""
    return [leaf for leaf in keras.tree.flatten((args, kwargs)) if leaf is not None]


def _terms(operation: keras.Operation, shapes: list[tuple[int | None, ...]]) -> tuple[str, str] | None:
    """A lower-case label for every axis of both, batch axes included."""
    kind = type(operation).__name__
    ranks = [len(shape) for shape in shapes]
    if kind == "Einsum":
        return _of_subscripts(operation.subscripts, ranks)
    letters = ascii_letters[:26]
    if isinstance(operation, keras.layers.Dot):
        axes = operation.axes if isinstance(operation.axes, int) else tuple(operation.axes)
        first, second = (axes, axes) if isinstance(axes, int) else axes
        left, right = letters[: ranks[0]], list(letters[13 : 13 + ranks[1]])
        right[0], right[second % ranks[1]] = left[0], left[first % ranks[0]]
        return left, "".join(right)
    if kind == "Dot" and ranks[1] > 2:
        return None
    if kind in ("Matmul", "Dot") and min(ranks) >= 2:
        left = letters[: ranks[0]]
        rest = left[: ranks[0] - 2][max(0, ranks[0] - ranks[1]) :]  # the batch axes that both have
        more = letters[20 : 20 + max(0, ranks[1] - ranks[0])]
        return left, f"{more}{rest}{left[-1]}{letters[19]}"
    return None


def _of_subscripts(subscripts: str, ranks: list[int]) -> tuple[str, str] | None:
    terms = subscripts.replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or "->" not in subscripts or any(term.lower() != term for term in terms):
        return None
    spare = [letter for letter in ascii_letters[:26] if letter not in subscripts]
    found = []
    for term, rank in zip(terms, ranks, strict=True):
        if "..." in term:
            missing = rank - len(term) + 3
            term = term.replace("...", "".join(spare[len(spare) - missing :]) if missing else "")
        if len(term) != rank:
            return None
        found.append(term)
    return found[0], found[1]
