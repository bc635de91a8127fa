"""What a run is to come to, and the one factor on the steps that closes what is left of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.document.history import FrontPoint
from deltafine.refinement.thresholds.budget import Budget
from deltafine.refinement.thresholds.trimming import to_accuracy, to_density
from deltafine.settings import resolve

DOCS = Path(__file__).parents[2] / "docs"


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
    assert (budget().drop, budget().allowed) == (0.008, 0.01)  # other recordings lose more
    assert budget(max_accuracy_drop=0.01).spend
    assert not budget(max_accuracy_drop=0.01, target_macs=0.1).spend


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
        return point(accuracy=0.9 - 0.05 * math.log(scale), mac=0.1 / scale).model_copy(
            update={"threshold_scale": scale}
        )

    tried = to_accuracy(0.85, measure)
    best = max(found.threshold_scale for found in tried if found.accuracy >= 0.85)
    assert best <= math.e < best * 1.1**1.01


def test_an_accuracy_that_cannot_be_spared_is_not_spent() -> None:
    tried = to_accuracy(0.85, lambda scale: point(accuracy=0.5))
    assert tried
    assert not [found for found in tried if found.accuracy >= 0.85]


@pytest.mark.parametrize(("quality", "allowed"), [("classes", 0.01), ("numbers", 0.05)])
def test_the_default_is_the_documented_one(quality: str, allowed: float) -> None:
    default = Budget.of(resolve(model="m", data="d"), quality)
    assert (default.allowed, default.asked_for, default.steers) == (allowed, False, True)
    assert default.drop == pytest.approx(allowed * (1 - 1 / 5))
    words = {"classes": "| 1 point |", "numbers": "units of the labels' spread | error | 0.05 |"}[quality]
    assert words in (DOCS / "refine.md").read_text(encoding="utf-8")
