"""Whether the original model works on the videos at all, found on a few clips before anything else is done with it.

A model whose pixels are scaled wrongly, or whose classes are in another order than the labels, gives answers of which
none is worth following. It is found by its quality: no better than a constant answer. Then the usual scalings and
another order of the classes are tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import keras
import numpy as np

from deltafine.document.report import Reference
from deltafine.errors import DeltafineError
from deltafine.measurement.accuracy import classes_of
from deltafine.measurement.output import Output
from deltafine.measurement.parts import split
from deltafine.measurement.relative_error import RelativeError
from deltafine.measurement.side_by_side import VALUES_AT_ONCE
from deltafine.model.clip_model import with_time
from deltafine.model.further_inputs import answered, picture_shape
from deltafine.model.insert import RESCALES
from deltafine.video import Dataset

CLIPS = 64
"""That are looked at."""
_AT_ONCE = 8
_CONSTANT = 0.99
"""Share of the frames with one answer from which on answers count as constant."""
_FLAT = 1e-4
"""Spread of numbers, as a share of the largest, up to which they count as constant."""
_FEW = 8
"""Videos, below which chance is not given any room: it could be anything."""
_BETTER = 0.15
"""Of accuracy: how much another order of the classes must explain."""
_MOST_CLASSES = 20
"""Whose order is written out."""
_FITTED = 0.85
"""Error / spread of the labels, up to which answers on another line explain them."""
SCALINGS = (None, *RESCALES)
"""That are tried."""
_POSITIONS = 256
"""Of a map, that are looked at."""

Rescaled = Callable[[str | None], Any]
"""The same model as a clip model whose pixels are scaled in this way."""


@dataclass(frozen=True)
class _Sample:
    """What a model answered: scores (clips, steps, ..., outputs), labels (clips, steps) and videos (clips,)."""

    scores: np.ndarray
    labels: np.ndarray
    videos: np.ndarray


@dataclass(frozen=True)
class _Found:
    """How good these answers are.

    Attributes:
        what: is judged.
        value: accuracy, the mean over the classes; or error / spread of the labels; None without labels.
        chance: what a constant answer has; None without labels.
        room: standard deviation of an accuracy at chance, over so few videos.
        constant: what is answered all the time, in words; empty if answers vary.
        order: the class that each output stands for, where that explains the labels better.
        ordered: the accuracy with this order.
        line: of a single number: the factor and the offset with which answers come nearest to the labels, where that
            explains them.
        fitted: the error then.
        output: of several, that which is judged, the worst; empty where there is one.
    """

    what: Literal["accuracy", "error", "answers"]
    value: float | None = None
    chance: float | None = None
    room: float = 0.0
    constant: str = ""
    order: tuple[int, ...] | None = None
    ordered: float = 0.0
    line: tuple[float, float] | None = None
    fitted: float = 1.0
    output: str = ""

    @property
    def at_chance(self) -> bool:
        if self.value is None or self.chance is None:
            return False
        return self.value >= self.chance if self.what == "error" else self.value <= self.chance + self.room

    @property
    def broken(self) -> bool:
        return self.at_chance or self.order is not None or bool(self.constant and self.value is None)

    @property
    def rank(self) -> float:
        """Higher is better."""
        if self.value is None:
            return float(not self.constant)
        return -self.value if self.what == "error" else max(self.value, self.ordered)


def check_reference(
    name: str,
    model: keras.Model,
    data: Dataset,
    output: Output,
    *,
    frames: int,
    fps: float | None = None,
    rescale: str | None = None,
    rescaled: Rescaled | None = None,
) -> Reference:
    """Look at the answers of a model about a few validation clips.

    Args:
        name: of the model, such as "original".
        model: a clip model, see ``insert_deltas``.
        data: with labels, if there are some.
        output: how answers are read.
        frames: length T of the clips.
        fps: at which frames are taken; None for all.
        rescale: how the model's pixels are scaled.
        rescaled: makes it again with another scaling; None where it cannot be.
    """
    classes = () if output.numbers else data.classes

    def found(one: Any) -> _Found:
        return _judged(_sample(one, data, output, frames, fps), output, classes)

    first = found(model)
    reference = Reference(
        model=name, clips=_step(data, model, frames, fps)[2], judged_by=first.what, value=first.value,
        chance=first.chance, output=first.output,
    )  # fmt: skip
    if not first.broken:
        return reference
    best, scaling, varying = first, rescale, []
    others = [] if rescaled is None or first.order is not None else [one for one in SCALINGS if one != rescale]
    for other in others:
        try:
            tried = found(rescaled(other) if rescaled is not None else model)
        except DeltafineError:  # a scaling of RGB, and the model takes grey
            continue
        reference.tried[_named(other)] = tried.value
        varying += [] if tried.constant else [other]
        if tried.rank > best.rank and (tried.order is not None or not tried.at_chance):
            best, scaling = tried, other
    if best.order is not None:
        reference.classes = _in_order(data.classes, best.order)
    problem = _problem(reference, first, best)
    if first.value is None:
        advice = _advice_without_labels(varying, reference)
    elif best is first and first.line is not None:
        advice = _advice_on_line(first.line, first.fitted)
    elif best is first and first.order is None:
        advice = _advice_without_any(reference)
    else:
        advice = _advice(first, best, scaling, reference)
    reference.broken = f"{problem} {advice}"
    return reference


def sentence_of(reference: Reference) -> str:
    """How good the model is, for the user."""
    where = _where(reference)
    if reference.value is None:
        return (
            f"How good the {reference.model} model is cannot be told on {where}: they have no labels, or all the same "
            "one. Only constant answers would be noticed."
        )
    if reference.judged_by == "error":
        of_output = f", by its worst output '{reference.output}'," if reference.output else ""
        return (
            f"The {reference.model} model{of_output} has an error of {reference.value:.1%} of the labels' spread on "
            f"{where}; a constant has 100%."
        )
    return (
        f"The {reference.model} model has an accuracy of {reference.value:.1%} on {where}, averaged over the classes; "
        f"a constant answer has {reference.chance:.1%}."
    )


def _where(reference: Reference) -> str:
    return f"{reference.clips} validation {'clip' if reference.clips == 1 else 'clips'}"


def _named(scaling: str | None) -> str:
    return scaling or "0..255"


def _given(scaling: str | None) -> str:
    return f"with --rescale {scaling}" if scaling else "without --rescale"


def _quality(found: _Found) -> str:
    return f"{found.value:.1%}"


def _problem(reference: Reference, first: _Found, best: _Found) -> str:
    """What is wrong."""
    where, name = _where(reference), f"The {reference.model} model"
    if first.output:
        name += f", by its output '{first.output}',"
    if first.order is not None:
        return (
            f"{name} answers with the classes in another order than the labels: its accuracy on {where} is "
            f"{_quality(first)}, and {best.ordered:.1%} in the other order."
        )
    if first.constant:
        quality = f" ({first.what} {_quality(first)})" if first.value is not None else ""
        return f"{name} gives {first.constant} on nearly every frame of {where}{quality}."
    if first.what == "error":
        return (
            f"{name} is no better than a constant: its error on {where} is {_quality(first)} of the labels' spread, "
            "and that of a constant 100%."
        )
    return (
        f"{name} is no better than chance: its accuracy on {where}, averaged over the classes, is {_quality(first)}, "
        f"and that of a constant answer {first.chance:.1%}."
    )


def _advice(first: _Found, best: _Found, scaling: str | None, reference: Reference) -> str:
    """What explains it."""
    classes = f"--classes {','.join(reference.classes)}"
    if len(reference.classes) > _MOST_CLASSES:
        classes = "the classes in the order of the outputs (--classes; report.json has it)"
    if first.order is not None:
        return f"Give {classes}."
    ordered = f", and {best.ordered:.1%} with {classes} as well" if best.order is not None else ""
    return f"{_given(scaling).capitalize()} it is {_quality(best)}{ordered}: the pixels are probably scaled wrongly."


def _advice_without_labels(varying: Sequence[str | None], reference: Reference) -> str:
    if varying:
        return f"The answers vary {', '.join(map(_given, varying))}: check how the model wants its pixels."
    return (
        "Without labels nothing else can be noticed. Check how the model wants its pixels (--rescale), and whether the "
        "answer changes in these videos."
    )


def _advice_on_line(line: tuple[float, float], fitted: float) -> str:
    factor, offset = line
    shift = f" {'plus' if offset > 0 else 'minus'} {abs(offset):.3g}" if abs(offset) >= 1e-3 else ""
    return (
        f"Its answers times {factor:.3g}{shift} have an error of {fitted:.1%}: their sign, unit or zero is probably "
        "another than that of the labels."
    )


def _advice_without_any(reference: Reference) -> str:
    tried = ", ".join(f"{name} {'-' if value is None else f'{value:.1%}'}" for name, value in reference.tried.items())
    others = f"No other usual scaling of the pixels is better ({tried}). " if tried else ""
    return f"{others}Check the model, the labels and their order (--classes), and how the model wants its pixels."


def _step(data: Dataset, model: keras.Model, frames: int, fps: float | None) -> tuple[dict[str, Any], int, int]:
    """How clips are taken, every so many-th of them, and how many that gives."""
    height, width, channels = picture_shape(model)
    videos = max(1, len(data.select("validation")))
    how: dict[str, Any] = {"frames": frames, "size": (height, width), "channels": channels, "fps": fps, "batch": 1}
    how["clips_per_video"] = -(-CLIPS // videos)
    count = len(data.clips("validation", **how))
    every = -(-count // CLIPS)
    return how, every, -(-count // every)


def _sample(model: keras.Model, data: Dataset, output: Output, frames: int, fps: float | None) -> _Sample:
    answering = with_time(model)
    how, every, _ = _step(data, model, frames, fps)
    scores: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    videos: list[np.ndarray] = []
    values = frames * int(np.prod(picture_shape(model)))
    at_once = max(1, min(_AT_ONCE, VALUES_AT_ONCE // values))
    for clips in _grouped(data.clips("validation", **how, batches=(0, every)), at_once):
        shown = np.concatenate([clip.frames for clip in clips])
        predictions = np.asarray(answered(answering, keras.ops.convert_to_tensor(shown, "float32")), np.float32)
        steps = predictions.shape[1]
        if predictions.ndim > 3:
            predictions = predictions.reshape(*predictions.shape[:2], -1, predictions.shape[-1])
            predictions = predictions[:, :, :: -(-predictions.shape[2] // _POSITIONS)]
        scores.append(output.scores(predictions))
        for clip in clips:
            own = clip.frame_labels
            by_frame = own is not None and steps == own.shape[1]
            labels.append(own if by_frame and own is not None else np.repeat(clip.labels[:, None], steps, axis=1))
            # Clips of a video with labels of its own for each frame say something each.
            videos.append(clip.videos if own is None else clip.videos * 0 - 1 - len(videos))
    return _Sample(np.concatenate(scores), np.concatenate(labels), np.concatenate(videos))


def _grouped(clips: Any, size: int) -> Iterator[Sequence[Any]]:
    iterator = iter(clips)
    while group := list(islice(iterator, size)):
        yield group


def _judged(sample: _Sample, output: Output, classes: Sequence[str]) -> _Found:
    if not np.isfinite(sample.scores).all():
        return _Found("answers", constant="numbers that are not finite")
    if output.numbers:
        return _of_numbers(sample, output)
    answers = classes_of(sample.scores)
    constant = ""
    if answers.ndim > 2:  # a map: most of it may be background
        constant = "the same map" if np.ptp(sample.scores, axis=(0, 1)).max() < _FLAT else ""
    else:
        kinds, counts = np.unique(answers, return_counts=True)
        if counts.max() >= _CONSTANT * answers.size:
            kind = int(kinds[counts.argmax()])
            constant = f"'{classes[kind]}'" if kind < len(classes) else f"class {kind}"
    labelled = sample.labels >= 0
    if not classes or not labelled.any() or answers.ndim > 2:
        return _Found("answers", constant=constant)
    return _of_classes(answers, sample, len(classes), constant)


def _of_numbers(sample: _Sample, output: Output) -> _Found:
    flat = sample.scores.reshape(sample.labels.size, -1)
    apart = split(flat, output.parts) if output.parts else [flat]
    still = all(np.ptp(one, axis=0).max() <= _FLAT * max(np.abs(one).max(), 1e-30) for one in apart)
    constant = "the same numbers" if still else ""
    known = sample.labels >= 0
    if not output.has_targets or not known.any():
        return _Found("answers", constant=constant)
    if output.truth is not None:
        return _of_outputs(flat[known.ravel()], output.targets(sample.labels[known]), output, constant)
    error = RelativeError()
    error.update(sample.scores[known], output.targets(sample.labels[known]))
    try:
        value = error.result()
    except DeltafineError:  # the labels of these clips are all the same
        return _Found("answers", constant="")
    known_error = value if value is not None and math.isfinite(value) else math.inf
    line, fitted = _line(flat[known.ravel()], output.targets(sample.labels[known]))
    return _Found("error", known_error, 1.0, 0.0, constant, line=line, fitted=fitted)


def _of_outputs(answers: np.ndarray, targets: np.ndarray, output: Output, constant: str) -> _Found:
    """The worst of several outputs, of answers and targets (frames, values)."""
    error = RelativeError(output.parts, to_labels=True)
    error.update(answers, targets)
    aims = zip(output.parts, error.by_part(), split(targets, output.parts), strict=True)
    varying = [
        (math.inf if math.isnan(of_part) else of_part, part.name)
        for part, of_part, aim in aims
        if of_part is not None and len(np.unique(aim[~np.isnan(aim)])) > 1
    ]
    if not varying:  # the labels of these clips are all the same
        return _Found("answers", constant="")
    value, name = max(varying)
    return _Found("error", value, 1.0, 0.0, constant, output=name)


def _line(answers: np.ndarray, targets: np.ndarray) -> tuple[tuple[float, float] | None, float]:
    """Factor and offset with which answers (frames, 1) come nearest to targets (frames, 1), and the error then."""
    x, y = np.asarray(answers, np.float64), np.asarray(targets, np.float64)
    if x.shape != y.shape or not x.std() > _FLAT * np.abs(x).max():
        return None, 1.0
    factor = float(((x - x.mean()) * (y - y.mean())).mean() / x.var())
    offset = float(y.mean() - factor * x.mean())
    fitted = float(np.sqrt(np.mean((factor * x + offset - y) ** 2)) / y.std())
    return ((factor, offset), fitted) if fitted <= _FITTED else (None, 1.0)


def _of_classes(answers: np.ndarray, sample: _Sample, classes: int, constant: str) -> _Found:
    halves = [np.zeros((classes, classes)), np.zeros((classes, classes))]
    turns: dict[int, int] = {}
    half_of: dict[int, int] = {}
    for video, given, labels in zip(sample.videos.tolist(), answers, sample.labels, strict=True):
        known = labels >= 0
        if not known.any():
            continue
        first = int(labels[known][0])
        if video not in half_of:  # each half has videos of every class
            half_of[video] = turns.get(first, 0) % 2
            turns[first] = turns.get(first, 0) + 1
        np.add.at(halves[half_of[video]], (labels[known], given[known]), 1)
    whole = halves[0] + halves[1]
    present = int((whole.sum(1) > 0).sum())
    value, chance = _mean_recall(whole, np.arange(classes)), 1 / max(present, 1)
    if present < 2:
        return _Found("answers", constant="")
    deviation = math.sqrt(chance * (1 - chance) / len(half_of))
    room = deviation if len(half_of) >= _FEW else 0.02
    order = _best_order(whole)
    ordered = float(np.mean([_mean_recall(halves[1 - half], _best_order(halves[half])) for half in (0, 1)]))
    clear = ordered >= max(value + max(2 * deviation, _BETTER), min(1.0, chance + 2 * deviation)) - 1e-9
    if clear and not constant:
        return _Found("accuracy", value, chance, room, constant, tuple(order.tolist()), _mean_recall(whole, order))
    return _Found("accuracy", value, chance, room, constant)


def _mean_recall(confusion: np.ndarray, order: np.ndarray) -> float:
    """Accuracy, the mean over the classes there are, where the answer ``order[label]`` is the right one."""
    of = confusion.sum(1)
    right = confusion[np.arange(len(confusion)), order]
    return float(np.mean(right[of > 0] / of[of > 0])) if (of > 0).any() else 0.0


def _best_order(confusion: np.ndarray) -> np.ndarray:
    """(classes,) the answer that each label meets most, each once and the most certain first; else the label itself."""
    count = len(confusion)
    recalls = confusion / np.maximum(confusion.sum(1, keepdims=True), 1) + 1e-9 * np.eye(count)
    order, free = np.full(count, -1), set(range(count))
    labels, answers = np.nonzero(recalls)
    for place in np.argsort(-recalls[labels, answers], kind="stable"):
        label, answer = int(labels[place]), int(answers[place])
        if order[label] < 0 and answer in free:
            order[label] = answer
            free.remove(answer)
    order[order < 0] = sorted(free)
    return order


def _in_order(classes: Sequence[str], order: Sequence[int]) -> list[str]:
    """The names in the order of the outputs: the answer ``order[label]`` means ``classes[label]``."""
    named = [""] * len(classes)
    for label, answer in enumerate(order):
        named[answer] = classes[label]
    return named
