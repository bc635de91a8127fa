"""What an export format is: one class in one file that writes a refined model for a receiver, and reads it back.

``deltafine.exporting.FORMATS`` holds those that there are. CONTRIBUTING.md has a worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import keras
    import numpy as np


@dataclass(frozen=True)
class Agreement:
    """How a written model compares with the Keras model that it was made of, on real frames.

    Attributes:
        frames: inputs compared.
        largest_difference: of any output, in units of the output.
        same_class: share of inputs whose largest output is at the same index.
        of: whether the inputs are frames or clips.
    """

    frames: int
    largest_difference: float
    same_class: float
    of: Literal["frames", "clips"] = "frames"

    @property
    def sentence(self) -> str:
        return (
            f"on {self.frames} {self.of} of the videos the largest difference to the Keras model is "
            f"{self.largest_difference:.2g}, the same class on {self.same_class:.1%}"
        )


class ExportFormat(ABC):
    """A kind of file that a refined model is exported as.

    What is made is written, then read back as the receiver reads it, and compared with what it was made of.
    """

    name: ClassVar[str]
    """As it is chosen, such as ``tflite``."""
    suffix: ClassVar[str]
    """Of its files, such as ``.tflite``."""
    endings: ClassVar[tuple[str, ...]] = ()
    """The only ones that its files may have; () for any."""
    forms: ClassVar[tuple[str, ...]] = ("stripped", "quantized")
    """The forms of the model that it holds (see ``forms``); () for one that has no network in it."""
    compared: ClassVar[Literal["must", "may", "no"]] = "must"
    """Whether real frames are compared: ``must``, so that without videos nothing is written unless the user says so;
    ``may``, where there are videos; ``no``, where it has no network in it."""

    def file_name(self, form: str) -> str:
        """What a file of it is called."""
        return f"{form if self.forms else self.name}{self.suffix}"

    @abstractmethod
    def make(self, refined: keras.Model, *, form: str = "stripped", frames: int | None = None) -> Any:
        """What is to be written: a Keras model; of a format without a network, anything.

        Args:
            refined: a clip model with delta layers.
            form: one of ``forms``.
            frames: clip length, where one is needed that the model does not say.

        Raises:
            DeltafineError: the format cannot hold this model; the sentence says what it refuses, and what to do.
        """

    @abstractmethod
    def write(self, made: Any, file: Path) -> None:
        """Write it, as a whole or not at all (``deltafine.storage``).

        Raises:
            DeltafineError: the format cannot hold this model.
        """

    @abstractmethod
    def check(self, made: Any, file: Path, clips: np.ndarray | None) -> Agreement | None:
        """Read the file as its receiver does, and compare it with what was made.

        Args:
            made: what was written.
            file: where.
            clips: real frames, (clips, time, height, width, channels); None where they are not to be compared.

        Returns:
            How well they agree; None where no frames were compared.

        Raises:
            DeltafineError: what is read is something else.
        """
