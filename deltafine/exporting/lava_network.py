"""A chain in the whole numbers of netx: weights in 8 bits, messages in 16, sums in 24.

The values of a layer are held in a unit of its own: so many messages for one threshold, or for 1 where there is none.
netx divides what a message and a weight give by 64, so the units decide how many digits the weights have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deltafine.exporting.fixed_numbers import HEADROOM, LARGEST_STATE, LARGEST_WEIGHT
from deltafine.exporting.lava_chain import LavaBlock, LavaChain
from deltafine.runtime.activation_functions import ACTIVATIONS

SUM_BITS, STATE_EXP = 24, 6
"""netx 0.6 fixes the second: what a neuron adds up has so many digits more than what it sends."""
_MOST_ACTIVE = LARGEST_STATE / HEADROOM
_MOST_SUMMED = 2 ** (SUM_BITS - 1 - STATE_EXP) / HEADROOM
_CONSTANTS = 2
_SIZES = 4


@dataclass(frozen=True)
class LavaNetwork:
    """What is written.

    Attributes:
        shape: (height, width, channels) of a frame of whole numbers.
        threshold: of pixels.
        blocks: in whole numbers, with one threshold each; the last has neither bias nor threshold.
        spike_exp: thresholds and biases are in 2 ** spike_exp messages, as pixels are.
        scale: the last block's sums, divided by it, are what the model computes before ``head``.
        head: the activation that is left to the host, or "".
    """

    shape: tuple[int, ...]
    threshold: int
    blocks: tuple[LavaBlock, ...]
    spike_exp: int
    scale: float
    head: str

    def answer(self, sums: np.ndarray) -> np.ndarray:
        """What the host makes of the sums of the last block, float32."""
        values = (sums / self.scale).astype(np.float32)
        with np.errstate(over="ignore"):  # of a sigmoid far from 0
            return np.maximum(values, 0) if self.head == "relu" else ACTIVATIONS[self.head or "linear"](values)


class LavaPlayer:
    """Plays a network as netx does on Lava's CPU simulator, to the last bit, without the delay of a step per layer.

    Before the first frame, netx's layers wait for it: each computes from zeros, then from what the layers before it
    make of zeros. ``reset`` does the same.
    """

    def __init__(self, network: LavaNetwork) -> None:
        self._network, self._digits = network, network.spike_exp + STATE_EXP
        # Whole numbers below 2^53 are exact in float64, which is fast to multiply.
        self._blocks = [replace(block, weights=block.weights.astype(np.float64)) for block in network.blocks]
        self._dense = dense_layers(network.blocks)
        self.reset()

    def reset(self) -> None:
        """Begin a stream."""
        self._pixels = np.zeros(self._network.shape, np.int64)
        self._sums = [np.zeros(block.shape, np.int64) for block in self._blocks]
        self._held = [np.zeros(block.shape, np.int64) for block in self._blocks]
        shapes = [self._network.shape, *(block.shape for block in self._blocks)]
        for first in reversed(range(len(self._blocks))):
            self._run(np.zeros(shapes[first]), first)

    def step(self, frame: np.ndarray) -> np.ndarray:
        """What the last block adds up, of a frame of whole numbers (height, width, channels)."""
        change = frame.astype(np.int64).reshape(self._network.shape) - self._pixels
        sent = np.where(np.abs(change) >= self._network.threshold, change, 0)
        self._pixels += sent
        return self._run(np.left_shift(sent, self._network.spike_exp), 0)

    def _run(self, message: np.ndarray, first: int) -> np.ndarray:
        for index in range(first, len(self._blocks)):
            block = self._blocks[index]
            arrived = np.rint(block.sums(message.astype(np.float64))).astype(np.int64)
            self._sums[index] += arrived if self._dense[index] else _wrapped(arrived)
            if block.threshold is None:
                break
            active = np.maximum(self._sums[index] + np.left_shift(block.bias, self._digits), 0)
            change = active - self._held[index]
            sent = np.where(np.abs(change) >= int(block.threshold) << self._digits, change, 0)
            self._held[index] += sent
            # The digits that go here are lost: what the next layer adds up drifts downwards, event by event.
            message = np.right_shift(sent, STATE_EXP)
        return self._sums[-1].copy()


def dense_layers(blocks: Sequence[LavaBlock]) -> list[bool]:
    """Which are written as dense layers: of those that give a vector the last ones, up to one that netx misreads.

    netx only reads the weights of a dense layer rightly if some are positive, and no convolution behind one.
    """
    found: list[bool] = []
    for block in reversed(blocks):
        vector = block.shape[:2] == (1, 1) and block.groups == 1 and not any(block.padding)
        found.insert(0, vector and bool(block.weights.max() > 0) and all(found))
    return found


def _wrapped(values: np.ndarray) -> np.ndarray:
    half = 1 << (SUM_BITS - 1)
    return (values + half) % (2 * half) - half


def in_netx_numbers(chain: LavaChain, frames: Sequence[np.ndarray]) -> list[LavaNetwork]:
    """Choose units, and round.

    Large messages lose little each time, and leave the weights few digits. What is best only shows in playing.

    Args:
        chain: in floating point.
        frames: real ones (height, width, channels), which show how large values become.

    Returns:
        Networks with messages of several sizes; [] if none holds both the thresholds and the largest values.
    """
    thresholds = [np.zeros(1) if block.threshold is None else block.threshold for block in chain.blocks]
    units = [np.where(one > 0, one, 1.0) for one in thresholds]
    blocks = [_rescaled(block, *ends) for block, *ends in zip(chain.blocks, [np.ones(1), *units], units, strict=False)]
    room = _room(blocks, frames)
    made: list[LavaNetwork] = []
    for spike_exp in reversed(range(STATE_EXP + 1)):
        factors = _factors(blocks, room, spike_exp)
        fits = all(one <= most * (1 + 1e-9) for one, most in zip(factors[1:], room, strict=True))
        if fits and len(made) < _SIZES:
            network = _rounded(chain, blocks, factors, spike_exp)
            if _holds(network, frames):
                made.append(network)
    return made


def _holds(network: LavaNetwork, frames: Iterable[np.ndarray]) -> bool:
    """Whether messages and sums fit their bits: weights of few digits may be rounded to much larger ones."""
    digits, most = network.spike_exp + STATE_EXP, 1 << (SUM_BITS - 1)
    for frame in frames:
        x = np.left_shift(frame.astype(np.int64).reshape(network.shape), network.spike_exp)
        for block in network.blocks:
            sums = np.rint(block.sums(x.astype(np.float64))).astype(np.int64)
            active = sums + np.left_shift(block.bias, digits)
            if max(np.abs(sums).max(), np.abs(active).max()) >= most:
                return False
            x = np.right_shift(np.maximum(active, 0), STATE_EXP)
            if block.threshold is not None and x.max() > LARGEST_STATE:
                return False
    return True


def _rounded(chain: LavaChain, blocks: Sequence[LavaBlock], factors: Sequence[float], spike_exp: int) -> LavaNetwork:
    one, made = 2**spike_exp, []
    for place, block in enumerate(blocks):
        factor = factors[place + 1]
        weights = np.rint(block.weights * 2**STATE_EXP * factor / factors[place])
        made.append(
            replace(
                block,
                weights=weights.clip(-LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int64),
                bias=np.rint(block.bias * factor / one).astype(np.int64),
                threshold=np.array(int(factor / one) if _has_threshold(block) else 0),
            )
        )
    scale = factors[-1] * 2**STATE_EXP
    made[-2:] = _bias_as_weights(made[-2], made[-1], blocks[-1].bias * factors[-1] / one, spike_exp)
    return LavaNetwork(chain.shape, int(np.ceil(chain.threshold.max())), tuple(made), spike_exp, scale, chain.head)


def _has_threshold(block: LavaBlock) -> bool:
    return block.threshold is not None and bool(block.threshold.any())


def _rescaled(block: LavaBlock, before: np.ndarray, own: np.ndarray) -> LavaBlock:
    """The same, for values in units: those it reads in ``before``, (channels,), those it gives in ``own``."""
    inputs, outputs = block.weights.shape[2], block.weights.shape[3]
    by_group = np.broadcast_to(before, inputs * block.groups).reshape(block.groups, inputs)
    read = by_group.repeat(outputs // block.groups, axis=0).T
    return replace(block, weights=block.weights * read / own, bias=block.bias / own)


def _room(blocks: Sequence[LavaBlock], frames: Iterable[np.ndarray]) -> list[float]:
    """By block, the most messages that one unit may be."""
    room = [np.inf] * len(blocks)
    for frame in frames:
        x = frame.astype(np.float64)
        for place, block in enumerate(blocks):
            sums = block.sums(x)
            x = np.maximum(sums + block.bias, 0)
            largest = max(float(np.abs(sums).max()), float(np.abs(sums + block.bias).max()), 1e-9)
            sent = max(float(x.max()), 1e-9) if block.relu else 1e-9
            room[place] = min(room[place], _MOST_SUMMED / largest, _MOST_ACTIVE / sent)
    return room


def _factors(blocks: Sequence[LavaBlock], room: Sequence[float], spike_exp: int) -> list[float]:
    """Messages per unit: of pixels, then of each block, so that the fewest digits of any block's weights are most."""
    largest = [float(np.abs(block.weights).max(initial=0)) or 1.0 for block in blocks]
    factors = [float(2**spike_exp)]
    for place, block in enumerate(blocks):
        growth, times = float(LARGEST_WEIGHT), 1.0
        for ahead in range(place, len(blocks)):
            times *= largest[ahead] * 2**STATE_EXP
            growth = min(growth, (room[ahead] * times / factors[-1]) ** (1 / (ahead - place + 1)))
        factor = factors[-1] * growth / (largest[place] * 2**STATE_EXP)
        if _has_threshold(block):
            whole = min(np.rint(factor / factors[0]), np.floor(room[place] / factors[0]))
            factor = max(float(whole), 1.0) * factors[0]
        factors.append(factor)
    return factors


