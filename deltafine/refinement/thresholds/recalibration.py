"""Thresholds computed again for a network that is being refined, by what each of them costs and saves in it.

Calibration looks at the network as it was before the training, at each layer while all others send everything. Here
all layers have their thresholds, and one after the other is tried with larger and smaller ones. What counts is what
training minimises, with events that are counted instead of expected: the loss of the task, and λ times the share of
the MACs that what was sent feeds. After the last epoch that loss must not become larger; before, training wins it back.

Where pixels are sent, for CPUs, the share is that of what the delta runtime computes: positions, each with the MACs
that it takes and what it costs beside them.

Little video would not do, since on that a network that sends nothing looks best. So the training clips, as many as
``MOST_VALUES`` allows, are played as the streams that they are, by the delta runtime, which takes a fraction of the
time that TensorFlow would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.model import delta_layers
from deltafine.model.further_inputs import answered
from deltafine.refinement.thresholds.following import MOST_APART, error, some
from deltafine.refinement.training.losses import Loss
from deltafine.runtime.frame_counts import FrameCounts, macs_per_row
from deltafine.runtime.given_values import step_packed
from deltafine.runtime.keras_calls import KerasCalls
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numba_stream import NumbaState
from deltafine.runtime.packed_plan import Program
from deltafine.runtime.plan_cache import available_cores
from deltafine.video.clips import Batch

FACTOR = 1.5
"""From one threshold that is tried to the next."""
SWEEPS = 2
"""Times that all layers have their turn, the last one first: it has few positions, and is worth much to the loss. Once
is enough where training goes on."""
FARTHEST, FARTHEST_AT_ONCE = 4, 2
"""Thresholds in one direction in a turn; at the end of a training, and before it goes on: what is lost in one leap is
not won back."""
LEAST_GAIN = 1e-4
"""Of what is minimised; less is chance."""
MOST_VALUES = 1 << 28
"""Of all frames that are played."""
POSITION_MACS = 1000
"""What a position costs beside its MACs: about 20 ns, in which a core carries out so many."""


@dataclass(frozen=True)
class ReplayTrial:
    """What some thresholds give on the clips.

    Attributes:
        loss: of the task.
        share: of the MACs, or of the work, that is left in steady frames.
        apart: how far the logits are from those with the thresholds that the search began with, in units of how much
            these vary: the loss does not change where the answer never does.
    """

    loss: float
    share: float
    apart: float = 0.0

    def total(self, penalty: float) -> float:
        """What is minimised."""
        return self.loss + penalty * self.share


class Recalibration:
    """Tries other thresholds for the delta layers of a clip model of single frames.

    Args:
        student: clip model; not changed.
        teacher: the original, clips to predictions along time, or None where nothing is distilled.
        loss: of the task.
        weights: share of all MACs that each delta layer's elements meet, by layer path.
        batches: of training clips; what stands at a place of a batch goes on from the same place of the one before.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        loss: Loss,
        weights: dict[str, float],
        batches: Iterable[Batch],
    ) -> None:
        self._loss = loss
        self._weights = weights
        self._batches = _as_many_as_fit(batches)
        self._labels = np.concatenate([batch.targets for batch in self._batches])
        self._answers = None if teacher is None else self._answered(teacher)
        compiled = compile_model(student)
        self._plan, self._calls = compiled.plan, KerasCalls(compiled.calls)
        self._thresholds = {path: np.asarray(layer.threshold) for path, layer in delta_layers(student).items()}
        deltas = [operation.finish.delta for operation in self._plan.operations if operation.finish.delta is not None]
        self._arrays = {delta.name: self._plan.arrays[delta.threshold] for delta in deltas}
        self._logits: np.ndarray | None = None  # of the first steps that were tried
        self._by_position = all(delta.granularity == "pixel" for delta in deltas)

    def search(
        self, penalty: float, progress: Callable[[int, int], None], *, lossless: bool = True
    ) -> dict[str, np.ndarray]:
        """The better thresholds by layer path.

        Args:
            penalty: λ.
            progress: told with every try whose turn it is, and how many turns there are.
            lossless: take none that make the loss of the task larger than it was.
        """
        factors = dict.fromkeys(self._thresholds, 1.0)
        self._logits = None
        best = first = self.play(factors)
        sweeps, farthest = (SWEEPS, FARTHEST) if lossless else (1, FARTHEST_AT_ONCE)
        turns = [path for _ in range(sweeps) for path in reversed(self._thresholds)]
        for turn, path in enumerate(turns):
            for change in (FACTOR, 1 / FACTOR):
                moves = 0
                while moves < farthest:
                    progress(turn + 1, len(turns))
                    tried = {**factors, path: factors[path] * change}
                    found = self.play(tried)
                    no_gain = found.total(penalty) >= best.total(penalty) - LEAST_GAIN
                    if no_gain or (lossless and found.loss > first.loss) or found.apart > MOST_APART:
                        break
                    best, factors, moves = found, tried, moves + 1
                if moves:
                    break
        return {path: thresholds * factors[path] for path, thresholds in self._thresholds.items()}

    def play(self, factors: dict[str, float]) -> ReplayTrial:
        """Predict all clips.

        Args:
            factors: on the thresholds, by layer path.

        Returns:
            The loss, in that of the training, and a share from 0 to 1.
        """
        for path, thresholds in self._thresholds.items():
            self._arrays[path][...] = (thresholds * factors[path]).reshape(self._arrays[path].shape)
        program = Program(self._plan)
        predictions = [np.empty((*batch.frames.shape[:2], *self._shape), np.float32) for batch in self._batches]

        def play(place: int) -> tuple[np.ndarray, int]:
            """Predict what stands at a place of the batches; returns the counts of its steady frames, and how many."""
            state = NumbaState(program, self._calls)
            table, frames = np.zeros_like(state.counters), 0
            for batch, predicted in zip(self._batches, predictions, strict=True):
                for number, frame in enumerate(batch.frames[place] if place < len(batch.frames) else ()):
                    steady = not state.fresh
                    step_packed(self._plan, state, frame)
                    predicted[place, number] = self._answer(state)
                    table += state.counters * steady
                    frames += steady
            return table, frames

        with ThreadPoolExecutor(available_cores()) as pool:
            tables, frames = zip(*pool.map(play, range(max(len(batch.frames) for batch in self._batches))), strict=True)
        given = np.concatenate(predictions)
        task = float(self._loss(tf.constant(given), self._answers, tf.constant(self._labels)))
        logits = self._loss.logits(some(given.reshape(-1, *self._shape)))
        self._logits = logits if self._logits is None else self._logits
        share = self._share(FrameCounts(self._plan, np.sum(tables, axis=0)), max(sum(frames), 1))
        return ReplayTrial(task, share, error(self._logits, logits))

    def _share(self, counts: FrameCounts, frames: int) -> float:
        if not self._by_position:
            sent = {path: count / elements for path, (count, elements) in counts.events().items()}
            return sum(self._weights[path] * count for path, count in sent.items()) / frames
        work = macs_per_row(self._plan) + POSITION_MACS
        shapes = [self._plan.tensors[operation.output].shape for operation in self._plan.operations]
        dense = work * [height * width for height, width, _ in shapes]
        return float((work * counts.rows)[1:].sum() / (dense[1:].sum() * frames))  # the input is always looked at

    @property
    def _shape(self) -> tuple[int, ...]:
        shapes = [self._plan.tensors[output].sample_shape for output in self._plan.outputs]
        return shapes[0] if len(shapes) == 1 else (sum(map(math.prod, shapes)),)

    def _answer(self, state: NumbaState) -> np.ndarray:
        """What the network answers, several outputs laid out as in training."""
        values = [state.value(output) for output in self._plan.outputs]
        return values[0].reshape(self._shape) if len(values) == 1 else np.concatenate([v.ravel() for v in values])

    def _answered(self, teacher: Any) -> Any:
        answer = tf.function(
            lambda frames: answered(teacher, tf.cast(frames, tf.float32)), reduce_retracing=True, autograph=False
        )
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
