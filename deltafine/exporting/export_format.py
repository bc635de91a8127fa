"""What an export format is: one class in one file that writes a refined model for a receiver, and reads it back.

``deltafine.exporting.FORMATS`` holds those that there are. CONTRIBUTING.md has a worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras
    import numpy as np

    from deltafine.document.report import Report

    LabelledFrames: TypeAlias = tuple[np.ndarray, np.ndarray | None]
    """(frames, height, width, channels) and (frames,), which is None where nothing is labelled."""


FORMS = {
    "stripped": "the refined weights without thresholds: one frame in, one prediction out",
    "quantized": "what the refined model computes: frame by frame, or on clips of a fixed length if its rule remembers",
    "streaming": "what the refined model computes: a frame and the state in, a prediction and the new state out",
}
"""The forms of a network, and what each is."""


@dataclass(frozen=True)
class Agreement:
    """How a written model compares with the Keras model that it was made of, on real frames.

    Attributes:
        frames: inputs compared.
        largest_difference: of any output, in units of the output.
        same_class: share of inputs whose largest output is at the same index.
        of: whether the inputs are frames or clips.
        more: what else was found, in half a sentence.
        stream: whether frames were played one after the other, and compared with the refined model itself.
    """

    frames: int
    largest_difference: float
    same_class: float
    of: Literal["frames", "clips"] = "frames"
    stream: bool = False
    more: str = ""

    @property
    def sentence(self) -> str:
        played, model = (", one by one,", "refined") if self.stream else ("", "Keras")
        return (
            f"on {self.frames} {self.of} of the videos{played} the largest difference to the {model} model is "
            f"{self.largest_difference:.2g}, the same class on {self.same_class:.1%}{self.more and f'; {self.more}'}"
        )


@dataclass(frozen=True)
class WantedFrames:
    """Which real frames a format is compared on.

    Attributes:
        shape: of the input, batch axis first: (None, height, width, channels), or (None, time, ...) for clips.
        per_video: how many consecutive frames of a video, where these are frames.
    """

    shape: tuple[int | None, ...]
    per_video: int


@dataclass(frozen=True)
class Source:
    """Where a model that is exported comes from, for formats that need more than the model.

    Attributes:
        model_file: the file that it was read from; None where it was not read from one.
        clips: real frames, (clips, time, height, width, channels); None where there are none, or none were wanted.
        streams: gives all frames that are judged, with their labels, piece by piece, for an input of this shape; None
            where there are none.
        report: reads the report of the run; None where there is no run.
    """

    model_file: Path | None = None
    clips: np.ndarray | None = None
    streams: Callable[[tuple[int | None, ...]], Iterator[LabelledFrames]] | None = None
    report: Callable[[], Report] | None = None


class ExportFormat(ABC):
    """A kind of file that a refined model is exported as.

    What is made is written, then read back as the receiver reads it, and compared with what it was made of.
    """

    name: ClassVar[str]
    """As it is chosen, such as ``tflite``."""
    purpose: ClassVar[str] = ""
    """What it is for, in some words; ``deltafine export --list`` shows it."""
    suffix: ClassVar[str]
    """Of its files, such as ``.tflite``."""
    endings: ClassVar[tuple[str, ...]] = ()
    """The only ones that its files may have; () for any."""
    forms: ClassVar[tuple[str, ...]] = ("stripped", "quantized")
    """The forms of the model that it holds (see ``forms``); () for one that holds it as it is, or no network."""
    takes_further_inputs: ClassVar[bool] = False
    """Whether it holds networks with inputs beside the frames, such as a speed; others are refused."""
    compared: ClassVar[Literal["must", "may", "no"]] = "must"
    """Whether real frames are compared: ``must``, so that without videos nothing is written unless the user says so;
    ``may``, where there are videos; ``no``, where it has no network in it."""

    def file_name(self, form: str) -> str:
        """What a file of it is called."""
        return f"{form if self.forms else self.name}{self.suffix}"

    def files(self, file: Path) -> tuple[Path, ...]:
        """Everything that is written for a file of this name: itself, unless arrays or the like lie beside it."""
        return (file,)

    def frames_per_video(self, form: str) -> int:
        """How many consecutive frames of a video are compared."""
        return 16

    def input_shape(self, made: Any) -> tuple[int | None, ...]:
        """Shape of the frames or clips that are compared, the batch axis first."""
        return tuple(made.inputs[0].shape)

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

    def complete(self, made: Any, source: Source) -> Any:
        """What is written, where that takes more than the model; else what was made.

        Raises:
            DeltafineError: something is missing there that the format needs.
        """
        return made

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
