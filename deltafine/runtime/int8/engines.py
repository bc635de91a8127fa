"""What runs a plan in 8-bit integers, for each engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from deltafine.runtime.array_sizes import owned_bytes
from deltafine.runtime.int8.byte_plan import BytePlan
from deltafine.runtime.numpy_stream import KerasCall

if TYPE_CHECKING:
    from deltafine.runtime.numba_stream import NumbaState
    from deltafine.runtime.numpy_stream import NumpyState


def states(
    plan: BytePlan, shared: Iterable[np.ndarray], engine: str, keras_call: KerasCall, threads: int = 1
) -> tuple[Callable[[], NumbaState | NumpyState], int]:
    """What makes the state of another stream, and the bytes that all streams share.

    Args:
        plan: in 8-bit integers.
        shared: further arrays that they hold.
        engine: numba or numpy.
        keras_call: what computes the layers left to Keras.
        threads: that compute a frame of a stream that is advanced by itself.
    """
    if engine == "numpy":
        from deltafine.runtime.int8.numpy_state import ByteNumpyState, byte_matrices

        weights = byte_matrices(plan)
        held = owned_bytes([*shared, *plan.arrays.values(), *weights.values()])
        return lambda: ByteNumpyState(plan, keras_call, weights), held
    from deltafine.runtime.int8.byte_program import ByteProgram
    from deltafine.runtime.int8.byte_state import ByteState

    program = ByteProgram(plan, threads)
    held = owned_bytes([*shared, *plan.arrays.values(), *program.arrays])
    return lambda: ByteState(program, keras_call), held
