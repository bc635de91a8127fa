"""Activation functions over a row of channels, in place."""

from __future__ import annotations

import math

import numpy as np

from deltafine.runtime.activation_functions import CODES, SELU_ALPHA, SELU_SCALE
from deltafine.runtime.kernels import kernel

A_LINEAR, A_RELU = CODES["linear"], CODES["relu"]
A_SIGMOID, A_TANH, A_SILU = CODES["sigmoid"], CODES["tanh"], CODES["silu"]
A_HARD_SIGMOID, A_HARD_SILU = CODES["hard_sigmoid"], CODES["hard_silu"]
A_ELU, A_SELU, A_GELU, A_GELU_TANH = CODES["elu"], CODES["selu"], CODES["gelu"], CODES["gelu_tanh"]
A_SOFTPLUS, A_SOFTSIGN, A_EXPONENTIAL = CODES["softplus"], CODES["softsign"], CODES["exponential"]
A_SOFTMAX, A_LOG_SOFTMAX = CODES["softmax"], CODES["log_softmax"]
A_NORMALIZE, A_RMS, A_UNIT = CODES["normalize"], CODES["rms"], CODES["unit"]
A_CELU, A_MISH, A_LOG_SIGMOID, A_CLIP = CODES["celu"], CODES["mish"], CODES["log_sigmoid"], CODES["clip"]
A_HARD_SHRINK, A_SOFT_SHRINK, A_TANH_SHRINK = CODES["hard_shrink"], CODES["soft_shrink"], CODES["tanh_shrink"]
A_SQUAREPLUS, A_THRESHOLD = CODES["squareplus"], CODES["threshold"]
A_SPARSE_PLUS, A_SPARSE_SIGMOID = CODES["sparse_plus"], CODES["sparse_sigmoid"]
A_ABS, A_SQUARE, A_SQRT, A_RSQRT = CODES["abs"], CODES["square"], CODES["sqrt"], CODES["rsqrt"]
A_RECIPROCAL, A_LOG, A_LOG1P, A_EXPM1 = CODES["reciprocal"], CODES["log"], CODES["log1p"], CODES["expm1"]
A_SIN, A_COS = CODES["sin"], CODES["cos"]

ONE, HALF, SIXTH = np.float32(1), np.float32(0.5), np.float32(1 / 6)
ZERO = np.float32(0)
ROOT_HALF, ROOT_2_BY_PI, CUBIC = np.float32(math.sqrt(0.5)), np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
E5, E4, E3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
E2, E1, E0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
LEAST, MOST, INFINITE = np.float32(-87.33), np.float32(88.72), np.float32(np.inf)
LARGEST_POWER = np.float32(127)
MANTISSA = np.int32(23)
BIAS = np.int32(127)


@kernel
def exponential(x: np.float32) -> np.float32:
    """e^x to about one unit in the last place, without branches, so that loops over it become vector code.

    The range reduction and polynomial are those of the Cephes library's ``expf``.
    """
    clipped = LEAST if x < LEAST else x
    clipped = MOST if clipped > MOST else clipped
    power = np.float32(np.floor(clipped * LOG2_E + HALF))
    power = LARGEST_POWER if power > LARGEST_POWER else power
    rest = clipped - power * LN2_HIGH
    rest = rest - power * LN2_LOW
    series = (((((E5 * rest + E4) * rest + E3) * rest + E2) * rest + E1) * rest + E0) * (rest * rest) + rest + ONE
    scale = np.int32((np.int32(power) + BIAS) << MANTISSA).view(np.float32)
    result = series * scale
    result = INFINITE if x > MOST else result
    return ZERO if x < LEAST else result


@kernel
def activate(row: np.ndarray, code: int, parameters: np.ndarray) -> None:
    """Apply the activation with this code to all channels of a row."""
    if code == A_RELU:
        slope, most, threshold = parameters[0], parameters[1], parameters[2]
        for c in range(len(row)):
            x = row[c]
            x = slope * (x - threshold) if x < threshold else x
            row[c] = most if x > most else x
    elif code == A_SIGMOID:
        for c in range(len(row)):
            row[c] = ONE / (ONE + exponential(-row[c]))
    elif code == A_SILU:
        for c in range(len(row)):
            row[c] = row[c] / (ONE + exponential(-row[c]))
    elif code in (A_HARD_SIGMOID, A_HARD_SILU):
        for c in range(len(row)):
            x = row[c]
            gate = x * SIXTH + HALF
            gate = ZERO if gate < ZERO else gate
            gate = ONE if gate > ONE else gate
            row[c] = gate * x if code == A_HARD_SILU else gate
    elif code == A_SOFTMAX:
        _softmax(row)
    elif code == A_LOG_SOFTMAX:
        _log_softmax(row)
    elif code in (A_NORMALIZE, A_RMS, A_UNIT):
        _normalize(row, code, parameters[0])
    elif code in (A_TANH, A_ELU, A_SELU, A_GELU, A_GELU_TANH, A_SOFTPLUS, A_SOFTSIGN, A_EXPONENTIAL):
        for c in range(len(row)):
            row[c] = _scalar(row[c], code, parameters[0])
    elif code != A_LINEAR:
        for c in range(len(row)):
            row[c] = _rarer(row[c], code, parameters[0], parameters[1])


