"""Steering λ: a controller must reach its target with any network that answers to λ, and not swing."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.document.history import FrontPoint
from deltafine.refinement.thresholds.budget import Budget
from deltafine.refinement.training.steering import FASTEST, AccuracyController, Steering, TargetController
from deltafine.settings import resolve


def steer(start: float, target: float, slope: float, lag: float, noise: float, steps: int = 400) -> list[float]:
    """Density over a training of a network that follows λ ** -slope with a lag (share of the training)."""
    controller = TargetController(target, steps, penalty=20.0, warmup=steps // 10)
    density, densities = start, []
    for step in range(steps):
        rise = min(1.0, (step + 1) / controller.warmup)
        settled = start * (1 + rise * controller.strength / 20.0) ** -slope
        density *= (settled / density) ** (1 / (lag * steps))
        densities.append(density)
        controller.update(density * math.exp(noise * math.sin(7.3 * step)))
    return densities


@given(
    start=st.floats(0.05, 0.5),
    fall=st.floats(0.3, 0.7),
    slope=st.floats(0.35, 0.8),
    lag=st.floats(0.01, 0.05),
    noise=st.floats(0, 0.2),
)
def test_a_target_is_reached_without_swinging(
    start: float, fall: float, slope: float, lag: float, noise: float
) -> None:
    target = start * fall
    densities = steer(start, target, slope, lag, noise)
    assert densities[-1] == pytest.approx(target, rel=0.15)
    # It comes from above, and does not fall far below on the way.
    assert min(densities) > 0.75 * target


def test_the_ratio_between_clips_and_streams_is_made_up_for() -> None:
    controller = TargetController(0.1, steps=100, penalty=1.0, warmup=0)
    for _ in range(50):
        controller.update(0.2)
    controller.validated(0.1)  # streams show half of what the clips show: the target is met
    before = controller.strength
    for _ in range(50):
        controller.update(0.2)
    assert controller.ratio == pytest.approx(2.0)
    assert controller.strength <= before * 1.5


def test_a_controller_goes_on_from_its_state_as_if_never_stopped() -> None:
    one = TargetController(0.05, steps=60, penalty=3.0, warmup=5)
    for step in range(20):
        one.update(0.3 / (1 + step))
    other = TargetController(**one.state())
    for step in range(20):
        one.update(0.1 / (1 + step))
        other.update(0.1 / (1 + step))
    assert one == other
    assert one.strength == other.strength


def test_the_penalty_stays_within_limits_where_a_target_cannot_be_reached() -> None:
    controller = TargetController(0.001, steps=50, penalty=2.0, warmup=0)
    for _ in range(5000):
        controller.update(0.5)
    assert controller.strength <= 2.0 * 100.0 * 1.0001


def test_accuracy_to_spare_raises_the_penalty_and_overspending_lowers_it() -> None:
    controller = AccuracyController(floor=0.8, scale=0.02, penalty=10.0)
    controller.validated(0.9, first=10.0)
    assert controller.penalty == 20.0
    controller.validated(0.81, first=10.0)
    assert controller.penalty == pytest.approx(20.0 * 2**0.5)
    controller.validated(0.8, first=10.0)
    assert controller.penalty == pytest.approx(20.0 * 2**0.5)
    controller.validated(0.75, first=10.0)
    assert controller.penalty == pytest.approx(10.0 * 2**0.5)
    for _ in range(20):
        controller.validated(1.0, first=10.0)
    assert controller.penalty == 160.0


def test_what_is_lost_early_is_tolerated_for_the_end_wins_it_back() -> None:
    def after(accuracy: float, done: float) -> float:
        controller = AccuracyController(floor=0.8, scale=0.02, penalty=10.0)
        controller.validated(accuracy, first=10.0, done=done)
        return controller.penalty

    lost = 0.78
    assert after(lost, 0.25) == pytest.approx(10.0 * 2 ** (1 / 3))
    assert after(lost, 0.375) == pytest.approx(10.0)
    assert after(lost, 0.75) == after(lost, 1.0) == pytest.approx(5.0)


def test_after_the_last_recalibration_thresholds_lead_to_where_the_drop_is_spent() -> None:
    controller = AccuracyController(floor=0.8, scale=0.02, penalty=10.0)
    assert controller.factor(0.8, 0.9) == 1.0
    assert controller.factor(0.81, 0.9) == controller.factor(0.99, 0.9) == pytest.approx(1.2)
    assert controller.factor(0.795, 0.9) == pytest.approx(1.2**-0.5)
    assert controller.factor(0.79, 0.5) == pytest.approx(1.2 ** (1 / 3))
    assert steering(target_macs=0.1).factor(point(0.1, 0.3), 0.9) == 1.0


def test_gently_more_than_one_drop_is_answered_in_proportion_and_less_towards_the_end() -> None:
    controller = AccuracyController(floor=0.8, scale=0.02, penalty=10.0, gently=True)
    assert controller.left(0.83, 0.0) == 1.0  # with the two drops that are tolerated at the beginning
    assert controller.left(0.83, 1.0) == pytest.approx(0.5 * 0.25)
    assert controller.left(0.95, 1.0) == pytest.approx(0.25)
    assert controller.left(0.77, 0.75) == pytest.approx(-0.5 * (1 - 0.75**2))
    assert controller.factor(0.77, 1.0) == pytest.approx(1.2**-0.25)
    controller.validated(0.83, first=10.0, done=1.0)
    assert controller.penalty == pytest.approx(10.0 * 2**0.125)
    controller.validated(0.55, first=10.0, done=1.0)
    assert controller.penalty == pytest.approx(10.0 * 2**0.125 / 8)  # wrecked: at once, as ever


def test_where_the_drop_is_spent_thresholds_are_not_calibrated_anew() -> None:
    one = steering(max_accuracy_drop=0.02)
    assert not one.spent(point(0.8, 0.3), 0.5)
    assert one.spent(point(0.78, 0.3), 0.5)
    assert one.spent(point(0.8, 0.3), 0.75)
    assert not steering().spent(point(0.1, 0.3), 0.75)  # a fixed λ says how much may be lost


def test_only_a_network_that_has_caught_up_with_its_thresholds_steers() -> None:
    one = steering(max_accuracy_drop=0.02)
    one.after_epoch(point(0.75, 0.3), 0.5, caught_up=False)
    assert one.strength == 4.0
    one.after_epoch(point(0.6, 0.3), 0.5, caught_up=True)
    assert one.strength == 4.0 * (1 / 8)
    other = steering(max_accuracy_drop=0.02, task="regression")
    other.after_epoch(point(0.75, 0.3), 0.5, caught_up=False)
    assert other.strength == 4.0
    other.after_epoch(point(0.75, 0.3), 0.5, caught_up=True)
    assert other.strength == 2.0


def point(accuracy: float, mac: float) -> FrontPoint:
    return FrontPoint(epoch=1, penalty=1.0, accuracy=accuracy, mac_density=mac, pixel_density=0.3, delta_sparsity=0.8)


def steering(**given: Any) -> Steering:
    settings = resolve(model="m", data="d", penalty=4.0, **given)
    return Steering(settings, Budget.of(settings), floor=0.8, steps=100, warmup=10)


def test_without_a_budget_the_penalty_stays() -> None:
    fixed = steering()
    fixed.before_training(point(0.9, 0.3))
    fixed.after_batch(0.5, 20, first_epoch=True)
    fixed.after_epoch(point(0.2, 0.3))
    assert fixed.strength == 4.0


@pytest.mark.parametrize("given", [{}, {"target_macs": 0.05}, {"max_accuracy_drop": 0.02}])
def test_steering_goes_on_from_its_state_as_if_never_stopped(given: dict[str, float]) -> None:
    def first(one: Steering) -> None:
        one.before_training(point(0.9, 0.3))
        for _ in range(30):
            one.after_batch(0.5, 20, first_epoch=True)
        one.after_epoch(point(0.85, 0.2))

    def then(one: Steering) -> float:
        for _ in range(30):
            one.after_batch(0.2, 20, first_epoch=False)
        one.after_epoch(point(0.82, 0.1))
        return one.strength

    one, other = steering(**given), steering(**given)
    first(one)
    other.restore(json.loads(json.dumps(one.state())))
    assert one.strength == other.strength
    assert then(one) == then(other)
    assert (one.strength == 4.0) == (not given)


def test_the_large_default_for_classes_only_falls_and_one_that_was_given_may_rise() -> None:
    gently = 2 ** (1 - 0.75 * 0.5)
    for changes, after in (({}, 60.0), ({"penalty": 4.0, "max_accuracy_drop": 0.02}, 4.0 * gently)):
        settings = resolve(model="m", data="d", **changes)
        one = Steering(settings, Budget.of(settings), floor=0.8, steps=100, warmup=10)
        one.after_epoch(point(0.99, 0.3), 0.5)
        assert one.strength == pytest.approx(after)
        one.after_epoch(point(0.75, 0.3), 1.0)
        assert one.strength < after


def test_a_density_that_falls_too_fast_is_not_pushed_further_whatever_accuracy_is_left() -> None:
    settings = resolve(model="m", data="d")

    def begun() -> Steering:
        one = Steering(settings, Budget.of(settings), floor=0.8, steps=100, warmup=10, epochs=16)
        one.before_training(point(0.9, 0.09))
        return one

    first, pace = begun().strength, 8 ** (-2 / 16)
    for ratio in (1.0, 0.8, pace * 1.01):
        one = begun()
        one.after_epoch(point(0.99, 0.09 * ratio), 0.5)
        assert one.strength > first
        assert one.factor(point(0.99, 0.09 * ratio), 0.5) > 1
    for ratio, left in ((pace * 0.9, 0.9), (pace * 0.6, 0.6), (pace * 0.1, 0.5)):
        one = begun()
        one.after_epoch(point(0.99, 0.09 * ratio), 0.5)
        assert one.strength == pytest.approx(first * left)
        assert one.factor(point(0.99, 0.09 * ratio), 0.5) == 1
        assert one.factor(point(0.7, 0.09 * ratio), 0.5) < 1
        again = begun()
        again.restore(json.loads(json.dumps(one.state())))
        assert again.factor(point(0.99, 0.09 * ratio), 0.5) == 1
        again.after_epoch(point(0.99, 0.09 * ratio), 0.6)  # it stands: accuracy that is left counts again
        assert again.strength > one.strength
    one = begun()
    one.after_epoch(point(0.5, 0.09 * pace * 0.9), 0.5)  # wrecked: as ever
    assert one.strength == pytest.approx(first / 8)


def test_the_large_default_for_classes_is_less_where_many_macs_are_paid_for() -> None:
    def first(density: float, **given: Any) -> float:
        settings = resolve(model="m", data="d", **given)
        steering = Steering(settings, Budget.of(settings), 0.9, steps=100, warmup=10)
        point = FrontPoint(epoch=0, penalty=0, accuracy=0.9, mac_density=density, pixel_density=density)
        steering.before_training(point)
        return steering.strength

    assert first(0.02) == 60.0
    assert first(0.24) == pytest.approx(15.0)
    assert first(0.24, penalty=60.0, max_accuracy_drop="1%") == 60.0
    assert first(0.24, task="regression") == 2.0


def test_a_network_that_is_wrecked_is_let_off_at_once() -> None:
    controller = AccuracyController(floor=0.8, scale=0.01, penalty=40.0)
    controller.validated(0.55, first=40.0, done=0.25)
    assert controller.penalty == 5.0
    controller.validated(0.79, first=40.0, done=1.0)
    assert controller.penalty == pytest.approx(2.5)


PACE = FASTEST ** (-2 / 16)


def paced(floor: float = 0.8, penalty: float = 2.0) -> Steering:
    settings = resolve(model="m", data="d", threshold_learning_rate=0.01, penalty=penalty, max_accuracy_drop="1%")
    return Steering(settings, Budget.of(settings), floor, steps=1600, warmup=400, epochs=16, paced=True)


@given(
    start=st.floats(0.1, 0.6),
    share=st.floats(0.25, 0.8),
    slope=st.floats(0.35, 0.8),
    lag=st.floats(0.01, 0.05),
    luck=st.lists(st.floats(-0.012, 0.012), min_size=16, max_size=16),
)
def test_a_paced_density_falls_to_where_accuracy_ends_and_no_noise_of_accuracy_makes_it_swing(
    start: float, share: float, slope: float, lag: float, luck: list[float]
) -> None:
    ends = start * share
    one, density, densities = paced(), start, []
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.85, mac_density=start, pixel_density=start))
    for epoch in range(16):
        for step in range(100 * epoch, 100 * epoch + 100):
            rise = min(1.0, (step + 1) / 400)
            settled = start * (1 + rise * one.strength / 2.0) ** -slope
            density *= (settled / density) ** (1 / (lag * 1600))
            one.after_batch(1.5 * density, 100, first_epoch=epoch == 0)
        densities.append(density)
        accuracy = 0.85 if density > ends else 0.85 - 0.3 * math.log(ends / density)
        one.after_epoch(
            FrontPoint(epoch=1, penalty=1, accuracy=accuracy + luck[epoch], mac_density=density, pixel_density=1),
            (epoch + 1) / 16,
        )
    assert min(densities) > 0.5 * ends
    assert max(densities[-4:]) < 2.0 * max(ends, start * PACE**9)
    rises = [after / before for before, after in itertools.pairwise(densities[4:])]
    assert max(rises) < 1.3


@pytest.mark.parametrize(
    ("judged", "density", "done", "aim"),
    [
        (0.85, 0.2, 0.8, 0.2 * 0.75),  # at most so far ahead
        (0.85, 0.4, 0.8, 0.4 * 0.75),
        (0.85, 0.05, 0.8, 0.05 * PACE),  # it was faster
        (0.85, 0.2, 0.9, 0.2 * PACE),  # the end of the training asks for no more
        (0.79, 0.2, 1.0, 0.2),  # a little outside: it stays
        (0.75, 0.2, 1.0, 0.2 / PACE),  # far outside: it rises
        (0.77, 0.2, 0.25, 0.2 * 0.75),  # at large rates, more is tolerated
        (0.72, 0.2, 0.25, 0.2),  # and it does not rise
    ],
)
def test_the_aim_of_a_paced_density_follows_accuracy(judged: float, density: float, done: float, aim: float) -> None:
    one = paced()
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.85, mac_density=0.2, pixel_density=0.2))
    one.after_epoch(FrontPoint(epoch=1, penalty=2, accuracy=judged, mac_density=density, pixel_density=0.2), done)
    assert one.state()["target"]["aim"] == pytest.approx(aim)
    assert one.factor(FrontPoint(epoch=1, penalty=2, accuracy=judged, mac_density=density, pixel_density=1), 1.0) == 1


def test_what_calibration_lost_is_tolerated_until_it_is_won_back() -> None:
    one = paced()
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.4, mac_density=0.3, pixel_density=1))
    low = FrontPoint(epoch=1, penalty=2, accuracy=0.6, mac_density=0.2, pixel_density=1)
    one.after_epoch(low, 0.1)
    assert one.state()["target"]["aim"] < 0.2
    one.after_epoch(low.model_copy(update={"accuracy": 0.81}), 0.2)
    one.after_epoch(low.model_copy(update={"mac_density": 0.18}), 0.3)
    one.after_epoch(low.model_copy(update={"mac_density": 0.18}), 0.3)
    assert one.state()["target"]["aim"] >= 0.18


def test_a_paced_training_goes_on_from_its_state_and_from_an_earlier_epoch() -> None:
    def epoch(one: Steering, density: float, judged: float = 0.85) -> FrontPoint:
        for _ in range(100):
            one.after_batch(density, 100, first_epoch=False)
        found = FrontPoint(epoch=1, penalty=one.strength, accuracy=judged, mac_density=density, pixel_density=1)
        one.after_epoch(found, 0.5)
        return found

    one, other = paced(), paced()
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.85, mac_density=0.3, pixel_density=1))
    good = [epoch(one, density) for density in (0.3, 0.3, 0.3, 0.28, 0.25)][-1]
    assert one.strength > 2.0
    other.restore(json.loads(json.dumps(one.state())))
    assert one.strength == other.strength
    bad = epoch(one, 0.1, judged=0.5)
    assert one.wrecked(bad, 0.6)
    assert epoch(other, 0.1, judged=0.5) == bad
    for each in (one, other):
        each.go_back(good)
    assert one.state() == other.state()
    assert one.state()["target"]["aim"] == 0.25
    before = one.strength
    epoch(one, 0.25)
    assert one.strength > 0.9 * before


def test_a_paced_training_without_a_penalty_has_none() -> None:
    one = paced(penalty=0.0)
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.85, mac_density=0.3, pixel_density=1))
    bad = FrontPoint(epoch=1, penalty=0, accuracy=0.5, mac_density=0.1, pixel_density=1)
    one.after_epoch(bad, 0.1)
    for earlier in (None, bad):
        one.go_back(earlier)
        assert one.strength == 0


def test_a_paced_training_goes_on_where_nothing_is_sent() -> None:
    one = paced()
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.85, mac_density=0.3, pixel_density=1))
    for _ in range(500):
        one.after_batch(0.3, 100, first_epoch=False)
    one.after_epoch(FrontPoint(epoch=1, penalty=2, accuracy=0.85, mac_density=0.0, pixel_density=0), 0.3)
    assert one.strength < 1e4


def test_a_training_that_followed_accuracy_goes_on_as_it_was_begun() -> None:
    before = {"target": None, "spending": 0.5, "pace": [0.2, 1.0], "began": 0.85}
    for state in (before, {name: before[name] for name in ("target", "spending")}):  # still earlier
        one = paced()
        one.restore(state)
        one.after_batch(0.2, 100, first_epoch=False)
        assert one.strength == 0.5
        one.after_epoch(FrontPoint(epoch=1, penalty=2, accuracy=0.85, mac_density=0.2, pixel_density=1), 0.3)
        assert one.strength > 0.5
        assert one.state()["paced"] is None


def test_a_paced_training_may_begin_far_outside_the_budget_and_not_fall_back_there() -> None:
    one = paced()
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.4, mac_density=0.3, pixel_density=1))
    low = FrontPoint(epoch=2, penalty=2, accuracy=0.45, mac_density=0.25, pixel_density=1)
    assert not one.wrecked(low, 0.5)
    one.after_epoch(FrontPoint(epoch=1, penalty=2, accuracy=0.82, mac_density=0.25, pixel_density=1), 0.1)
    assert one.wrecked(low, 0.1)
    bad = low.model_copy(update={"accuracy": 0.66})
    assert not one.wrecked(bad, 0.1)  # early, more is tolerated
    assert one.wrecked(bad, 0.6)
    other = paced()
    other.restore(one.state())
    assert other.wrecked(low, 0.6)


def test_a_paced_training_that_goes_back_to_its_start_has_half_of_the_penalty_each_time() -> None:
    one = paced(penalty=40.0)
    one.before_training(FrontPoint(epoch=0, penalty=0, accuracy=0.85, mac_density=0.3, pixel_density=1))
    before = one.strength
    for share in (2, 4, 8):
        one.after_epoch(FrontPoint(epoch=1, penalty=4, accuracy=0.4, mac_density=0.01, pixel_density=1), 0.1)
        one.go_back(None)
        assert one.strength == pytest.approx(before / share)
        assert one.state()["target"]["aim"] == 0.3
