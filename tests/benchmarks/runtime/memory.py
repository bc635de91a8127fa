"""What a stream keeps, in bytes, beside the activations of the original.

    python -m tests.benchmarks.runtime.memory                        # a line for each model
    python -m tests.benchmarks.runtime.memory --tensors ResNet50     # each tensor, and why it is kept

The activations of the original are its input and what each layer with weights gives, as float32: normalisations and
activation functions work in place. "Shared" is what kernels work in, once for all streams that a thread advances one
by one. Weights are random, frames are bytes, 224x224 (48x64 for the small network), with a delta layer at every
activation.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from typing import Any

import keras
import numpy as np
from keras import layers

from deltafine.runtime.array_sizes import owned_bytes
from deltafine.runtime.int8.byte_program import ByteProgram
from deltafine.runtime.int8.byte_state import ByteState
from deltafine.runtime.int8.quantise import in_bytes
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan import MACS, Plan, can_run_by_events
from tests.benchmarks.runtime.__main__ import MODELS, compiled

MIB = 1 << 20


def small() -> Any:
    """Five plain convolutions on 48x64 frames."""
    inputs = keras.Input((48, 64, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for filters, stride in ((16, 2), (32, 1), (32, 2), (64, 1), (64, 2)):
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


ALL = {"small CNN": small, **MODELS}


def bytes_of(plan: Plan, index: int) -> int:
    return 4 * math.prod(plan.tensors[index].shape)


def activations(plan: Plan) -> int:
    """Bytes of the original's activations, see above."""
    with_weights = [operation for operation in plan.operations if operation.kind in MACS or operation.kind == "input"]
    return sum(bytes_of(plan, operation.output) for operation in with_weights)


def why(program: Program, index: int) -> str:
    """Why a tensor is kept: what a later frame reads of it; "" if it is not."""
    if index in program.part_of:
        return ""
    plan = program.plan
    maker = next(operation for operation in plan.operations if operation.output == index)
    if maker.kind == "input" or (maker.finish.delta is not None and maker.finish.delta.rule == "send-on-delta"):
        return "sent last: what is new is compared with it"
    readers = [operation for operation in plan.operations if index in operation.inputs]
    if any(len(operation.inputs) > 1 for operation in readers):
        return "summand: read where only the other one changes"
    if any(operation.kind not in MACS or operation.kernel != (1, 1) for operation in readers):
        return "read around changes, or whole"
    if readers:
        return "compared, so that changed values are counted"
    return "output: held while it stands still"


def states(plan: Plan) -> dict[str, NumbaState]:
    """A stream in float32, one with all convolutions by events, and one in int8."""
    by_events = {operation.name: 1.0 for operation in plan.operations if can_run_by_events(operation)}
    ranges = np.tile([-1.0, 1.0], (len(plan.tensors), 1))
    return {
        "float32": NumbaState(Program(plan), None),
        "by events": NumbaState(Program(plan, by_events), None),
        "int8": ByteState(ByteProgram(in_bytes(plan, ranges)), None),
    }


def show(name: str, plan: Plan) -> None:
    size = activations(plan)
    line = [f"{size / MIB:.2f}"]
    for state in states(plan).values():
        state.step(np.zeros(plan.tensors[plan.operations[0].output].shape, np.uint8))
        shared = owned_bytes(state.program.working_arrays)
        line.append(f"{state.memory / MIB:.2f} ({state.memory / size:.2f}x)")
        line.append(f"{shared / MIB:.2f}")
    print(f"| {name} | {' | '.join(line)} |")


def show_tensors(plan: Plan) -> None:
    program, sizes = Program(plan), defaultdict(int)
    for index, tensor in enumerate(plan.tensors):
        reason = why(program, index) or "not kept: computed again with the sum"
        sizes[reason] += bytes_of(plan, index)
        print(f"| {tensor.name} | {'x'.join(map(str, tensor.shape))} | {bytes_of(plan, index) >> 10} | {reason} |")
    for reason, size in sizes.items():
        print(f"{size / MIB:7.2f} MiB {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=list(ALL), default=list(ALL))
    parser.add_argument("--tensors", choices=list(ALL), help="each tensor of a model")
    arguments = parser.parse_args()
    if arguments.tensors:
        show_tensors(compiled(ALL[arguments.tensors]()))
        return
    print("| MiB | activations | float32 | shared | all by events | shared | int8 | shared |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        show(name, compiled(ALL[name]()))


if __name__ == "__main__":
    main()
