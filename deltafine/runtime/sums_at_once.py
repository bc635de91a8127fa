"""Sums of two tensors of which one is a short convolution's: it is computed with the sum, and need not be kept.

Its rows are computed again where only the other summand changed: sums of products are the same to the bit whenever they
are taken. That is worth it where rows are short, as where few channels become many ones, and where a delta layer behind
the sum keeps down what changes: docs/runtime.md has what it costs in a ResNet50. In a ResNet50V2, most of whose sums
have no delta layer behind them, it would be about 8% more multiplications.
"""

from __future__ import annotations

from collections import Counter

from deltafine.runtime.plan import Operation, Plan


def sums_at_once(plan: Plan) -> dict[int, Operation]:
    """By the tensors that need not be kept, which convolutions make: the sums that they are part of.

    The convolution is of one step and one group, and nothing but the sum reads what it gives. Behind the sum is a delta
    layer.
    """
    readers = Counter(index for operation in plan.operations for index in operation.inputs)
    readers.update(plan.outputs)
    readers.update(operation.before for operation in plan.delays)
    makers = {operation.output: operation for operation in plan.operations}
    found = {}
    for operation in plan.operations:
        shapes = {plan.tensors[index].shape for index in (*operation.inputs, operation.output)}
        two = len(operation.inputs) == len(set(operation.inputs)) == 2
        if operation.kind != "add" or not two or len(shapes) > 1 or operation.finish.delta is None:
            continue
        if plan.own_rule(operation) is not None or operation.restarts:
            continue
        short = [index for index in operation.inputs if readers[index] == 1 and _is_short(plan, makers[index])]
        if short:
            found[short[-1]] = operation
    return found


def _is_short(plan: Plan, operation: Operation) -> bool:
    finish = operation.finish
    if operation.kind != "conv" or operation.groups != 1 or operation.strides != (1, 1):
        return False
    if finish.scale or finish.activation != "linear" or finish.delta is not None:
        return False
    height, width, inputs, outputs = plan.arrays[operation.weights].shape
    return height * width * inputs <= outputs
