"""What a stream is given with a frame: the values of further inputs of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.plan import Operation, Plan

if TYPE_CHECKING:
    from deltafine.runtime.numba_stream import NumbaState
    from deltafine.runtime.numpy_stream import NumpyState
    from deltafine.video.further_values import Wanted


def wanted_by(plan: Plan) -> list[Wanted]:
    """The numbers that a plan takes with each frame, in the order of the model's inputs."""
    return [one for operation in plan.further for one in _wanted(plan, operation)]


def by_tensor(plan: Plan, values: np.ndarray) -> dict[int, np.ndarray]:
    """Numbers of a frame, in the order of ``wanted_by``, by tensor."""
    sizes = [math.prod(plan.tensors[operation.output].sample_shape) for operation in plan.further]
    pieces = np.split(values, np.cumsum(sizes)[:-1])
    return {operation.output: piece for operation, piece in zip(plan.further, pieces, strict=True)}


def step_packed(plan: Plan, state: NumbaState | NumpyState, frame: np.ndarray) -> None:
    """Advance a state by a frame that has the plan's further values in further lines, if the plan takes any."""
    shape = plan.tensors[plan.operations[0].output].shape
    if plan.further:
        from deltafine.video.further_values import unpacked

        frame, values = unpacked(frame, shape[0], len(wanted_by(plan)))
        state.give(by_tensor(plan, values))
    state.step(frame.reshape(shape))


def accepted_inputs(plan: Plan, further: Mapping[str, Any] | None) -> dict[int, np.ndarray]:
    """The values of all further inputs by tensor, float32 in the tensor's shape.

    Raises:
        DeltafineError: one is missing, is none of the model's, or is not what the model takes.
    """
    given = {} if further is None else further
    if not plan.further and not given:
        return {}
    names = [operation.name for operation in plan.further]
    if unknown := [name for name in given if name not in names]:
        has = f"it takes {_listed(names)} beside its frames" if names else "it takes its frames alone"
        raise DeltafineError(f"Model '{plan.name}' has no input '{unknown[0]}': {has}.")
    found = {}
    for operation in plan.further:
        if operation.name not in given:
            raise DeltafineError(
                f"Model '{plan.name}' takes '{operation.name}' beside its frames, and it was not given: "
                f"step(frame, {{'{operation.name}': value}}). If it is a state, build the model with a dict of outputs "
                "that has each new state under its input's name."
            )
        found[operation.output] = _accepted(plan, operation, given[operation.name])
    return found


def _accepted(plan: Plan, operation: Operation, value: Any) -> np.ndarray:
    tensor = plan.tensors[operation.output]
    numbers = np.asarray(value)
    one = math.prod(tensor.sample_shape) == 1 and numbers.size == 1
    if numbers.dtype.kind not in "uifb" or not (one or numbers.shape == tensor.sample_shape):
        raise DeltafineError(
            f"The input '{operation.name}' of model '{plan.name}' takes numbers of shape {tensor.sample_shape} for a "
            f"frame, not {numbers.dtype} of shape {numbers.shape}."
        )
    wanted = _wanted(plan, operation)[0]
    for number in numbers.reshape(-1).tolist():
        if why := wanted.refusal(float(number)):
            raise DeltafineError(f"The number {number} of the input '{operation.name}' {why}.")
    return numbers.astype(np.float32).reshape(tensor.shape)


def _wanted(plan: Plan, operation: Operation) -> list[Wanted]:
    from deltafine.video.further_values import wanted_of  # what finds videos need not be loaded for models of frames

    size = math.prod(plan.tensors[operation.output].sample_shape)
    return wanted_of(operation.name, size, whole=operation.whole, most=operation.most or None)


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
