"""What runs a plan in 8-bit integers, for each engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from deltafine.runtime.array_sizes import owned_bytes
from deltafine.runtime.int8.byte_plan import BytePlan
from deltafine.runtime.int8.quantise import in_bytes
from deltafine.runtime.numpy_stream import KerasCall
from deltafine.runtime.plan import Plan

if TYPE_CHECKING:
    from deltafine.runtime.numba_stream import NumbaState
    from deltafine.runtime.numpy_stream import NumpyState


def states(
    plan: Plan, ranges: np.ndarray, engine: str, keras_call: KerasCall
) -> tuple[BytePlan, Callable[[], NumbaState | NumpyState], int]:
    """The plan in 8-bit integers, what makes the state of another stream, and the bytes that all streams share.

    Args:
        plan: in floating point.
        ranges: of its tensors.
        engine: numba or numpy.
        keras_call: what computes the layers left to Keras.
    """
    made = in_bytes(plan, ranges)
    if engine == "numpy":
        from deltafine.runtime.int8.numpy_state import ByteNumpyState, byte_matrices

        weights = byte_matrices(made)
        held = owned_bytes([*plan.arrays.values(), *made.arrays.values(), *weights.values()])
        return made, lambda: ByteNumpyState(made, keras_call, weights), held
    from deltafine.runtime.int8.byte_program import ByteProgram
    from deltafine.runtime.int8.byte_state import ByteState

    program = ByteProgram(made)
    held = owned_bytes([*plan.arrays.values(), *made.arrays.values(), *program.arrays])
    return made, lambda: ByteState(program, keras_call), held
