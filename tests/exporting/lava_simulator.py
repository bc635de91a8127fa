"""Plays frames in Lava's CPU simulator: ``lava_simulator.py FILE.net FRAMES.npz ANSWERS.npz``.

It runs in an environment of its own with lava-nc 0.10 and lava-dl 0.6, which were made for Python 3.10. Later ones ask
that defaults of data classes can be hashed. What netx imports of PyTorch only serves other neurons.
"""

import dataclasses
import sys
import types

import h5py
import numpy as np

plain = dataclasses.dataclass


def hashable(cls=None, /, **more):
    if cls is None:
        return lambda cls: hashable(cls, **more)
    made = plain(cls, **more)
    if cls.__module__.startswith("lava.") and made.__hash__ is None:
        made.__hash__ = object.__hash__
    return made


dataclasses.dataclass = hashable
for name in ("netx.sequential_modules", "slayer", "slayer.neuron", "slayer.neuron.rf"):
    stub = sys.modules[f"lava.lib.dl.{name}"] = types.ModuleType(name)
    stub.__file__ = __file__
stub.neuron_params = None

from lava.lib.dl.netx.hdf5 import Network  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402
from lava.proc.io.sink import RingBuffer as Sink  # noqa: E402
from lava.proc.io.source import RingBuffer as Source  # noqa: E402

if __name__ == "__main__":
    frames = np.load(sys.argv[2])["frames"].astype(np.int32)
    with h5py.File(sys.argv[1]) as file:
        spike_exp = int(file.attrs["spike_exp"])
    network = Network(net_config=sys.argv[1], spike_exp=spike_exp)
    print(network)
    latency = len(network) - 1
    frames = np.concatenate([frames, frames[-1:].repeat(latency, axis=0)])
    source = Source(data=frames.transpose(2, 1, 3, 0))
    source.s_out.connect(network.in_layer.neuron.a_in)
    sink = Sink(shape=network.out.shape, buffer=len(frames))
    network.out.connect(sink.a_in)
    network.run(condition=RunSteps(num_steps=len(frames)), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    answers = sink.data.get()
    network.stop()
    np.savez(sys.argv[3], answers=np.moveaxis(answers, -1, 0)[latency:])
