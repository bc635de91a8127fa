"""Noticing a training that goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

MOST_ROLLBACKS = 8
"""Rates are halved so often at most: to 1/256."""


class Unsound(Exception):
    """A training step gave what nothing good can follow; the message says what and at which step."""


@dataclass
class LossWatch:
    """Tells a task loss that diverges from one that merely varies.

    It diverges when its running mean is ten times what it was over the first steps, or ten where it was less
    than one: a network that guesses has a cross-entropy of log(classes), which is less than ten for 20,000 classes.
    """

    steps: int = 0
    first: float = 0.0
    mean: float = 0.0

    FIRST = 10
    FACTOR = 10.0
    MEMORY = 0.9

    def see(self, loss: float, step: int) -> None:
        """Take in the task loss of a step.

        Raises:
            Unsound: the loss diverges.
        """
        self.steps += 1
        if self.steps <= self.FIRST:
            self.first += (loss - self.first) / self.steps
            self.mean = self.first
            return
        self.mean = self.MEMORY * self.mean + (1 - self.MEMORY) * loss
        if self.mean > self.FACTOR * max(1.0, self.first):
            raise Unsound(f"The loss diverges, from {self.first:.3g} to {self.mean:.3g}, at step {step}")
