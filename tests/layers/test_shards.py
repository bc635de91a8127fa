"""Random numbers of a clip are its own, whichever shard of the batch a replica holds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.layers.replica_shard import shard_of_batch, uniform


@pytest.mark.parametrize("shape", [(7, 5, 3), (8, 4, 4, 2), (5, 1)])
@pytest.mark.parametrize("seed", [3, 2**31 + 5, 2**40])
def test_parts_draw_what_the_whole_batch_draws(shape: tuple[int, ...], seed: int) -> None:
    whole = uniform(tf.constant(shape), keras.random.SeedGenerator(seed)).numpy()
    assert whole.min() < -0.5 < 0.5 < whole.max() or whole.size < 8
    for begin in range(shape[0]):
        for end in range(begin, shape[0] + 1):
            with shard_of_batch(tf.constant(begin), True):
                shard = uniform(tf.constant((end - begin, *shape[1:])), keras.random.SeedGenerator(seed))
            np.testing.assert_array_equal(shard, whole[begin:end])