def _bias_as_weights(
    before: LavaBlock, last: LavaBlock, bias: np.ndarray, spike_exp: int
) -> tuple[LavaBlock, LavaBlock]:
    """The last layer of netx has no bias: two channels that never change are added to the layer before it."""
    bias = np.rint(bias * 2**STATE_EXP).astype(np.int64)
    last = replace(last, threshold=None, bias=np.zeros(last.shape[2], np.int64))
    if not bias.any():
        return before, last
    before, last = before.of_one_group(), last.of_one_group()
    assert before.threshold is not None
    rest = bias
    for _ in range(_CONSTANTS):
        needed = -(-np.abs(rest).max() // LARGEST_WEIGHT)
        size = int(np.clip(needed, max(int(before.threshold), 1), LARGEST_STATE >> spike_exp))
        weights = np.rint(rest / size).clip(-LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int64)
        rest = rest - weights * size
        column = np.zeros((*last.weights.shape[:2], 1, len(weights)), np.int64)
        column[0, 0, 0] = weights
        last = replace(last, weights=np.concatenate([last.weights, column], axis=2))
        before = replace(
            before,
            weights=np.concatenate([before.weights, np.zeros_like(before.weights[..., :1])], axis=3),
            bias=np.concatenate([before.bias, np.full((*before.bias.shape[:-1], 1), size)], axis=-1),
            shape=(*before.shape[:2], before.shape[2] + 1),
        )
    return before, last
