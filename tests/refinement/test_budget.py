"""Steering λ: a controller must reach its target with any network that answers to λ, and not swing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.refinement import resolve
from deltafine.refinement.budget import AccuracyController, Budget, TargetController
from deltafine.refinement.history import FrontPoint
from deltafine.refinement.trim import to_accuracy, to_density


def point(accuracy: float = 0.9, mac: float = 0.1, pixels: float = 0.3, sparsity: float = 0.8) -> FrontPoint:
    return FrontPoint(
        epoch=1, penalty=1.0, accuracy=accuracy, mac_density=mac, pixel_density=pixels, delta_sparsity=sparsity
    )


def budget(**settings: float) -> Budget:
    return Budget.of(resolve(model="m", data="d", **settings))


def test_the_budget_is_about_the_figure_that_is_named() -> None:
    assert budget(target_macs=0.05).density_of(point()) == 0.1
    assert budget(target_pixels=0.05).density_of(point()) == 0.3
    by_sparsity = budget(target_sparsity=0.95)
    assert by_sparsity.density == pytest.approx(0.05)
    assert by_sparsity.density_of(point()) == pytest.approx(0.2)


def test_reached_is_within_five_percent() -> None:
    aim = budget(target_macs=0.1)
    assert aim.reached(point(mac=0.105))
    assert aim.reached(point(mac=0.0955))
    assert not aim.reached(point(mac=0.106))
    assert not aim.reached(point(mac=0.094))
    assert budget().reached(point(mac=0.9))


def test_a_drop_is_spent_only_where_the_user_names_one() -> None:
    assert not budget().spend
    assert budget().drop == 0.01
    assert budget(max_accuracy_drop=0.01).spend
    assert not budget(max_accuracy_drop=0.01, target_macs=0.1).spend


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
    controller.validated(0.5, first=10.0)
    assert controller.penalty == pytest.approx(10.0 * 2**0.5)
    for _ in range(20):
        controller.validated(1.0, first=10.0)
    assert controller.penalty == 160.0


@given(st.floats(0.3, 3.0), st.floats(0.3, 2.5))
def test_one_factor_on_the_steps_closes_what_is_left(away: float, exponent: float) -> None:
    aim = budget(target_macs=0.1)
    start = point(mac=0.1 * away)

    def measure(scale: float) -> FrontPoint:
        return point(mac=start.mac_density * scale**-exponent)

    tried = to_density(aim, start, measure)
    best = min([start, *tried], key=lambda found: abs(math.log(found.mac_density / 0.1)))
    if 0.3 <= away ** (1 / exponent) <= 3.5:
        assert aim.reached(best)
    assert len(tried) <= 7


def test_where_the_target_is_met_nothing_is_tried() -> None:
    assert to_density(budget(target_macs=0.1), point(mac=0.101), lambda scale: point(mac=1 / 0)) == []


def test_accuracy_is_spent_down_to_the_floor() -> None:
    def measure(scale: float) -> FrontPoint:
        return point(accuracy=0.9 - 0.05 * math.log(scale), mac=0.1 / scale).model_copy(update={"step_scale": scale})

    tried = to_accuracy(0.85, measure)
    best = max(found.step_scale for found in tried if found.accuracy >= 0.85)
    assert best <= math.e < best * 1.1**1.01


def test_an_accuracy_that_cannot_be_spared_is_not_spent() -> None:
    tried = to_accuracy(0.85, lambda scale: point(accuracy=0.5))
    assert tried
    assert not [found for found in tried if found.accuracy >= 0.85]
