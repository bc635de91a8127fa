"""Names beside the points of a plot, placed where they cover neither each other nor another named point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_CHARACTER, _LINE = 7.3, 13.0
"""Width of a bold character in the widest of the fonts and height of a line of the plot's writing, in its units."""
_AWAY = 10.0
"""From the middle of a point to its name."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class NamedPoint:
    """A point at (x, y) of the drawing, its name, and its colour class."""

    x: float
    y: float
    name: str
    colour: str


@dataclass(frozen=True)
class NamedLevel:
    """A horizontal line at y across the drawing, its name, and its colour class."""

    y: float
    name: str
    colour: str


def labels(
    points: Sequence[NamedPoint],
    inside: Box,
    others: Iterable[tuple[float, float]] = (),
    levels: Sequence[NamedLevel] = (),
) -> list[Markup]:
    """A text for each point: to its right, left, above or below, whichever is free first; then one for each level.

    Args:
        points: with their names.
        inside: where names may stand.
        others: (x, y) of points without names, which are covered only where there is no other place.
        levels: named above or below their line, at its right end, its left end or between; their lines are covered
            only where there is no other place.
    """
    small: list[Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in others]
    lines: list[Box] = [(inside[0], one.y - 1, inside[2], one.y + 1) for one in levels]
    taken: list[Box] = [(one.x - 7, one.y - 7, one.x + 7, one.y + 7) for one in points]
    parts = []
    for number, one in enumerate(points):
        kept = [box for place, box in enumerate(taken) if place != number]
        box = _free(_around(one), inside, kept, [*small, *lines])
        taken.append(box)
        parts.append(_text(box, one))
    for level in levels:
        box = _free(_along(level, inside), inside, taken, small)
        taken.append(box)
        parts.append(_text(box, level))
    return parts


def _free(boxes: Sequence[Box], inside: Box, taken: Sequence[Box], small: Sequence[Box]) -> Box:
    """The first that covers nothing, else nothing that is taken, else the first inside."""
    within = [box for box in boxes if _within(box, inside)]
    free = [box for box in within if not any(_overlap(box, other) for other in taken)]
    clear = [box for box in free if not any(_overlap(box, other) for other in small)]
    return (clear or free or within or list(boxes))[0]


def _text(box: Box, named: NamedPoint | NamedLevel) -> Markup:
    return Markup('<text class="name {}" x="{}" y="{}">{}</text>').format(
        named.colour, round(box[0], 1), round(box[3] - 3, 1), named.name
    )


def _along(level: NamedLevel, inside: Box) -> list[Box]:
    wide = _CHARACTER * len(level.name)
    room = max(0.0, inside[2] - inside[0] - wide)
    return [
        (left, top, left + wide, top + _LINE)
        for left in (inside[0] + room * place / 4 for place in (4, 3, 2, 1, 0))
        for top in (level.y - 2 - _LINE, level.y + 2)
    ]


def _around(one: NamedPoint) -> list[Box]:
    wide = _CHARACTER * len(one.name)
    left, top = one.x - wide / 2, one.y - _LINE / 2
    corners = [
        (one.x + _AWAY, top),
        (one.x - _AWAY - wide, top),
        (left, one.y - _AWAY - _LINE),
        (left, one.y + _AWAY),
        (one.x + 4, one.y - _AWAY - _LINE),
        (one.x - 4 - wide, one.y + _AWAY),
    ]
    return [(x, y, x + wide, y + _LINE) for x, y in corners]


def _within(box: Box, inside: Box) -> bool:
    return box[0] >= inside[0] and box[1] >= inside[1] and box[2] <= inside[2] and box[3] <= inside[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
