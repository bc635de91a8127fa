"""What depends on no frame: chains of shapes, and weights that are only moved. onnx's own evaluator computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deltafine.model.onnx_import.onnx_step import Step

_POINTWISE = (
    "Add", "Sub", "Mul", "Div", "Equal", "Where", "Min", "Max", "Mod", "Pow", "And", "Or", "Less", "Greater",
)  # fmt: skip
_SIZED = {"ConstantOfShape": 0, "Expand": 1}
"""Those that make as many values as an input of theirs says, and which."""
FOLDED = (
    "Constant", "Shape", "Size", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Floor", "Ceil", "Neg",
    "Reshape", "Transpose", "Identity", "ReduceProd", "Sqrt", "Not", "Flatten", "Split", "Reciprocal", "Abs",
    *_POINTWISE, *_SIZED,
)  # fmt: skip
MOST_VALUES = 1 << 24
"""Of a constant that small ones are spread to; a file must not ask for absurd room."""


def folded(step: Step, constants: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """What an operator makes of constants.

    Raises:
        DeltafineError: too many values, or the evaluator cannot.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    kind = step.node.op_type
    given: Any = [value for value in constants if value is not None]
    size = 0
    try:
        if kind in _POINTWISE:
            size = math.prod(np.broadcast_shapes(*(value.shape for value in given)))
        elif kind in _SIZED:
            size = math.prod(max(int(one), 1) for one in given[_SIZED[kind]].ravel())
            size *= given[0].size if kind == "Expand" else 1
        elif kind == "Gather":
            size = given[0].size * max(given[1].size, 1)
        elif kind == "Concat" and len(given) > 1:
            size = sum(value.size for value in given)
    except ValueError as error:
        raise step.refused(f"has inputs that do not fit each other ({error}).") from error
    if size > MOST_VALUES:
        raise step.refused(f"makes a constant of {size:,} values.")
    names = [name for name in step.node.input if name]
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in dict.fromkeys(one)]
        for one in (names, step.node.output)
    )
    alone = onnx.helper.make_graph([step.node], "constant", inputs, outputs)
    model = onnx.helper.make_model(alone, opset_imports=[onnx.helper.make_opsetid("", step.opset)])
    try:
        made = ReferenceEvaluator(model).run(None, dict(zip(names, given, strict=False)))
    except Exception as error:
        raise step.refused(f"cannot be computed of constants ({' '.join(str(error).split())[:150]}).") from error
    return [np.asarray(value) for value in made]
