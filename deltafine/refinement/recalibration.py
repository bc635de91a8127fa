"""Steps found anew for a network that is being refined, by what each of them costs and saves in it.

Calibration looks at the network as it was before the training, at each layer while all others send everything. Here
all layers have their steps, and one after the other is tried with larger and smaller ones. What counts is what
training minimises, with events that are counted instead of expected: the loss of the task, and λ times the share of
the MACs that what was sent feeds.

Little video would not do, since on that a network that sends nothing looks best. So the training clips are played from
beginning to end, as the streams that they are, by the delta runtime, which takes a fraction of the time that
TensorFlow would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from deltafine.model import delta_layers
from deltafine.refinement.losses import Loss
from deltafine.runtime.compile import compile_model
from deltafine.runtime.compiled import NumbaState
from deltafine.runtime.counts import Counts
from deltafine.runtime.kept import available_cores
from deltafine.runtime.program import Program
from deltafine.runtime.unknown import KerasCalls
from deltafine.video.clips import Batch

FACTOR = 1.5
"""From one step that is tried to the next."""
SWEEPS = 2
"""Times that all layers have their turn."""
FARTHEST = 4
"""Steps in one direction in a turn."""
LEAST_GAIN = 1e-4
"""Of what is minimised; less is chance."""
MOST_VALUES = 1 << 28
"""Of all frames that are played."""


class Recalibration:
    """Tries other steps for the delta layers of a clip model of single frames.

    Args:
        student: clip model; not changed.
        teacher: the original, clips to predictions along time, or None where nothing is distilled.
        loss: of the task.
        weights: share of all MACs that each delta layer's elements meet, by layer path.
        batches: of training clips; what stands at a place of a batch goes on from the same place of the one before.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any | None,
        loss: Loss,
        weights: dict[str, float],
        batches: Iterable[Batch],
    ) -> None:
        self._loss = loss
        self._weights = weights
        self._batches = _as_many_as_fit(batches)
        self._labels = np.concatenate([batch.labels for batch in self._batches])
        self._answers = None if teacher is None else self._answered(teacher)
        compiled = compile_model(student)
        self._plan, self._calls = compiled.plan, KerasCalls(compiled.calls)
        self._steps = {path: np.asarray(layer.step) for path, layer in delta_layers(student).items()}
        self._arrays = {
            operation.finish.delta.name: self._plan.arrays[operation.finish.delta.step]
            for operation in self._plan.operations
            if operation.finish.delta is not None
        }

    def search(self, penalty: float, progress: Callable[[int, int], None]) -> dict[str, np.ndarray]:
        """The better steps by layer path.

        Args:
            penalty: λ.
            progress: told with every try whose turn it is, and how many turns there are.
        """
        factors = dict.fromkeys(self._steps, 1.0)
        best = self.objective(factors, penalty)
        turns = [path for _ in range(SWEEPS) for path in self._steps]
        for turn, path in enumerate(turns):
            for change in (FACTOR, 1 / FACTOR):
                moves = 0
                while moves < FARTHEST:
                    progress(turn + 1, len(turns))
                    tried = {**factors, path: factors[path] * change}
                    found = self.objective(tried, penalty)
                    if found >= best - LEAST_GAIN:
                        break
                    best, factors, moves = found, tried, moves + 1
                if moves:
                    break
        return {path: steps * factors[path] for path, steps in self._steps.items()}

    def objective(self, factors: dict[str, float], penalty: float) -> float:
        """Loss of the task plus ``penalty`` times the share of the MACs that events feed, in steady frames.

        Args:
            factors: on the steps, by layer path.
            penalty: λ.
        """
        for path, steps in self._steps.items():
            self._arrays[path][...] = (steps * factors[path]).reshape(self._arrays[path].shape)
        program = Program(self._plan)
        predictions = [np.empty((*batch.frames.shape[:2], *self._shape), np.float32) for batch in self._batches]

        def play(place: int) -> tuple[np.ndarray, int]:
            """Predict what stands at a place of the batches; returns the counts of its steady frames, and how many."""
            state = NumbaState(program, self._calls)
            table, frames = np.zeros_like(state.counters), 0
            for batch, predicted in zip(self._batches, predictions, strict=True):
                for number, frame in enumerate(batch.frames[place] if place < len(batch.frames) else ()):
                    steady = not state.fresh
                    state.step(frame)
                    predicted[place, number] = state.value(self._plan.outputs[0]).reshape(self._shape)
                    table += state.counters * steady
                    frames += steady
            return table, frames

        with ThreadPoolExecutor(available_cores()) as pool:
            tables, frames = zip(*pool.map(play, range(max(len(batch.frames) for batch in self._batches))), strict=True)
        task = float(self._loss(tf.constant(np.concatenate(predictions)), self._answers, tf.constant(self._labels)))
        events = Counts(self._plan, np.sum(tables, axis=0)).events()
        share = sum(self._weights[path] * sent / elements for path, (sent, elements) in events.items())
        return task + penalty * share / max(sum(frames), 1)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self._plan.tensors[self._plan.outputs[0]].sample_shape

    def _answered(self, teacher: Any) -> Any:
        answer = tf.function(lambda frames: teacher(tf.cast(frames, tf.float32), training=False), reduce_retracing=True)
        return tf.concat([answer(tf.constant(batch.frames)) for batch in self._batches], axis=0)


def _as_many_as_fit(batches: Iterable[Batch]) -> list[Batch]:
    """The first batches, whose frames are held in memory."""
    taken: list[Batch] = []
    values = 0
    for batch in batches:
        values += batch.frames.size
        if taken and values > MOST_VALUES:
            break
        taken.append(batch)
    return taken
