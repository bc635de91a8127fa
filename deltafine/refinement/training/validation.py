"""Judging a network while it is refined: on the validation videos, as one stream."""

from __future__ import annotations

import math
from collections.abc import Collection

import keras
import tensorflow as tf

from deltafine.document.figures import Figures
from deltafine.document.history import FrontPoint
from deltafine.measurement.probe import Probe, probe_of
from deltafine.measurement.side_by_side import measure_streams
from deltafine.model.further_inputs import answered
from deltafine.refinement.listener import Listener
from deltafine.refinement.run.interruption import Requests
from deltafine.refinement.run.preparation import Prepared
from deltafine.refinement.training.confidence import Confidence
from deltafine.refinement.training.deviation import Deviation

RECORDINGS = 1
"""So many recordings tell half of what is to be known of whether a change of answers is for the better."""
NEAR_CHANGES = 15
"""So many videos tell as much of how many answers change on others as how near the answers came to changing."""
GOOD = 0.3
"""Accuracy that may be won or lost by an answer that changes, beside what chance gives: standard deviation."""
TELLING = 0.2
"""By so much the original must be better than its first answer held, so that answers tell whether a network follows."""


class Validation:
    """Measures the original and the student of a run.

    Args:
        prepared: data and settings of the run.
        original: clip model to compare with, or a probe of it.
        student: clip model with delta layers.
        listener: told how far it is.
        requests: what stops it.

    Attributes:
        original: figures of the original, once they are measured.
    """

    def __init__(
        self,
        prepared: Prepared,
        original: keras.Model | Probe,
        student: keras.Model,
        listener: Listener,
        requests: Requests,
    ) -> None:
        self.original: Figures | None = None
        self._prepared = prepared
        self._probes = {"original": probe_of(original), "refined": Probe(student)}
        self._listener, self._requests = listener, requests
        answers = self._probes["original"].model
        self._answer = tf.function(
            lambda clips: answered(answers, tf.cast(clips, tf.float32)), reduce_retracing=True, autograph=False
        )

    @property
    def probe_of_student(self) -> Probe:
        return self._probes["refined"]

    def measure(self, names: Collection[str]) -> dict[str, Figures]:
        """Figures of ``"original"``, ``"refined"``, or both."""

        def progress(what: str, done: int, total: int) -> None:
            self._listener.progress("validating", done, total)
            self._requests.obey()

        found = measure_streams(
            {name: probe for name, probe in self._probes.items() if name in names},
            self._prepared.data,
            fps=self._prepared.settings.fps,
            spliced=True,
            output=self._prepared.output,
            metrics=[Deviation(), Confidence(), *self._prepared.scores],
            original=lambda frames: self._answer(frames).numpy(),
            progress=progress,
        )
        self.original = found.get("original", self.original)
        return found

    def student(self) -> Figures:
        """Figures of the student."""
        return self.measure(["refined"])["refined"]

    def answers_follow(self) -> bool:
        """Whether the student's answers show that it follows the videos: a held answer would be far worse."""
        assert self.original is not None
        return better_than_held(self.original, self.student())

    def point(
        self, number: int, penalty: float, refined: Figures, scale: float = 1.0, *, trained: bool = True
    ) -> FrontPoint:
        """What was measured of an epoch, or without ``trained`` weights, all thresholds multiplied by ``scale``."""
        prepared, original = self._prepared, self.original
        assert original is not None
        return FrontPoint(
            epoch=number,
            penalty=penalty,
            accuracy=quality_beside(original, refined),
            expected=expected_quality(
                original, refined, 0 if prepared.output.numbers else len(prepared.data.classes), trained=trained
            ),
            mac_density=refined.operations.mac_density,
            pixel_density=refined.operations.pixel_density,
            delta_sparsity=refined.operations.delta_sparsity,
            threshold_scale=scale,
        )


