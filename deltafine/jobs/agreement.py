"""How far the answers of several runtimes to the same frames agree."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from deltafine.jobs.answers import flat


class RuntimeAgreement:
    """Compares answers to those of one of the runtimes, frame by frame, as soon as all of them have answered.

    Args:
        names: of the runtimes; each answers all frames in the same order.
        reference: the one that the others are compared with.
        of_classes: whether an answer is one score per class, at one place or at many; else it is numbers.
    """

    def __init__(self, names: Iterable[str], reference: str, *, of_classes: bool) -> None:
        self._waiting: dict[str, deque[np.ndarray]] = {name: deque() for name in names}
        self._reference, self._of_classes = reference, of_classes
        self._off = dict.fromkeys(self._waiting, 0.0)  # shares that differ, or squares of errors
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
        self._frames += 1
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
