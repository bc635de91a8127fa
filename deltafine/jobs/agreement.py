"""How far the answers of several runtimes to the same frames agree, and how good they are by the labels."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from deltafine.jobs.answers import OutputKind, flat
from deltafine.video.labels import numbers_of


class RuntimeAgreement:
    """Compares answers to those of one of the runtimes, frame by frame, as soon as all of them have answered.

    Args:
        names: of the runtimes; each answers all frames in the same order.
        reference: the one that the others are compared with.
        of_classes: whether an answer is one score per class, at one place or at many; else it is numbers.
        labels: of the frames, in their order: a class, or a number; None where there is none.
    """

    def __init__(
        self, names: Iterable[str], reference: str, *, of_classes: bool, labels: Sequence[float | None] = ()
    ) -> None:
        self._waiting: dict[str, deque[np.ndarray]] = {name: deque() for name in names}
        self._reference, self._of_classes = reference, of_classes
        self._off = dict.fromkeys(self._waiting, 0.0)  # shares that differ, or squares of errors
        self._labels = labels
        self._missed = dict.fromkeys(self._waiting, 0.0)  # the same, against the labels
        self._labelled: list[float] = []
        self._frames = 0
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def heard(self, name: str, prediction: Any) -> None:
        """The next answer of a runtime."""
        values = np.asarray(flat(prediction)[0])
        self._waiting[name].append(values.argmax(-1) if self._of_classes else values.astype(np.float64))
        while all(self._waiting.values()):
            self._compare({one: answers.popleft() for one, answers in self._waiting.items()})

    def _compare(self, answers: dict[str, np.ndarray]) -> None:
        right = answers[self._reference]
        label = self._labels[self._frames] if self._frames < len(self._labels) else None
        self._frames += 1
        if label is not None and right.size == 1:
            self._labelled.append(label)
            for name, answer in answers.items():
                self._missed[name] += float(
                    answer.item() != label if self._of_classes else (answer.item() - label) ** 2
                )
        if not self._of_classes:
            self._sum, self._squares = self._sum + right, self._squares + right**2
        for name, answer in answers.items():
            answer = answer.reshape(right.shape)
            self._off[name] += float(np.mean(answer != right) if self._of_classes else np.sum((answer - right) ** 2))

    def fidelity(self, name: str) -> float | None:
        """Share of the answers that are those of the reference; None of numbers."""
        return 1 - self._off[name] / self._frames if self._of_classes and self._frames else None

    def error(self, name: str) -> float | None:
        """Of numbers, the error to those of the reference / their spread, root mean square; None of classes."""
        if self._of_classes or not self._frames:
            return None
        spread = float(np.sum(self._squares - self._sum**2 / self._frames))
        return math.sqrt(self._off[name] / spread) if spread > 0 else None

    def accuracy(self, name: str) -> float | None:
        """Share of the frames with a label that are answered with it; None of numbers, and without labels."""
        if not self._of_classes or not self._labelled:
            return None
        return 1 - self._missed[name] / len(self._labelled)

    def label_error(self, name: str) -> float | None:
        """Of numbers, the error to the labels / their spread, root mean square; None of classes, and without labels."""
        spread = float(np.var(self._labelled)) if self._labelled and not self._of_classes else 0.0
        return math.sqrt(self._missed[name] / len(self._labelled) / spread) if spread > 0 else None


def answers_by_label(classes: Sequence[str], output: OutputKind, size: int) -> list[float | None]:
    """The answer that each label of a data set asks for, by its index; None for one that the output does not have.

    Args:
        classes: of the data set; of labels that are numbers, these in words.
        output: the one output of the model.
        size: how many values it has.
    """
    if output.kind == "numbers":
        values = numbers_of(classes) if size == 1 else ()
        return [value if math.isfinite(value) else None for value in values] or [None] * len(classes)
    if output.classes:
        places = {name: place for place, name in enumerate(output.classes)}
        return [places.get(name) for name in classes]
    return [*range(size)] if output.kind == "classes" and len(classes) == size else [None] * len(classes)
