"""The front and the pick, against trying all pairs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deltafine.document.history import FrontPoint
from deltafine.refinement.run.front import front, pick, worth_keeping

# Few values, so that ties happen.
shares = st.integers(0, 4).map(lambda number: number / 4)


@st.composite
def some_points(draw: st.DrawFn) -> list[FrontPoint]:
    values = draw(st.lists(st.tuples(shares, shares), min_size=1, max_size=12))
    return [
        FrontPoint(epoch=epoch, penalty=1, accuracy=accuracy, mac_density=density, pixel_density=0)
        for epoch, (accuracy, density) in enumerate(values, 1)
    ]


def beats(one: FrontPoint, other: FrontPoint) -> bool:
    """At least as good in both, and better in one; of equals the earlier."""
    if (one.accuracy, one.mac_density) == (other.accuracy, other.mac_density):
        return one.epoch < other.epoch
    return one.accuracy >= other.accuracy and one.mac_density <= other.mac_density


@given(some_points())
def test_the_front_is_what_no_other_point_beats(points: list[FrontPoint]) -> None:
    expected = [point for point in points if not any(beats(other, point) for other in points)]
    assert front(points) == sorted(expected, key=lambda point: point.mac_density)


@given(some_points(), shares, shares)
def test_the_pick_is_the_sparsest_point_within_the_drop(points: list[FrontPoint], original: float, drop: float) -> None:
    chosen = pick(points, original, drop)
    within = [point for point in points if point.accuracy >= original - drop]
    if within:
        assert chosen in within
        assert all(chosen.mac_density <= point.mac_density for point in within)
    else:
        assert all(chosen.accuracy >= point.accuracy for point in points)
    assert chosen in front(points)


@given(some_points(), shares, shares, st.integers(1, 4))
def test_the_final_pick_was_kept_in_every_epoch_since_its_own(
    points: list[FrontPoint], original: float, drop: float, most: int
) -> None:
    chosen = pick(points, original, drop)
    for seen in range(chosen.epoch, len(points) + 1):
        kept = worth_keeping(points[:seen], original, drop, most)
        assert chosen in kept
        assert len(kept) <= most
        assert {point.epoch for point in kept} <= {point.epoch for point in front(points[:seen])}
