"""Activation functions over a row of channels, in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deltafine.runtime.activation_functions import CODES, SELU_ALPHA, SELU_SCALE
from deltafine.runtime.kernels import inlined, kernel

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
TWO, THIRD, T_NEAR, MISH_MOST = np.float32(2), np.float32(0.35), np.float32(0.625), np.float32(30)
ROOT_2_BY_PI, CUBIC = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
SELU, ALPHA = np.float32(SELU_SCALE), np.float32(SELU_ALPHA)
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
E5, E4, E3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
E2, E1, E0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
T4, T3, T2 = np.float32(-5.70498872745e-3), np.float32(2.06390887954e-2), np.float32(-5.37397155531e-2)
T1, T0 = np.float32(1.33314422036e-1), np.float32(-3.33332819422e-1)
G_STEP = np.float32(0.6 * math.sqrt(0.5))
G7, G6, G5, G4 = map(np.float32, (-0.0920785866, 0.4119311129, -0.6444324513, 0.2837508968))
G3, G2, G1, G0 = map(np.float32, (0.0734203773, 0.2915988394, 0.3372494493, 0.3385600560))
P6, P5, P4 = np.float32(2 / 13), np.float32(2 / 11), np.float32(2 / 9)
P3, P2, P1 = np.float32(2 / 7), np.float32(2 / 5), np.float32(2 / 3)
LEAST, MOST, INFINITE = np.float32(-87.33), np.float32(88.72), np.float32(np.inf)
LARGEST_POWER = np.float32(127)
MANTISSA = np.int32(23)
BIAS = np.int32(127)


@inlined
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


@inlined
def expm1(x: np.float32) -> np.float32:
    """e^x - 1 with the same series, which has all digits near 0."""
    near = (((((E5 * x + E4) * x + E3) * x + E2) * x + E1) * x + E0) * (x * x) + x
    return near if abs(x) < THIRD else exponential(x) - ONE


@inlined
def tanh(x: np.float32) -> np.float32:
    """To about one unit in the last place; near 0 the polynomial of the Cephes library's ``tanhf``."""
    square, size = x * x, abs(x)
    near = ((((T4 * square + T3) * square + T2) * square + T1) * square + T0) * square * x + x
    far = ONE - TWO / (exponential(TWO * size) + ONE)
    return near if size < T_NEAR else (-far if x < ZERO else far)


@inlined
def gelu(x: np.float32) -> np.float32:
    """x times the share of a normal distribution below x.

    The share above |x| is e^(-x^2 / 2) times a polynomial of 1 / (1 + 0.6 |x| / sqrt(2)), fitted to it within 3e-7
    of its value.
    """
    size = abs(x)
    t = ONE / (ONE + G_STEP * size)
    series = ((((((G7 * t + G6) * t + G5) * t + G4) * t + G3) * t + G2) * t + G1) * t + G0
    above = HALF * (series * t) * exponential(-(size * size) * HALF)
    return x * above if x < ZERO else x - x * above


@inlined
def softplus(x: np.float32) -> np.float32:
    """log(1 + e^x), by the series of the logarithm in u / (2 + u) with u = e^-|x|."""
    u = exponential(-abs(x))
    s = u / (TWO + u)
    z = s * s
    series = ((((((P6 * z + P5) * z + P4) * z + P3) * z + P2) * z + P1) * z + TWO) * s
    return (x if x > ZERO else ZERO) + series


@inlined
def _tanh(x: np.float32, parameter: np.float32) -> np.float32:
    return tanh(x)


@inlined
def _elu(x: np.float32, alpha: np.float32) -> np.float32:
    return x if x > ZERO else alpha * expm1(x)


@inlined
def _selu(x: np.float32, parameter: np.float32) -> np.float32:
    return SELU * (x if x > ZERO else ALPHA * expm1(x))


@inlined
def _celu(x: np.float32, alpha: np.float32) -> np.float32:
    return x if x > ZERO else alpha * expm1(x / alpha)


@inlined
def _gelu(x: np.float32, parameter: np.float32) -> np.float32:
    return gelu(x)


@inlined
def _gelu_tanh(x: np.float32, parameter: np.float32) -> np.float32:
    return x / (ONE + exponential(-TWO * (ROOT_2_BY_PI * (x + CUBIC * x * x * x))))


@inlined
def _softplus(x: np.float32, parameter: np.float32) -> np.float32:
    return softplus(x)


@inlined
def _log_sigmoid(x: np.float32, parameter: np.float32) -> np.float32:
    return -softplus(-x)


