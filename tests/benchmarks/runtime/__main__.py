"""The delta runtime against dense runtimes, on changes of a chosen size in every layer.

    python -m tests.benchmarks.runtime                       # all networks in float32, one thread
    python -m tests.benchmarks.runtime --models ResNet50 detector.keras --threads 2
    python -m tests.benchmarks.runtime --layers              # single layers
    python -m tests.benchmarks.runtime --int8                # in 8-bit integers, against dense runtimes in int8
    python -m tests.benchmarks.runtime --float32 --int8      # both
    python -m tests.benchmarks.runtime.threads               # the delta runtime on two threads and on one

The last table has all networks, against the best dense runtime of each. Weights are random, frames are 224x224. Which
pixels change is set by the steps of the delta layers: send-on-delta by the pixel, one step per neuron, tiny inside a
square of the wanted area and huge outside. So the engine computes what changes reach, and finds out itself what to
send. Frames for a whole model are noise everywhere, those for a single layer are noise in the square and still around
it. Contestants take turns, frame by frame; what is printed are ratios of medians of processor time.

Set OPENBLAS_NUM_THREADS=1 for the NumPy engine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from deltafine import find_activations, insert_deltas
from deltafine.jobs.dense_runtimes import dense_runtimes, set_threads
from deltafine.jobs.int8_runtimes import int8_runtimes
from deltafine.jobs.timing import Times, fastest_dense, take_turns
from deltafine.model import DeltaSettings
from deltafine.model.loading import load
from deltafine.runtime.int8.byte_program import ByteProgram
from deltafine.runtime.int8.byte_state import ByteState
from deltafine.runtime.int8.quantise import in_bytes
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan import Plan
from deltafine.runtime.plan_cache import machine
from deltafine.runtime.value_ranges import value_ranges
from tests.model.transformers import plain as transformer

DENSITIES = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
SENDS_ALWAYS, NEVER_SENDS = 1e-30, 1e30
MODELS = {
    "MobileNetV1": lambda: keras.applications.MobileNet(weights=None),
    "MobileNetV2": lambda: keras.applications.MobileNetV2(weights=None),
    "MobileNetV3Small": lambda: keras.applications.MobileNetV3Small((224, 224, 3), weights=None),
    "EfficientNetB0": lambda: keras.applications.EfficientNetB0(weights=None),
    "ResNet50": lambda: keras.applications.ResNet50(weights=None),
    "ConvNeXtTiny": lambda: keras.applications.ConvNeXtTiny(weights=None),
    "ViT-Ti": lambda: transformer(depth=12, width=192, heads=3, size=(224, 224), patch=16, mlp=4),
}


def square(height: int, width: int, density: float) -> np.ndarray:
    """(height, width) bool: a square of about this share of the area, at least one position."""
    share = density if height == 1 else density**0.5
    tall, wide = max(1, round(height * share)), max(1, round(width * share))
    top, left = (height - tall) // 3, (width - wide) // 3
    mask = np.zeros((height, width), bool)
    mask[top : top + tall, left : left + wide] = True
    return mask


def changing(plan: Plan, density: float) -> Plan:
    """The plan with steps that let this share of the positions of every delta layer change."""
    arrays = dict(plan.arrays)
    for operation in plan.operations:
        delta = operation.finish.delta
        if delta is not None:
            height, width, channels = plan.tensors[operation.output].shape
            steps = np.where(square(height, width, density), SENDS_ALWAYS, NEVER_SENDS)
            arrays[delta.threshold] = np.repeat(steps[:, :, None], channels, axis=2).astype(np.float32)
    return Plan(plan.name, plan.tensors, plan.operations, plan.outputs, arrays)


def sending_all(plan: Plan) -> Plan:
    """The plan with steps of 0."""
    whole = {name: np.zeros_like(array) if "threshold" in name else array for name, array in plan.arrays.items()}
    return Plan(plan.name, plan.tensors, plan.operations, plan.outputs, whole)


def compiled(model: Any) -> Plan:
    """The plan of a model with a delta layer, by the pixel, at every activation."""
    sites = find_activations(model)
    return compile_model(insert_deltas(model, sites, DeltaSettings(rule="send-on-delta", granularity="pixel"))).plan


def compare(
    model: Any, threads: int, rounds: int, still_around: bool = False, int8: bool = False
) -> tuple[dict[str, Times], dict[str, float]]:
    """Times of every contestant, and the share of the dense MACs that the delta runtime carried out, by density."""
    plan, plain = compiled(model), compile_model(model).plan
    frames = np.random.default_rng(0).uniform(0, 255, (8, *plan.input_shape)).astype(np.float32)
    runs: dict[str, Any] = {}
    shares: dict[str, float] = {}

    def state_of(plan: Plan) -> NumbaState:
        if not int8:
            return NumbaState(Program(plan), None)
        exact = sending_all(plan)
        return ByteState(
            ByteProgram(in_bytes(plan, value_ranges(exact, NumbaState(Program(exact), None), frames))), None
        )

    for density in DENSITIES:
        state = state_of(changing(plan, density))
        own = frames
        if still_around:
            own = np.where(square(*plan.input_shape[:2], density)[:, :, None], frames, frames[0])
        for frame in own[:2]:
            state.step(frame)
        name = f"{density:.0%}"
        shares[name] = state.counts().total("executed_macs") / plan.dense_macs()
        runs[name] = _numbered(state.step, own)
    runs["no deltas, all changes"] = _numbered(state_of(plain).step, frames)
    dense, missing = int8_runtimes(model, threads, list(frames)) if int8 else dense_runtimes(model, threads)
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    runs |= {name: _numbered(run, frames) for name, run in dense.items()}
    return take_turns(runs, [number % len(frames) for number in range(rounds)]), shares


def _numbered(run: Callable[[np.ndarray], object], frames: np.ndarray) -> Callable[[int], object]:
    """A contestant that takes the number of a frame."""
    return lambda number: run(frames[number])


def show(title: str, times: dict[str, Times], shares: dict[str, float]) -> list[str]:
    """Print the times of one network; the cells of its row in the last table."""
    dense = {name: taken for name, taken in times.items() if name not in shares and not name.startswith("no deltas")}
    best = fastest_dense(dense)
    fastest = dense[best].processor_median
    print(f"\n{title}: best dense runtime {best}, {fastest:.2f} ms")
    print("| changed pixels in every layer | share of MACs | ms (processor) | ms (wall) |" + " | ".join(dense) + " |")
    print("|---|---|---|---|" + "---|" * len(dense))
    own = {name: taken for name, taken in times.items() if name not in dense}
    for name, taken in own.items():
        ratios = " | ".join(f"{other.processor_median / taken.processor_median:.2f}x" for other in dense.values())
        share = f"{shares[name]:.2f}" if name in shares else "1"
        print(f"| {name} | {share} | {taken.processor_median:.2f} | {taken.wall_percentile(50):.2f} | {ratios} |")
    for name, taken in dense.items():
        print(f"{name}: {taken.processor_median:.2f} ms of processor time, {taken.wall_percentile(50):.2f} ms wall")
    ratios_to_best = [f"{fastest / taken.processor_median:.2f}" for taken in own.values()]
    return [title, best, f"{fastest:.2f}", *ratios_to_best]


def single_layers() -> dict[str, Any]:
    """Models of one layer, of the sizes that MobileNet and ResNet50 are made of."""

    def one(shape: tuple[int, int, int], layer: Any) -> Any:
        inputs = keras.Input(shape)
        return keras.Model(inputs, layers.ReLU()(layer(layers.ReLU()(inputs))))

    return {
        "pointwise 14x14x512": one((14, 14, 512), layers.Conv2D(512, 1)),
        "pointwise 56x56x128": one((56, 56, 128), layers.Conv2D(128, 1)),
        "3x3 56x56x64": one((56, 56, 64), layers.Conv2D(64, 3, padding="same")),
        "3x3 14x14x256": one((14, 14, 256), layers.Conv2D(256, 3, padding="same")),
        "depthwise 56x56x128": one((56, 56, 128), layers.DepthwiseConv2D(3, padding="same")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), help="names, or files of models")
    parser.add_argument("--layers", action="store_true", help="single layers instead of models")
    parser.add_argument("--int8", action="store_true", help="in 8-bit integers")
    parser.add_argument("--float32", action="store_true", help="in float32, as without --int8")
    parser.add_argument("--threads", type=int, default=1, help="threads of the dense runtimes")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    keras.utils.set_random_seed(0)
    print(f"{machine()}; dense runtimes with {arguments.threads} thread(s), deltafine with 1")
    rows = []
    makers = {name: (lambda model=model: model) for name, model in single_layers().items()}
    if not arguments.layers:
        makers = {name: MODELS.get(name, lambda name=name: load(name)) for name in arguments.models}
    for name, make in makers.items():
        model = make()
        for int8 in ([False] if arguments.float32 or not arguments.int8 else []) + [True] * arguments.int8:
            title = f"{name}, {'int8' if int8 else 'float32'}"
            rows.append(show(title, *compare(model, arguments.threads, arguments.rounds, arguments.layers, int8)))
        del model
    print(
        "\n| network | best dense runtime | ms | " + " | ".join([f"{one:.0%}" for one in DENSITIES]) + " | no deltas |"
    )
    print("|---|---|---|" + "---|" * (len(DENSITIES) + 1))
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
