"""In which order a plan computes."""

from __future__ import annotations

from collections.abc import Sequence

from deltafine.runtime.plan import DELAY, GIVEN, UNKNOWN, Operation


def neighbours_together(operations: Sequence[Operation]) -> list[Operation]:
    """The operations so that those left to Keras stand side by side, where that can be, to run as one.

    Everything that can be computed without them comes first, then all of them that can be computed now, and so on; in
    the given order otherwise. What was in the frame before, and further inputs, come right before they are
    needed.
    """
    waiting, ordered = _delays_late(operations), []
    made: set[int] = set()
    left_to_keras = False
    while waiting:
        later = []
        for operation in waiting:
            if (operation.kind == UNKNOWN) == left_to_keras and made.issuperset(operation.inputs):
                ordered.append(operation)
                made.add(operation.output)
            else:
                later.append(operation)
        left_to_keras, waiting = not left_to_keras, later
    return ordered


def _delays_late(operations: Sequence[Operation]) -> list[Operation]:
    delays = {operation.output: operation for operation in operations if operation.kind in (DELAY, GIVEN)}
    ordered = []
    for operation in operations:
        if operation.kind not in (DELAY, GIVEN):
            ordered += [delays.pop(index) for index in dict.fromkeys(operation.inputs) if index in delays]
            ordered.append(operation)
    return [*ordered, *delays.values()]
