"""The learning rates of a training, short ones among them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from deltafine.refinement.training.optimizers import cosine, of_weights, warmup_steps
from deltafine.settings import resolve

RATE = 0.01


def rates(steps: int, warmup: float) -> list[float]:
    schedule = cosine(RATE, steps, warmup_steps(warmup, steps))
    return [float(schedule(step)) for step in range(steps)]


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13, 30])
def test_every_step_of_a_short_training_has_a_rate_above_zero(steps: int, warmup: float) -> None:
    found = rates(steps, warmup)
    assert min(found) >= 0.01 * RATE * (1 - 1e-6)
    assert max(found) == pytest.approx(RATE, rel=1e-6), "and one of them the whole rate"


def test_a_training_of_one_step_has_the_whole_rate() -> None:
    assert rates(1, 0.1) == [pytest.approx(RATE)]


def test_but_for_its_first_step_a_long_training_rises_linearly_and_falls_along_a_cosine() -> None:
    found = np.array(rates(400, 0.1))
    step = np.arange(400)
    rise = RATE * step[:40] / 40
    fall = RATE * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (step[40:] - 40) / 360)))
    assert found[0] == pytest.approx(RATE / 80)
    np.testing.assert_allclose(found[1:], np.concatenate([rise, fall])[1:], rtol=1e-4)


def test_gradients_are_not_collected_over_more_steps_than_there_are() -> None:
    weight = keras.Variable(np.ones(3, "float32"))
    optimizer = of_weights(resolve(model="m", data="d", accumulate=8), cosine(RATE, 2, 1), steps=2)
    optimizer.build([weight])
    for _ in range(2):
        optimizer.apply([np.ones(3, "float32")], [weight])
    assert (np.asarray(weight) < 1).all()
