"""The training step: task loss plus penalty, weights and thresholds each with a learning rate of their own."""

from __future__ import annotations

import math
import signal
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deltafine.errors import DeltafineError
from deltafine.layers import Stream
from deltafine.model import delta_layers
from deltafine.model.clip_model import with_time
from deltafine.refinement.training import optimizers
from deltafine.refinement.training.averaging import Averages
from deltafine.refinement.training.carried_state import Carried
from deltafine.refinement.training.kept_answers import KeptAnswers
from deltafine.refinement.training.losses import Loss
from deltafine.refinement.training.replicas import Replicas
from deltafine.refinement.training.stability import Unsound
from deltafine.refinement.training.strided import strides_taken_first
from deltafine.refinement.training.teaching import Features, Teaching
from deltafine.refinement.training.trainable import half_precision
from deltafine.settings import RefineSettings
from deltafine.workers import ALONE, Workers


class Trainer:
    """Refines a clip model batch by batch.

    Args:
        student: clip model with delta layers, changed in place.
        teacher: the original as a clip model, or None where nothing is distilled.
        loss: of the task.
        weights: share of all MACs that each delta layer's elements meet, by layer path.
        settings: rates, λ, clipping.
        steps: optimiser steps of the whole training, for the schedules.
        workers: who train; the student was made in their scope.
        features: of the original that the student is to have, beside its answers.
        answers: of the original, on clips that come again; to be kept where no features are followed.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        loss: Loss,
        weights: dict[str, float],
        settings: RefineSettings,
        steps: int,
        workers: Workers = ALONE,
        features: Features | None = None,
        answers: KeptAnswers | None = None,
    ) -> None:
        self.settings = settings
        self.student = student
        by_path = delta_layers(student)
        self.layers = list(by_path.values())
        self._weights = [weights[path] for path in by_path]
        self._student = with_time(student)
        self.teacher = None if teacher is None else with_time(teacher)
        self.loss = loss
        self.teaching = Teaching(self._student, self.teacher, loss, features)
        self._answers = answers
        self._threshold_variables = [layer.log_threshold for layer in self.layers if layer.log_threshold.trainable]
        own = {id(layer.log_threshold) for layer in self.layers}
        self._weight_variables = [v for v in student.trainable_variables if id(v) not in own]
        self._rate = keras.Variable(1.0, trainable=False, dtype="float32", name="rate")
        self._workers = workers
        # The optimisers change the first copy of each variable; it is then copied to the other devices.
        self._own_weights = [workers.own(variable) for variable in self._weight_variables]
        self._own_thresholds = [workers.own(variable) for variable in self._threshold_variables]
        self.stopping, self.saving = 0, False
        self.plan(steps)

    def plan(self, steps: int) -> None:
        """Begin a training of so many optimiser steps; the student stays as it is."""
        settings = self.settings
        self.steps = steps
        self.warmup_steps = optimizers.warmup_steps(settings.warmup, steps)
        self._optimizer = optimizers.of_weights(settings, self._schedule(settings.rate), steps)
        self._optimizer.build(self._own_weights)
        self._threshold_optimizer = optimizers.of_thresholds(
            settings, self._schedule(settings.rate_of_thresholds or 1.0), steps
        )
        self._threshold_optimizer.build(self._own_thresholds)
        horizon = settings.averaged * steps
        self._averages = Averages(self.student, horizon) if horizon > 1 else None
        self.step = 0
        self.set_penalty(0.0)
        self.carried = Carried(self._student) if settings.carried and self.layers else None
        self._compiled: Any = None

    @property
    def state(self) -> list[Any]:
        """All variables that the rest of the training depends on, beside the model's."""
        averages = self._averages.variables if self._averages is not None else []
        return [*self._optimizer.variables, *self._threshold_optimizer.variables, *averages]

    def averaged(self) -> AbstractContextManager[None]:
        """Within it, the student has the average of its latest weights: it is less noisy, and what is kept of it."""
        return self._averages.put_in() if self._averages is not None else nullcontext()

    def go_on_from_here(self) -> None:
        """Average from the weights on that the student has now; the optimisers keep what they have learnt."""
        if self._averages is not None:
            self._averages.restart()

    @property
    def rate(self) -> float:
        """Factor on both learning rates; 1 unless the training had to go back."""
        return float(self._rate)

    @rate.setter
    def rate(self, factor: float) -> None:
        self._rate.assign(factor)

    def _schedule(self, rate: float) -> Any:
        return optimizers.Scaled(optimizers.cosine(rate, self.steps, self.warmup_steps), self._rate)

    def set_thresholds(self, thresholds: dict[str, Any]) -> None:
        """Set the delta layers' thresholds, by layer path."""
        for path, layer in delta_layers(self.student).items():
            layer.set_threshold(thresholds[path])
            if self._averages is not None:
                self._averages.hold(layer.log_threshold)

    def set_penalty(self, strength: float) -> None:
        """Set λ: each layer pays λ times its share of the model's MACs per expected event."""
        self.penalty = strength
        for layer, weight in zip(self.layers, self._weights, strict=True):
            # A number of NumPy: TensorFlow keeps every Python number that it has ever converted.
            layer.penalty.assign(np.float32(strength * weight))

    def train_on_batch(
        self,
        frames: Any,
        labels: Any,
        penalty: float,
        *,
        first: int = 0,
        clips: Sequence[Hashable] | None = None,
        stopping: int = 0,
        saving: bool = False,
    ) -> tuple[float, float, float]:
        """One step on frames (batch, time, height, width, channels) uint8 and labels (batch,) or (batch, time).

        Args:
            frames, labels: of the batch, or of this worker's shard of it.
            penalty: λ, reached over the warm-up.
            first: place in the batch of the first of them.
            clips: names of them, if the same may come again; the original's answers on them may then be kept.
            stopping: a signal that wants this worker to stop; :attr:`stopping` is then the same for all.
            saving: whether this worker thinks that a checkpoint is due; :attr:`saving` is then the same for all.

        Returns:
            (task loss, penalty as it enters the loss, share of clips answered right or NaN without labels)

        Raises:
            Unsound: the loss or its gradient is not a number, and the weights are none any more either.
            DeltafineError: no worker has a clip of this batch.
        """
        rise = min(1.0, (self.step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        self.set_penalty(penalty * rise)
        if self._workers.strategy is None:
            figures = self._alone(frames, labels, clips)
            self.stopping, self.saving = stopping, saving
        else:
            figures = self._with_others(frames, labels, first, stopping, saving)
        self.step += 1
        task, paid, right, norm = (float(figure) for figure in figures)
        if not math.isfinite(task + paid):
            raise Unsound(f"The loss is not a number at step {self.step}")
        if not math.isfinite(norm):
            raise Unsound(f"The gradient is not a number at step {self.step}")
        return task, paid, right

    def answer(self, frames: Any, clips: Sequence[Hashable] | None) -> Any | None:
        """The original's answers on clips, where they are kept; None where a step computes them itself."""
        return None if self._answers is None or clips is None else self._answers.of(frames, clips)

    def _alone(self, frames: Any, labels: Any, clips: Sequence[Hashable] | None) -> Any:
        if self._compiled is None:
            self._compiled = tf.function(self._train_on_batch, reduce_retracing=True, autograph=False)
        state = self.carried.before(frames) if self.carried is not None else []
        answers = self.answer(frames, clips)
        figures, state = self._compiled(state, tf.convert_to_tensor(frames), tf.convert_to_tensor(labels), answers)
        if self.carried is not None:
            self.carried.keep(state)
        return figures

    def _with_others(self, frames: Any, labels: Any, first: int, stopping: int, saving: bool) -> Any:
        state = self.carried.before(frames) if self.carried is not None else []
        begins = self._compiled is None
        if self.loss.by_frame and labels.ndim == 1:  # as where frames have labels of their own
            labels = np.repeat(labels[:, None], frames.shape[1], axis=1)
        if begins:
            # One trace for shards of all sizes: the collectives of all workers have to stay in step.
            of_labels = (None, frames.shape[1]) if self.loss.by_frame else (None,)
            shapes = ((None, *frames.shape[1:]), tf.uint8), (of_labels, tf.int64), ((), tf.int64), ((3,), tf.float32)
            of_state = [tf.TensorSpec((None, *value.shape[1:]), value.dtype) for value in state]
            self._compiled = tf.function(
                self._train_on_shard,
                input_signature=[of_state, *(tf.TensorSpec(shape, dtype) for shape, dtype in shapes)],
                autograph=False,
            )
        asked = [float(stopping == signal.SIGINT), float(stopping == signal.SIGTERM), float(saving)]
        with self._workers.step(first=begins):
            figures, norm, state = self._compiled(state, frames, labels, first, asked)
            task, paid, right, clips, interrupted, terminated, due = figures.numpy().tolist()
        if self.carried is not None:
            self.carried.keep(state)
        self.stopping = signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0
        self.saving = bool(due)
        if not clips:
            raise DeltafineError(
                f"None of the training clips of step {self.step + 1} can be read any more: put the videos back, and go "
                "on with --resume."
            )
        return task, paid, right, norm

    def _train_on_batch(
        self, state: list[Any], frames: Any, labels: Any, answers: Any | None
    ) -> tuple[tuple[Any, ...], list[Any]]:
        clips = tf.cast(frames, tf.float32)
        original = self.teaching.original(clips) if answers is None else (answers, [])
        with tf.GradientTape() as tape, strides_taken_first(self._student):
            half = half_precision(self._student) if self.settings.mixed_precision else nullcontext()
            with half, Stream(state or None, counting=False) as stream:
                predictions, task = self.teaching.loss(clips, original, labels)
            penalty = tf.add_n(self._student.losses) if self._student.losses else tf.constant(0.0)
            total = task + penalty
        weights, thresholds = tape.gradient(total, [self._weight_variables, self._threshold_variables])
        norm = self._apply(weights, thresholds)
        self._average()
        figures = task, penalty, self.loss.right(predictions, labels), norm
        return figures, [tf.stop_gradient(value) for value in stream.state] if state else []

    def _train_on_shard(
        self, state: list[Any], frames: Any, labels: Any, first: Any, stop: Any
    ) -> tuple[Any, Any, list[Any]]:
        strategy = self._workers.strategy
        assert strategy is not None
        variables = [*self._weight_variables, *self._threshold_variables]
        replicas = Replicas(self._workers, self._student, self.teaching, self.loss, variables)
        with (
            strides_taken_first(self._student),
            half_precision(self._student) if self.settings.mixed_precision else nullcontext(),
        ):
            gradients, figures, state = replicas.gradients(state, frames, labels, first, stop)
        count = len(self._weight_variables)
        norm = self._apply(gradients[:count], gradients[count:])
        for variable, own in zip(variables, [*self._own_weights, *self._own_thresholds], strict=True):
            if variable.constraint is not None:
                own.assign(variable.constraint(own))
            for copy in strategy.experimental_local_results(variable.value)[1:]:
                copy.assign(own)
        self._average()
        return figures, norm, state

    def _apply(self, weights: list[Any], thresholds: list[Any]) -> Any:
        """Change weights and thresholds by their gradients, which are clipped; returns the norm that these had."""
        self._optimizer.apply(optimizers.clip(weights, self._own_weights, self.settings.clip_norm), self._own_weights)
        if self._threshold_variables:
            self._threshold_optimizer.apply(
                optimizers.clip(thresholds, self._own_thresholds, self.settings.clip_norm), self._own_thresholds
            )
        return tf.linalg.global_norm([g for g in (*weights, *thresholds) if g is not None])

    def _average(self) -> None:
        if self._averages is not None:
            self._averages.update(self._optimizer.iterations)
