"""Which number each class of a list has: the list's own numbers, those of a class list, or the order of the names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deltafine.video.catalogue import Split
from deltafine.video.layouts.common import MOST_CLASSES, number_labels, whole_number


@dataclass(frozen=True)
class Labelled:
    """A video of a list: its file, label, class number beside a label that is a name, and split."""

    path: Path
    label: str | None
    target: str | None
    split: Split | None


Numbering = tuple[tuple[str, ...], dict[str, int], list[str], bool]
"""Class names, the number of every label, what is to be said, and whether the class list was used."""


NONE = "-1"
"""What stands for an unknown label among class numbers."""


def number_rows(rows: Sequence[Labelled], listed: tuple[str, ...]) -> Numbering:
    """Number the classes.

    Args:
        rows: What the lists say.
        listed: Class names in the order of their numbers, where there is a class list.
    """
    labels = {row.label for row in rows if row.label not in (None, NONE)}
    if any(row.label == NONE for row in rows):
        if all(whole_number(label, MOST_CLASSES) is not None for label in labels):
            classes, indices, said, used = number_rows([row for row in rows if row.label != NONE], listed)
            return classes, indices, [*said, f"The label {NONE} is read as no label."], used
        labels.add(NONE)
    whole = {label: whole_number(label, MOST_CLASSES) for label in labels}
    numbers = {label: number for label, number in whole.items() if number is not None}
    if len(numbers) < len(labels):
        return _of_names(rows, labels, listed)
    if not numbers:
        return (), {}, [], False
    first = _first_number(rows, numbers, listed)
    top = max(numbers.values()) - first
    indices = {label: number - first for label, number in numbers.items()}
    if top < len(listed):
        return listed, indices, [], True
    said = ["The labels begin at 1: class 1 is the model's first output."] if first else []
    return tuple(str(number + first) for number in range(top + 1)), indices, said, False


def _of_names(rows: Sequence[Labelled], labels: set[str], listed: tuple[str, ...]) -> Numbering:
    if labels <= set(listed):
        return listed, {name: number for number, name in enumerate(listed)}, [], True
    targets = {row.label: whole_number(row.target, MOST_CLASSES) for row in rows if row.label and row.target}
    by_number = {number: label for label, number in targets.items() if number is not None}
    if set(by_number.values()) == labels:
        classes = tuple(by_number.get(number, str(number)) for number in range(max(by_number) + 1))
        return classes, {label: number for number, label in by_number.items()}, [], False
    classes, said = number_labels(labels)
    return classes, {name: number for number, name in enumerate(classes)}, said, False


def _first_number(rows: Sequence[Labelled], numbers: dict[str, int], names: tuple[str, ...]) -> int:
    """Whether classes are numbered from 0 or from 1: told by the class folders if they are in a class list."""
    if min(numbers.values()) != 1:
        return 0
    if not names:
        return 1
    place = {name: number for number, name in enumerate(names)}
    told = [
        numbers[row.label] - place[row.path.parent.name]
        for row in rows
        if row.label is not None and row.path.parent.name in place
    ]
    if told:
        return int(sum(told) > len(told) / 2)
    return int(max(numbers.values()) == len(names))
