"""What a score is: how good the answers to one video are, as one number; built in, or a function of the user's own."""

from __future__ import annotations

import hashlib
import inspect
import math
import numbers
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.accuracy import classes_of
from deltafine.model.custom_objects import imported

GivenAnswers: TypeAlias = np.ndarray | dict[str, np.ndarray]
"""About the frames of a video; of several outputs by their names."""
VIDEO = "video"
"""Parameter of a score that wants to know which video it judges."""


@dataclass(frozen=True)
class ScoredVideo:
    """Which video a score judges: for truth that the function has of its own, such as a file of boxes.

    Attributes:
        name: as the program names it.
        path: of its file, or of its folder of images; None where it is not known.
        frames: (answers,) int64, the frame of the file that each answer is about, the first being 0; (answers, T) for
            a network that answers once per window; None where it is not known.
    """

    name: str
    path: Path | None = None
    frames: np.ndarray | None = None

    def by_window(self, length: int) -> ScoredVideo:
        """The same for a network that answers once for so many frames."""
        if self.frames is None:
            return self
        windows = len(self.frames) // length
        return replace(self, frames=self.frames[: windows * length].reshape(windows, length))


@dataclass(frozen=True)
class Scoring:
    """A function that judges the answers to one video.

    Attributes:
        name: as settings have it: ``mean-iou``, or ``module:function``.
        function: called as function(predictions, truth), gives one finite number; higher is better. Predictions are
            (frames, ..., outputs), one "frame" for each window of a network that answers once per window. The truth is
            the labels (frames,) int64, or (frames, 1) float64 where they are numbers, frames without one being left out
            of both; or the original's predictions, where labels are not looked at. Both are read-only. Of a network
            with several outputs, predictions are a dict of such arrays by the outputs' names. A third parameter called
            ``video`` gets a ``ScoredVideo``.
        kept: what is kept of predictions until the video is over, and then given to the function.
        of_maps: whether it needs maps of classes, which have no labels.
        source: SHA-256 of the file that the function is in; empty for a built-in one.
    """

    name: str
    function: Callable[..., Any]
    kept: Callable[[np.ndarray], np.ndarray] = np.asarray
    of_maps: bool = False
    source: str = ""

    def check(self, shape: Sequence[int], labelled: bool) -> None:
        """Refuse answers that it is not for.

        Args:
            shape: of one answer of the model.
            labelled: whether labels are looked at.

        Raises:
            DeltafineError: the score is for maps, and these are none, or have labels.
        """
        if self.of_maps and len(shape) < 2:
            raise DeltafineError(
                f"The score {self.name} is for maps, and the model gives {tuple(shape)} per answer: give a score that "
                "fits, or leave --score out."
            )
        if self.of_maps and labelled:
            raise DeltafineError(
                f"The score {self.name} compares maps with those of the original model, and these videos have labels: "
                "give --task distill to leave them aside."
            )

    def of_video(
        self, predictions: GivenAnswers, truth: GivenAnswers, video: str, about: ScoredVideo | None = None
    ) -> float:
        """The score of what was answered about a video.

        Args:
            predictions, truth: as the function takes them.
            video: its name.
            about: for a function that takes it.

        Raises:
            DeltafineError: the function fails, or gives something else than a finite number.
        """
        for answers in (predictions, truth):
            for values in answers.values() if isinstance(answers, dict) else (answers,):
                values.flags.writeable = False  # they are used again
        more = {VIDEO: about or ScoredVideo(video)} if _takes_video(self.function) else {}
        try:
            found = self.function(predictions, truth, **more)
        except Exception as error:  # whatever a function of the user's own may raise
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise DeltafineError(
                f"The score {self.name} fails on the video {video}: {type(error).__name__}: {reason}. It was given "
                f"predictions {_shapes(predictions)} and {_what(truth)} {_shapes(truth)}."
            ) from error
        number = _number(found)
        if number is None or not math.isfinite(number):
            given = f"{number}" if number is not None else f"{_a_kind(found)} ({' '.join(repr(found).split())[:80]})"
            raise DeltafineError(
                f"The score {self.name} gives {given} for the video {video}: it must return one finite number, of "
                "which a higher one is better."
            )
        return number


def scoring_of(text: str) -> Scoring:
    """The score that the setting ``score`` names.

    Raises:
        DeltafineError: its module cannot be imported, or it is no function.
    """
    if text in BUILT_IN:
        return BUILT_IN[text]
    module, _, name = text.partition(":")
    function = imported(module, name, f"the score {text}")
    if isinstance(function, type) or not callable(function):
        what = f"a class, {name}" if isinstance(function, type) else _a_kind(function)
        raise DeltafineError(
            f"The score {text} is {what}: name a function of predictions and labels (or the original's predictions) of "
            "one video."
        )
    return Scoring(text, function, source=source_digest(function))


def source_digest(defined: Any) -> str:
    """SHA-256 of the file that a function or class was defined in; empty where there is none."""
    try:
        file = inspect.getsourcefile(defined)
    except TypeError:  # neither: an object that can be called, or a function in C
        file = getattr(sys.modules.get(getattr(defined, "__module__", None) or ""), "__file__", None)
    try:
        return hashlib.sha256(Path(file or "").read_bytes()).hexdigest()
    except OSError:
        return ""


def mean_iou(classes: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two maps of classes of the same shape; the mean over the classes that occur."""
    ious = []
    for one in np.union1d(classes, truth):
        ours, theirs = classes == one, truth == one
        ious.append(np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs))
    return float(np.mean(ious))


def _class_map(predictions: np.ndarray) -> np.ndarray:
    """The classes of maps (..., height, width, classes); of a single one whether its probability is above 0.5."""
    if predictions.shape[-1] == 1 and (predictions.min() < 0 or predictions.max() > 1):
        raise DeltafineError(
            "The score mean-iou needs probabilities where a map has one value per position, and the model gives "
            "others: add a sigmoid to it, or give a score of your own."
        )
    return classes_of(predictions).astype(np.uint8 if predictions.shape[-1] <= 256 else np.uint32)


def _number(found: Any) -> float | None:
    """One number as a float; None where it is none. A bool is none, arrays without axes and tensors may be."""
    if isinstance(found, numbers.Real) and not isinstance(found, bool):
        return float(found)
    array = np.asarray(found) if hasattr(found, "__array__") else None
    if array is None or array.shape or array.dtype.kind not in "iuf":
        return None
    return float(array)


def _takes_video(function: Callable[..., Any]) -> bool:
    try:
        return VIDEO in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions in C do not say what they take
        return False


def _shapes(answers: GivenAnswers) -> str:
    if not isinstance(answers, dict):
        return str(answers.shape)
    return ", ".join(f"{name} {values.shape}" for name, values in answers.items())


def _what(truth: GivenAnswers) -> str:
    return "labels" if not isinstance(truth, dict) and truth.ndim == 1 else "a truth of"


def _a_kind(found: Any) -> str:
    kind = type(found).__name__
    return f"an array of shape {found.shape}" if isinstance(found, np.ndarray) else f"a value of type {kind}"


BUILT_IN = {"mean-iou": Scoring("mean-iou", mean_iou, _class_map, of_maps=True)}
"""By name."""
