"""Where things stand in the tables that the kernels read. A row of int64 for each operation and for each tensor."""

from __future__ import annotations

from deltafine.runtime.plan import ELEMENTWISE

(
    KIND, INPUTS, INPUT_COUNT, OUTPUT,
    KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, TOP, LEFT, GROUPS,
    WEIGHTS, VECTORS, ROW_LENGTH, ROW_PITCH, RUNS, RUN_COUNT, RUN_LENGTH,
    SCALE, SHIFT, ZEROS, ACTIVATION, PARAMETERS, RULE, PIXEL, THRESHOLD, THRESHOLD_BY_NEURON,
    FAN, MULTIPLIER, EVENTS, PRICE, SUMS, BEFORE, RESCALED, RESCALE, RESHIFT,
    SUMMAND, OWN_SHIFT, OWN_PLACE, COLUMNS,
) = range(42)  # fmt: skip
"""Columns of an operation; offsets are -1 where there is nothing, but to zeros for shifts and thresholds.

An addition with a ``SUMMAND``, the index of a tensor, is the convolution that makes its other input: it adds its own
shift and that tensor to its sums before they are finished. The convolution's rows are counted at ``OWN_PLACE``.
"""

HEIGHT, WIDTH, CHANNELS, ORIGIN, PITCH, MASK, TENSOR_COLUMNS = range(7)
"""Columns of a tensor: its shape, where its first value stands in the arena, values per padded line, its mask."""

KINDS = (
    "input", "identity", "conv", "depthwise", "max_pool", "average_pool", "global_average", "global_max", "place",
    "reshape", "concatenate", *ELEMENTWISE, "gather", "blend", "constant", "attention", "keras", "delay",
)  # fmt: skip
(
    K_INPUT, K_IDENTITY, K_CONV, K_DEPTHWISE, K_MAX_POOL, K_AVERAGE_POOL, K_GLOBAL_AVERAGE, K_GLOBAL_MAX, K_PLACE,
    K_RESHAPE, K_CONCATENATE, K_ADD, K_SUBTRACT, K_MULTIPLY, K_AVERAGE, K_MAXIMUM, K_MINIMUM, K_DIVIDE, K_POWER,
    K_PRELU, K_GATHER, K_BLEND, K_CONSTANT, K_ATTENTION, K_KERAS, K_DELAY, K_DONE,
) = range(27)  # fmt: skip
"""The last is done along with another operation."""

ROWS, CHANGED_ROWS, CHANGED_ELEMENTS, EFFECTIVE, EVENT_MACS, COUNTERS = range(6)
"""Columns of the counters of an operation, those of ``FrameCounts``."""

R_NONE, R_QUANTIZE, R_SEND_ON_DELTA = range(3)
RULE_CODES = {
    "identity": R_NONE, "l1": R_NONE, "quantize": R_QUANTIZE, "paper": R_QUANTIZE, "send-on-delta": R_SEND_ON_DELTA,
}  # fmt: skip
"""The rules that the engines know, see ``deltafine.runtime.event_rules.KNOWN``."""
