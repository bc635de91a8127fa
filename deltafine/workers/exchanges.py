"""Sums over all replicas within a step, counted: who has entered fewer of them than the others is behind them.

TensorFlow does not tell which worker a collective operation waits for. All workers take part in the same ones, so the
number that each has entered does. The count is a variable, because that costs a step the least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


class Exchanges:
    """What the replicas of this worker give to the others within steps."""

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.device("CPU:0"):
            self._entered = tf.Variable(0, trainable=False, dtype=tf.int64)

    def entered(self) -> int:
        """How many this worker's replicas have had everything ready for, all together; may be asked in any thread."""
        return int(self._entered.numpy())

    def total(self, x: tf.Tensor) -> tf.Tensor:
        """Sum of a tensor over all replicas, elementwise; for use in each of them. Gradients are summed as well."""
        import tensorflow as tf

        @tf.custom_gradient
        def summed(given: tf.Tensor) -> tuple[tf.Tensor, object]:
            with tf.control_dependencies([given]), tf.device("CPU:0"):
                counted = self._entered.assign_add(1, read_value=False)
            with tf.control_dependencies([counted]):
                ready = tf.identity(given)
            return total(ready), self.total

        result: tf.Tensor = summed(x)
        return result


def total(x: tf.Tensor) -> tf.Tensor:
    """The same, not counted."""
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)
