"""What netx 0.6 and lava-nc 0.10 compute, step by step, as their sources say: shares no code with the project.

Arrays are (width, height, channels), as they are there. Every layer computes in every step; what it sends is read in
the next.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np


class Layer:
    def __init__(self, group: h5py.Group, before: tuple[int, ...], one: int, *, flat: bool) -> None:
        self.kind = group["type"][0].decode()
        self.shape = tuple(group["shape"][()][::-1].tolist())
        self.before, self.flat, self.one = before, flat, one
        self.weight = group["weight"][()].astype(object)
        self.bias = group["bias"][()] if "bias" in group else 0
        self.vth = None if "neuron/sigma_output" in group else int(group["neuron/vThMant"][()])
        if self.kind == "conv":
            sides = (group["stride"][()], group["padding"][()], group["dilation"][()])
            self.stride, self.padding, self.dilation = ([int(one) for one in side[::-1]] for side in sides)
            self.groups = int(group["groups"][()])
        self.sigma = np.zeros(self.shape, object)
        self.act, self.residue = np.zeros(self.shape, object), np.zeros(self.shape, object)

    def synapse(self, x: np.ndarray) -> np.ndarray:
        if self.kind == "dense":
            return self.weight @ (x.transpose(2, 1, 0).ravel() if self.flat else x)
        x = np.pad(x, [(self.padding[0],) * 2, (self.padding[1],) * 2, (0, 0)])
        per_input, per_output = self.weight.shape[1], self.shape[2] // self.groups
        found = np.zeros(self.shape, object)
        for i, j, channel in np.ndindex(self.shape):
            first = channel // per_output * per_input
            for down, right in np.ndindex(self.weight.shape[2:]):
                at = i * self.stride[0] + right * self.dilation[0], j * self.stride[1] + down * self.dilation[1]
                found[i, j, channel] += self.weight[channel, :, down, right] @ x[at][first : first + per_input]
        return (found + 2**23) % 2**24 - 2**23

    def neuron(self, a_in: np.ndarray) -> np.ndarray:
        self.sigma = self.sigma + a_in
        if self.vth is None:
            return self.sigma
        act = np.maximum(self.sigma + self.bias * self.one * 64, 0)
        delta = act - self.act + self.residue
        sent = np.where(np.abs(delta) >= self.vth * self.one * 64, delta, 0)
        self.residue, self.act = delta - sent, act
        return sent // 64


def play(file: Path, frames: np.ndarray) -> np.ndarray:
    """Answers of the output layer to (time, height, width, channels), those to the first frame first."""
    with h5py.File(file) as read:
        groups = [read["layer"][str(index)] for index in range(len(read["layer"]))]
        shape, vth = tuple(groups[0]["shape"][()][::-1].tolist()), int(groups[0]["neuron/vThMant"][()])
        one = 2 ** int(read.attrs["spike_exp"])
        layers: list[Layer] = []
        for place, group in enumerate(groups[1:], 1):
            if group["type"][0] != b"flatten":
                layers.append(Layer(group, shape, one, flat=groups[place - 1]["type"][0] == b"flatten"))
                shape = layers[-1].shape
    held = np.zeros(frames[0].transpose(1, 0, 2).shape, object)
    buffers = [np.zeros(layer.shape, object) for layer in layers]
    answers = []
    for frame in [*frames, *[frames[-1]] * len(layers)]:
        delta = frame.transpose(1, 0, 2).astype(int).astype(object) - held
        message = np.where(np.abs(delta) >= vth, delta, 0)
        held, message = held + message, message * one
        for index, layer in enumerate(layers):
            arriving, buffers[index] = buffers[index], layer.synapse(message)
            message = layer.neuron(arriving)
        answers.append(message)
    return np.array(answers[len(layers) :]).astype(np.int64)
