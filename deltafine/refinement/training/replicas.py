"""The gradient of a step by several replicas of a network, each on its shard of the batch.

Every term of the loss is a mean over clips. Each replica counts its own mean with its share of the clips, so that the
sum over all replicas is the mean over the whole batch, whatever their number and however uneven their shards; those of
the last, smaller batch may be empty. Statistics of BatchNormalization are those of the whole batch too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from deltafine.layers import Stream
from deltafine.layers.replica_shard import shard_of_batch
from deltafine.model import keras_private
from deltafine.refinement.training.batchnorm import statistics_over_all
from deltafine.refinement.training.losses import Loss
from deltafine.refinement.training.teaching import Teaching
from deltafine.workers import Workers

SEEDS_APART = 1_000_003
"""Between the seeds of two replicas, for noise that is not drawn clip by clip, such as dropout."""


class Replicas:
    """The replicas of a student on all devices of all workers.

    Args:
        workers: with a strategy.
        student: (batch, time, ...) to predictions along time; its variables were made in the strategy's scope.
        teaching: the student's, with its teacher.
        loss: of the task.
        variables: that gradients are wanted of.
    """

    def __init__(
        self, workers: Workers, student: keras.Model, teaching: Teaching, loss: Loss, variables: Sequence[Any]
    ) -> None:
        self._workers = workers
        self._student, self._teaching = student, teaching
        self._loss = loss
        self._variables = list(variables)

    def gradients(
        self, state: list[Any], frames: Any, labels: Any, first: Any, stop: Any
    ) -> tuple[list[Any], Any, list[Any]]:
        """Of the loss of the whole batch, of which this worker holds a shard; for use in a graph.

        Args:
            state: what this worker's clips start from, (rows, ...) for each delta layer; empty if from nothing.
            frames, labels: this worker's shard.
            first: place of its first clip in the whole batch, scalar int64.
            stop: (n,) float32 to be summed over the replicas.

        Returns:
            The gradients, 0 where a variable has none; (4 + n,) float32: task loss, penalty, share of clips
            answered right, number of clips, and ``stop``; and the state that the clips leave, if there was one.
        """
        strategy = self._workers.strategy
        assert strategy is not None
        with ExitStack() as contexts:
            # The replicas of one process are traced in turns: what is set on shared layers is set around all of them.
            contexts.enter_context(statistics_over_all(self._student, self._workers.total))
            contexts.enter_context(_noise_of_its_own(self._student))
            paid = contexts.enter_context(_losses_by_replica(self._student))
            results = strategy.run(partial(self._on_one, paid), args=(state, frames, labels, first, stop))
        gradients, figures, left = (strategy.experimental_local_results(result) for result in results)
        states = [tf.concat(rows, axis=0) for rows in zip(*left, strict=True)] if state else []
        return list(gradients[0]), figures[0], states

    def _on_one(
        self, paid: Callable[[], list[Any]], state: list[Any], frames: Any, labels: Any, first: Any, stop: Any
    ) -> tuple[tuple[Any, ...], Any, tuple[Any, ...]]:
        context = tf.distribute.get_replica_context()
        replicas = self._workers.replicas
        which = tf.cast(context.replica_id_in_sync_group % replicas, tf.int64)
        rows = tf.shape(labels, out_type=tf.int64)[0]
        begin, end = rows * which // replicas, rows * (which + 1) // replicas
        real = end > begin
        # TensorFlow's convolutions cannot do with an empty batch: a black clip stands in, and counts nowhere.
        empty = tf.cast(tf.logical_not(real), tf.int64)
        clips, *state = (
            tf.ensure_shape(tf.pad(given[begin:end], [[0, empty], *[[0, 0]] * (len(given.shape) - 1)]), given.shape)
            for given in (frames, *state)
        )
        clips = tf.cast(clips, tf.float32)
        labels = tf.pad(labels[begin:end], [[0, empty], *[[0, 0]] * (len(labels.shape) - 1)], constant_values=-1)
        original = self._teaching.original(clips)
        counts = tf.stack(
            [
                self._loss.counted(labels, original[0]) * tf.cast(real, tf.float32),
                tf.cast(end - begin, tf.float32),
                tf.cast(tf.math.count_nonzero(labels >= 0), tf.float32),
            ]
        )
        of_all = self._workers.total(counts)
        shares = tf.math.divide_no_nan(counts, of_all)
        with (
            tf.GradientTape() as tape,
            shard_of_batch(first + begin, real),
            Stream(state or None, counting=False) as stream,
        ):
            predictions, task = self._teaching.loss(clips, original, labels)
            task = _unless_empty(counts[0], task) * shares[0]
            losses = [*paid(), *_regularisation(self._student)]
            penalty = (tf.add_n(losses) if losses else tf.constant(0.0)) * shares[1]
            total = task + penalty
        gradients = tape.gradient(total, self._variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        right = _unless_empty(counts[2], self._loss.right(predictions, labels)) * counts[2]
        figures = tf.concat([tf.stack([task, penalty, right]), stop], axis=0)
        *gradients, figures = _sum(self._workers.total, [*map(tf.convert_to_tensor, gradients), figures])
        right = figures[2] / of_all[2]
        figures = tf.concat([figures[:2], tf.stack([right, of_all[1]]), figures[3:]], axis=0)
        left = tuple(tf.stop_gradient(value)[: end - begin] for value in stream.state) if state else ()
        return tuple(gradients), figures, left


def _unless_empty(count: Any, mean: Any) -> Any:
    """The mean over so many, 0 over none."""
    return tf.where(count > 0, mean, 0.0)


def _sum(total: Callable[[Any], Any], tensors: list[Any]) -> list[Any]:
    """Sums over all replicas, in one collective for each type of numbers."""
    sums: list[Any] = [None] * len(tensors)
    for dtype in sorted({tensor.dtype.name for tensor in tensors}):
        places = [place for place, tensor in enumerate(tensors) if tensor.dtype.name == dtype]
        flat = total(tf.concat([tf.reshape(tensors[place], [-1]) for place in places], axis=0))
        pieces = tf.split(flat, [tensors[place].shape.num_elements() for place in places])
        for place, piece in zip(places, pieces, strict=True):
            sums[place] = tf.reshape(piece, tensors[place].shape)
    return sums


def _regularisation(model: keras.Model) -> list[Any]:
    return [v.regularizer(v) for v in model.trainable_variables if v.regularizer is not None]


@contextmanager
def _losses_by_replica(model: keras.Model) -> Iterator[Callable[[], list[Any]]]:
    """Losses that layers add, by the replica that does: Keras keeps one list for all of them."""
    local = threading.local()

    def added() -> list[Any]:
        if not hasattr(local, "losses"):
            local.losses = []
        losses: list[Any] = local.losses
        return losses

    layers = [layer for layer in keras_private.layers_within(model) if isinstance(layer, keras.layers.Layer)]
    for layer in layers:
        layer.add_loss = lambda loss: added().append(loss)
    try:
        yield added
    finally:
        for layer in layers:
            del layer.add_loss


@contextmanager
def _noise_of_its_own(model: keras.Model) -> Iterator[None]:
    """Within the block, every replica draws other noise for what is not drawn clip by clip, such as dropout."""
    generators = {
        id(layer.seed_generator): layer.seed_generator
        for layer in keras_private.layers_within(model)
        if isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
    }

    def apart(drawn: Callable[..., Any]) -> Callable[..., Any]:
        def next_seed(ordered: bool = True) -> Any:
            seed = drawn(ordered=ordered)
            replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, seed.dtype)
            return seed + tf.stack([replica * SEEDS_APART, tf.zeros_like(replica)])

        return next_seed

    for generator in generators.values():
        generator.next = apart(generator.next)
    try:
        yield
    finally:
        for generator in generators.values():
            del generator.next
