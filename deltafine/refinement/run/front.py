"""Choosing among the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Sequence

from deltafine.document.history import FrontPoint


def front(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """The points that no other beats in both MAC density and what they are judged by.

    Sparsest first; of equals the earliest.
    """
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda p: (p.mac_density, -p.judged, p.epoch)):
        if not kept or point.judged > kept[-1].judged:
            kept.append(point)
    return kept


def pick(points: Sequence[FrontPoint], original_accuracy: float, max_accuracy_drop: float) -> FrontPoint:
    """The sparsest point within the allowed drop; if there is none, the most accurate one.

    Args:
        points: at least one.
        original_accuracy: of the original model on the same videos.
        max_accuracy_drop: what may be lost, absolute.
    """
    good_enough = [point for point in points if point.judged >= original_accuracy - max_accuracy_drop]
    if good_enough:
        return min(good_enough, key=lambda p: (p.mac_density, -p.judged, p.epoch))
    return max(points, key=lambda p: (p.judged, -p.mac_density, -p.epoch))


def worth_keeping(
    points: Sequence[FrontPoint], original_accuracy: float, max_accuracy_drop: float, most: int
) -> list[FrontPoint]:
    """The point that is picked, and of the rest of the front the sparsest, up to ``most`` in all.

    What is picked in the end was picked ever since it was measured, so it is always among those that were kept.
    """
    chosen = pick(points, original_accuracy, max_accuracy_drop)
    return [chosen, *[point for point in front(points) if point.epoch != chosen.epoch][: most - 1]]