@kernel
def _normalize(row: np.ndarray, code: int, epsilon: np.float32) -> None:
    """Mean 0 and variance 1, or mean square 1, or length 1; sums in four parts, as adding waits for the sum before."""
    size = len(row)
    whole = size - size % 4
    mean = 0.0
    if code == A_NORMALIZE:
        first = second = third = fourth = 0.0
        for c in range(0, whole, 4):
            first += row[c]
            second += row[c + 1]
            third += row[c + 2]
            fourth += row[c + 3]
        for c in range(whole, size):
            first += row[c]
        mean = ((first + second) + (third + fourth)) / size
    first = second = third = fourth = 0.0
    for c in range(0, whole, 4):
        first += (row[c] - mean) * (row[c] - mean)
        second += (row[c + 1] - mean) * (row[c + 1] - mean)
        third += (row[c + 2] - mean) * (row[c + 2] - mean)
        fourth += (row[c + 3] - mean) * (row[c + 3] - mean)
    for c in range(whole, size):
        first += (row[c] - mean) * (row[c] - mean)
    total = (first + second) + (third + fourth)
    length = math.sqrt(total if code == A_UNIT else total / size + epsilon)
    factor = 1.0 / (epsilon if code == A_UNIT and length < epsilon else length)
    for c in range(size):
        row[c] = np.float32((row[c] - mean) * factor)


@kernel
def _log_softmax(row: np.ndarray) -> None:
    most = row[0]
    for c in range(len(row)):
        most = max(most, row[c])
    total = 0.0
    for c in range(len(row)):
        row[c] -= most
        total += math.exp(row[c])
    below = np.float32(math.log(total))
    for c in range(len(row)):
        row[c] -= below


@kernel
def _softmax(row: np.ndarray) -> None:
    most = row[0]
    for c in range(len(row)):
        most = max(most, row[c])
    total = 0.0
    for c in range(len(row)):
        row[c] = math.exp(row[c] - most)
        total += row[c]
    for c in range(len(row)):
        row[c] = np.float32(row[c] / total)


@kernel
def _scalar(x: np.float32, code: int, parameter: np.float32) -> np.float32:
    if code == A_TANH:
        return np.float32(math.tanh(x))
    if code == A_ELU:
        return x if x > 0 else np.float32(parameter * math.expm1(x))
    if code == A_SELU:
        return np.float32(SELU_SCALE * (x if x > 0 else SELU_ALPHA * math.expm1(x)))
    if code == A_GELU:
        return np.float32(HALF * x * (ONE + math.erf(x * ROOT_HALF)))
    if code == A_GELU_TANH:
        return np.float32(HALF * x * (ONE + math.tanh(ROOT_2_BY_PI * (x + CUBIC * x * x * x))))
    if code == A_SOFTPLUS:
        return np.float32(max(x, ZERO) + math.log1p(math.exp(-abs(x))))
    if code == A_SOFTSIGN:
        return np.float32(x / (ONE + abs(x)))
    return np.float32(math.exp(x))


@kernel
def _rarer(x: np.float32, code: int, first: np.float32, second: np.float32) -> np.float32:
    if code == A_ABS:
        return abs(x)
    if code == A_SQUARE:
        return np.float32(x * x)
    if code == A_CLIP:
        x = first if x < first else x
        return second if x > second else x
    if code == A_CELU:
        return x if x > 0 else np.float32(first * math.expm1(x / first))
    if code in (A_MISH, A_LOG_SIGMOID):
        sign = -x if code == A_LOG_SIGMOID else x
        soft = max(sign, ZERO) + math.log1p(math.exp(-abs(x)))
        return np.float32(-soft if code == A_LOG_SIGMOID else x * math.tanh(soft))
    if code == A_HARD_SHRINK:
        return np.float32(x * ZERO) if abs(x) <= first else x
    if code == A_SOFT_SHRINK:
        return np.float32(x * ZERO) if abs(x) <= first else np.float32(x - math.copysign(first, x))
    if code == A_TANH_SHRINK:
        return np.float32(x - math.tanh(x))
    if code == A_SQUAREPLUS:
        return np.float32((x + math.sqrt(x * x + first)) * HALF)
    if code == A_THRESHOLD:
        return x if x > first else second
    if code == A_SPARSE_PLUS:
        inside = np.float32((max(x, -ONE) + ONE) * HALF)
        return x if x >= ONE else np.float32(inside * inside)
    if code == A_SPARSE_SIGMOID:
        gate = np.float32((x + ONE) * HALF)
        return ONE if gate > ONE else (ZERO if gate < ZERO else gate)
    return _function(x, code, first)


@kernel
def _function(x: np.float32, code: int, first: np.float32) -> np.float32:
    if code == A_SQRT:
        return np.float32(math.sqrt(x))
    if code == A_RSQRT:
        return np.float32(ONE / math.sqrt(x))
    if code == A_RECIPROCAL:
        return np.float32(ONE / x)
    if code == A_LOG:
        return np.float32(math.log(x))
    if code == A_LOG1P:
        return np.float32(math.log1p(x))
    if code == A_EXPM1:
        return np.float32(math.expm1(x))
    if code == A_SIN:
        return np.float32(math.sin(x))
    if code == A_COS:
        return np.float32(math.cos(x))
    return np.float32(x**first)
