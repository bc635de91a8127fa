"""Random networks, random changes, all engines: each frame's answer is the Keras model's on that frame alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine import DeltafineError, DeltaRuntime, find_activations, insert_deltas
from deltafine.model import DeltaSettings
from deltafine.runtime.autotuning import can_run_by_events
from deltafine.runtime.delta_stream import DeltaStream
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.runtime.plan import Plan
from tests.runtime.random_networks import Fragile, Network, frames

CLOSE = 2e-4
"""Largest difference, relative to the largest value of an output in the video, or to 1."""
Step = Callable[[np.ndarray], Any]


@pytest.mark.parametrize("seed", range(6))
def test_any_network_answers_as_keras_does(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(1, 5))
def test_hundreds_of_networks_answer_as_keras_does(hundred: int, tmp_path: Path) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        check(seed, tmp_path)


def check(seed: int, folder: Path) -> None:
    """Play a random video to a random network, by every engine; Keras gets two of each frame, see ``KerasCalls``."""
    model = Network(seed).build()
    try:
        engines = engines_of(model, folder)
    except DeltafineError as refusal:
        if "reads the mask" in str(refusal):
            return
        raise
    draw = np.random.default_rng(seed)
    played, theirs = [], []
    for frame in frames(model.input_shape[1:], draw, 12):
        if draw.random() < 0.25:
            for step in engines.values():
                disturb(step, frame, draw)
        played.append({name: step(frame) for name, step in engines.items()})
        theirs.append(
            keras.tree.map_structure(lambda t: np.asarray(t)[0], model(np.float32([frame, frame]), training=False))
        )
    expected = [keras.tree.flatten(answer) for answer in theirs]
    scales = [max(1.0, *(np.abs(answer).max() for answer in answers)) for answers in zip(*expected, strict=True)]
    for number, (answers, answer) in enumerate(zip(played, theirs, strict=True)):
        for name, ours in answers.items():
            said = f"seed {seed}, frame {number}, {name}"
            assert structure(ours) == structure(answer), said
            for mine, right, scale in zip(keras.tree.flatten(ours), expected[number], scales, strict=True):
                assert mine.shape == right.shape, said
                np.testing.assert_allclose(mine, right, rtol=0, atol=CLOSE * scale, err_msg=said)


def engines_of(model: Any, folder: Path) -> dict[str, Step]:
    """The network by rows, by events, in NumPy, out of a kept plan, and as a clip model whose steps are 0."""
    by_rows, by_events = DeltaRuntime(model), DeltaRuntime(model)
    plan = by_rows.plan
    by_events._choose({operation.name: 0.0 for operation in plan.operations if can_run_by_events(operation)})
    engines = {"rows": by_rows.step, "events": by_events.step, "numpy": DeltaRuntime(model, engine="numpy").step}
    if not plan.unknown:
        plan.save(folder / "plan")
        kept = Plan.load(folder / "plan")
        engines["kept plan"] = DeltaStream(kept, NumpyState(kept, lambda *_: None)).step
    try:
        sites = find_activations(model)
        clips = insert_deltas(
            model, sites, DeltaSettings(rule="identity"), clip_output=("mean", "per-frame")[len(sites) % 2]
        )
        engines["clip model"] = DeltaRuntime(clips).step
    except DeltafineError:
        pass  # there is no place for a delta layer
    return engines


def disturb(step: Step, frame: np.ndarray, draw: np.random.Generator) -> None:
    """A frame that no camera should give, or a step that breaks off; what follows has to be right again."""
    broken = frame.astype(np.float32)
    kind = draw.integers(5)
    if kind < 3:
        broken.flat[draw.integers(broken.size)] = (np.nan, np.inf, -np.inf)[kind]
        with pytest.raises(DeltafineError, match="not finite"):
            step(broken)
    elif kind == 3:
        broken.flat[draw.integers(broken.size)] = draw.choice([1e20, -1e38, 3e38])
        with np.errstate(all="ignore"), contextlib.suppress(tf.errors.OpError):  # Keras' layers may refuse the values
            step(broken)
    else:
        Fragile.breaks = RuntimeError
        try:
            step(255 - broken)
        except RuntimeError:
            pass
        finally:
            Fragile.breaks = None


def structure(answer: Any) -> Any:
    """Tuples, lists, dicts and their keys in order, without the values."""
    if isinstance(answer, dict):
        return {"dict": [(key, structure(part)) for key, part in answer.items()]}
    if isinstance(answer, tuple | list):
        return {type(answer).__name__: [structure(part) for part in answer]}
    return None