@inlined
def _mish(x: np.float32, parameter: np.float32) -> np.float32:
    """x tanh(softplus(x)), which is x n / (n + 2) with n = e^x (e^x + 2)."""
    power = exponential(x if x < MISH_MOST else MISH_MOST)
    part = power * (power + TWO)
    return x * (part / (part + TWO))


@inlined
def _softsign(x: np.float32, parameter: np.float32) -> np.float32:
    return x / (ONE + abs(x))


@inlined
def _exponential(x: np.float32, parameter: np.float32) -> np.float32:
    return exponential(x)


@inlined
def _sigmoid(x: np.float32, parameter: np.float32) -> np.float32:
    return ONE / (ONE + exponential(-x))


@inlined
def _silu(x: np.float32, parameter: np.float32) -> np.float32:
    return x / (ONE + exponential(-x))


@inlined
def _hard_sigmoid(x: np.float32, parameter: np.float32) -> np.float32:
    gate = x * SIXTH + HALF
    gate = ZERO if gate < ZERO else gate
    return ONE if gate > ONE else gate


@inlined
def _hard_silu(x: np.float32, parameter: np.float32) -> np.float32:
    return _hard_sigmoid(x, parameter) * x


def _along(function: Any) -> Any:
    """A function of a number and a parameter for all of a row, as a loop that becomes vector code."""

    @kernel
    def apply(row: np.ndarray, parameter: np.float32) -> None:
        for c in range(len(row)):
            row[c] = function(row[c], parameter)

    return apply


along_tanh, along_elu, along_selu, along_celu = map(_along, (_tanh, _elu, _selu, _celu))
along_gelu, along_gelu_tanh, along_sigmoid, along_silu = map(_along, (_gelu, _gelu_tanh, _sigmoid, _silu))
along_softplus, along_log_sigmoid, along_mish = map(_along, (_softplus, _log_sigmoid, _mish))
along_softsign, along_exponential = map(_along, (_softsign, _exponential))
along_hard_sigmoid, along_hard_silu = map(_along, (_hard_sigmoid, _hard_silu))


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
        along_sigmoid(row, parameters[0])
    elif code == A_SILU:
        along_silu(row, parameters[0])
    elif code == A_HARD_SIGMOID:
        along_hard_sigmoid(row, parameters[0])
    elif code == A_HARD_SILU:
        along_hard_silu(row, parameters[0])
    elif code == A_GELU:
        along_gelu(row, parameters[0])
    elif code == A_GELU_TANH:
        along_gelu_tanh(row, parameters[0])
    elif code == A_TANH:
        along_tanh(row, parameters[0])
    elif code == A_ELU:
        along_elu(row, parameters[0])
    elif code == A_SOFTMAX:
        softmax(row)
    elif code == A_LOG_SOFTMAX:
        _log_softmax(row)
    elif code in (A_NORMALIZE, A_RMS, A_UNIT):
        _normalize(row, code, parameters[0])
    elif code == A_SELU:
        along_selu(row, parameters[0])
    elif code == A_CELU:
        along_celu(row, parameters[0])
    elif code == A_SOFTPLUS:
        along_softplus(row, parameters[0])
    elif code == A_LOG_SIGMOID:
        along_log_sigmoid(row, parameters[0])
    elif code == A_MISH:
        along_mish(row, parameters[0])
    elif code == A_SOFTSIGN:
        along_softsign(row, parameters[0])
    elif code == A_EXPONENTIAL:
        along_exponential(row, parameters[0])
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
def softmax(row: np.ndarray) -> None:
    """In place. The largest and the sum are found in four parts, as each step waits for the one before."""
    size = len(row)
    whole = size - size % 4
    first = second = third = fourth = row[0]
    for c in range(0, whole, 4):
        first = max(first, row[c])
        second = max(second, row[c + 1])
        third = max(third, row[c + 2])
        fourth = max(fourth, row[c + 3])
    for c in range(whole, size):
        first = max(first, row[c])
    most = max(max(first, second), max(third, fourth))
    for c in range(size):
        row[c] = exponential(row[c] - most)
    total = other = still = last = 0.0
    for c in range(0, whole, 4):
        total += row[c]
        other += row[c + 1]
        still += row[c + 2]
        last += row[c + 3]
    for c in range(whole, size):
        total += row[c]
    share = 1.0 / ((total + other) + (still + last))
    for c in range(size):
        row[c] = np.float32(row[c] * share)


@kernel
def _rarer(x: np.float32, code: int, first: np.float32, second: np.float32) -> np.float32:
    if code == A_ABS:
        return abs(x)
    if code == A_SQUARE:
        return np.float32(x * x)
    if code == A_CLIP:
        x = first if x < first else x
        return second if x > second else x
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