def expected_quality(original: Figures, refined: Figures, classes: int = 0, *, trained: bool = True) -> float:
    """Quality of the refined model on other recordings, as far as those that it was measured on can tell.

    What it answers otherwise than the original is, on a few recordings, right by luck as often as by merit. How far
    its answers are from the original's is known much better. So what was measured is weighed against what answers
    that have nothing to do with the original's errors would give at that distance. Of numbers, squared errors then
    add up; n recordings count n / (n + ``RECORDINGS``). Of classes, a changed answer is then as good as any other; the
    measured change counts by its variance over the videos, beside that of how much good a changed answer may do.
    Without training, answers change where the original was not sure of its own: what they are then expected to cost
    is how much surer it was of the answer that it gave. Of classes without labels, that is all that is known. On few
    videos, answers that came near to changing are expected to change on other recordings (see ``Confidence``).

    Args:
        original: figures of the original on the validation videos.
        refined: of the refined model, compared with the original's answers.
        classes: how many there are; 0 for numbers.
        trained: whether the refined model has other weights than the original.
    """
    if refined.score is not None:  # of which nothing is known but what was measured
        return quality(refined)
    if len(_errors_of_outputs(refined)) > 0:
        return quality_beside(original, refined)
    surer, surer_elsewhere, changes = (_named(refined, name) for name in Confidence.names)
    if refined.fidelity is not None and refined.accuracy_change is None and surer is not None:
        return quality(original) + min(surer, surer if surer_elsewhere is None else surer_elsewhere)
    if classes > 1 and refined.accuracy_change is not None and refined.fidelity is not None:
        before, changed = quality(original), 1 - refined.fidelity
        change = refined.accuracy_change
        unrelated = (1 - before) / (classes - 1) - before  # of one answer
        by_chance = changed * unrelated if trained or surer is None else surer
        good = (GOOD * changed) ** 2
        variance = ((change.high - change.low) / 3.92) ** 2 + good / refined.videos
        known = good / (good + variance) if changed else 1.0
        if not trained and surer is not None:
            to_come = (surer_elsewhere or 0.0) - surer
        else:
            more = ((changes or 0.0) - changed) * NEAR_CHANGES / (refined.videos + NEAR_CHANGES)
            to_come = max(0.0, more) * unrelated
        return before + known * change.value + (1 - known) * by_chance + min(0.0, to_come)
    deviation = _named(refined, Deviation.name)
    if original.label_error is None or refined.label_error is None or deviation is None:
        return quality(refined)
    independent = original.label_error**2 + deviation**2
    known = refined.videos / (refined.videos + RECORDINGS)
    return 1 - math.sqrt(known * refined.label_error**2 + (1 - known) * independent)


def lost(original: Figures, refined: Figures, *, labelled: bool) -> float:
    """Quality that the refined model has lost; of classes without labels, what is expected of the answers that change.

    Args:
        original: figures of the original.
        refined: of the refined model on the same videos.
        labelled: whether the videos have labels.
    """
    surer = None if labelled or refined.score is not None else _named(refined, Confidence.name)
    return quality(original) - quality_beside(original, refined) if surer is None else -surer


def _named(figures: Figures, name: str) -> float | None:
    value = next((figure.value for figure in figures.named if figure.name == name), None)
    return value if isinstance(value, float) else None


def better_than_held(original: Figures, refined: Figures) -> bool:
    """Whether a model keeps half of what the original is better than its own first answer held, if that is much."""
    held = frozen_quality(refined)
    if held is None:
        return False
    room = quality(original) - held
    return room > TELLING and quality(refined) - held >= room / 2


def frozen_quality(figures: Figures) -> float | None:
    """As :func:`quality`, of the original's first answer, held; None where it was not measured."""
    if figures.score is not None:
        return None if figures.frozen_score is None else figures.frozen_score.value
    if figures.frame_accuracy is not None or figures.window_accuracy is not None:
        return None if figures.frozen_accuracy is None else figures.frozen_accuracy.value
    if figures.label_error is not None or figures.relative_error is not None:
        return None if figures.frozen_error is None else 1 - figures.frozen_error
    return figures.frozen_fidelity


def quality_beside(original: Figures, refined: Figures) -> float:
    """The quality of a refined model as far as it may be compared with the original's.

    Of several outputs with labels that which loses most counts, so that none is paid for by another: the quality is the
    original's less what that output loses.
    """
    before, after = _errors_of_outputs(original), _errors_of_outputs(refined)
    lost_by = [after[name] - before[name] for name in after if name in before]
    if refined.score is not None or not lost_by:
        return quality(refined)
    return quality(original) - max(lost_by)


def _errors_of_outputs(figures: Figures) -> dict[str, float]:
    """The error to the labels of each of several outputs that has some, and counts at all."""
    found = [one for one in figures.outputs if one.label_error is not None]
    counted = [one for one in found if one.weight > 0] or found
    return {one.name: one.label_error for one in counted if one.label_error is not None}


def quality(figures: Figures) -> float:
    """The score that was asked for; else accuracy of frames or windows, or fidelity where nothing is labelled.

    Of numbers: 1 - error / spread.
    """
    if figures.score is not None:
        return figures.score.value
    accuracy = figures.frame_accuracy or figures.window_accuracy
    if accuracy is not None:
        return accuracy.value
    error = figures.label_error if figures.label_error is not None else figures.relative_error
    if error is not None:
        return 1 - error
    assert figures.fidelity is not None
    return figures.fidelity
