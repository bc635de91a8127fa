"""A run directory that plays without Keras: its plan is kept already, and its model is never loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deltafine.runtime import plan_cache
from deltafine.runtime.activation_functions import NO_LIMIT
from deltafine.runtime.plan import Finish, Operation, Plan, Tensor
from deltafine.storage import run_files

SIZE = 16
OUTPUTS = 2


def small_plan(last: str = "softmax") -> Plan:
    """One convolution, a mean over the picture, and a dense layer "head" of 2 outputs."""
    random = np.random.default_rng(0)
    reach = np.bincount((2 * np.arange(7)[:, None] + np.arange(3)).ravel(), minlength=SIZE)
    arrays = {
        "scale": np.full(3, 1 / 255, np.float32),
        "kernel": random.normal(size=(3, 3, 3, 4)).astype(np.float32),
        "fan": (4 * reach[:, None] * reach[None, :]).astype(np.int32),
        "dense": random.normal(size=(1, 1, 4, OUTPUTS)).astype(np.float32),
        "dense fan": np.full((1, 1), OUTPUTS, np.int32),
    }
    shapes = {"input": (SIZE, SIZE, 3), "conv": (7, 7, 4), "pool": (1, 1, 4), "head": (1, 1, OUTPUTS)}
    flat = ("pool", "head")
    tensors = [Tensor(name, shape, shape[2:] if name in flat else shape) for name, shape in shapes.items()]
    operations = [
        Operation("input", "input", (), 0, finish=Finish(scale="scale")),
        Operation(
            "conv", "conv", (0,), 1, (3, 3), (2, 2), weights="kernel", fan="fan", dense_macs=49 * 27 * 4,
            finish=Finish(activation="relu", parameters=(0.0, NO_LIMIT, 0.0)),
        ),
        Operation("global_average", "pool", (1,), 2),
        Operation(
            "conv", "head", (2,), 3, weights="dense", fan="dense fan", dense_macs=4 * OUTPUTS,
            finish=Finish(activation=last),
        ),
    ]  # fmt: skip
    return Plan("small", tensors, operations, (3,), arrays)


def write_played_run(run: Path, plan: Plan | None = None) -> Path:
    """A run directory that ``DeltaRuntime`` starts from at once, with nothing left to choose."""
    run.mkdir(parents=True)
    (run / run_files.REFINED).write_bytes(b"no model: its plan is kept")
    source = plan_cache.digest(run / run_files.REFINED, None)
    plan_cache.keep_plan(plan or small_plan(), run / run_files.RUNTIME, source)
    plan_cache.keep_choice({}, run / run_files.RUNTIME, source)
    return run
