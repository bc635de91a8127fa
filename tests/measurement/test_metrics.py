"""The contract of a metric: those that are registered keep it, and one of your own needs nothing else."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import keras
import numpy as np
import pytest

import deltafine.measurement
from deltafine.document.figures import Estimate, Figures, NamedFigure
from deltafine.errors import DeltafineError
from deltafine.measurement import Probe
from deltafine.measurement.collector import Collector
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.metric import Answered, Derived, Metric, Result, Subject
from deltafine.measurement.metrics import METRICS, register
from deltafine.measurement.output import Output
from deltafine.measurement.score import Score
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from deltafine.workers import from_bytes, to_bytes
from tests.measurement.by_hand import sparse_video, whole_numbers


class Frames(Metric):
    """Frames seen, times a factor."""

    name = "frames-seen"

    def __init__(self, factor=1):
        self.factor = factor

    def begin(self, subject):
        self.frames = 0

    def update(self, shown):
        self.frames += shown.answers.predictions.shape[0] * shown.answers.predictions.shape[1]

    def record(self):
        return {"frames": np.asarray(self.frames)}

    def add(self, record):
        self.frames += int(record["frames"])

    def result(self, beside):
        figure = NamedFigure(name="frames_seen", value=self.factor * self.frames, unit="count", meaning="frames seen")
        return Result(named=[figure])


class MacsBeside(Derived):
    """Made of another metric."""

    name = "macs-beside"

    def result(self, beside):
        dense = beside.metric(EffectiveMacs).dense_total
        return Result(named=[NamedFigure(name="macs_beside", value=dense, unit="macs", meaning="dense MACs")])


@pytest.fixture(scope="module")
def probe():
    model = whole_numbers(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                keras.layers.Conv2D(3, 3, activation="relu", name="conv"),
                keras.layers.Flatten(),
                keras.layers.Dense(2, name="head"),
            ]
        )
    )
    return Probe(insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=1.5)))


def shown_to(collector, videos):
    for video, frames in videos:
        piece = collector.probe.run(frames)
        predictions = piece.predictions[..., :1] if collector.subject.output.numbers else piece.predictions
        labels = np.full(predictions.shape[:2], video % 2)
        original = predictions[:, ::-1]
        answers = Answered(predictions, labels, np.array([video]), video, original, np.array([video % 2]), True)
        control = Answered(np.repeat(predictions[:, :1], labels.shape[1], 1), labels, np.array([video]), video)
        collector.update(piece, answers, control)
    return collector


VIDEOS = [(number, sparse_video((1, 3 + number % 2, 6, 6, 2), number)) for number in range(4)]


@pytest.mark.parametrize("output", [Output(), Output("numbers", values=(0.0, 10.0))], ids=["classes", "numbers"])
@pytest.mark.parametrize("as_clips", [False, True])
def test_what_two_processes_count_and_one_adds_up_is_what_one_counts_alone(probe, output, as_clips):
    subject = Subject(probe, output, as_clips=as_clips)
    whole, first, second = (Collector(subject, [Frames()]) for _ in range(3))
    shown_to(whole, VIDEOS)
    shown_to(first, VIDEOS[::2])
    shown_to(second, VIDEOS[1::2])
    first.add(from_bytes(to_bytes(second.record())))
    figures = whole.figures(4)
    assert first.figures(4) == figures
    assert figures.named[0].value == sum(frames.shape[1] for _, frames in VIDEOS)
    judged = figures.label_error if output.numbers else figures.accuracy_change
    assert judged is not None


def test_a_pattern_counts_nothing_itself_and_keeps_its_options(probe):
    pattern = Frames(factor=10)
    for _ in range(2):
        collector = Collector(probe, [pattern])
        shown_to(collector, VIDEOS[:1])
        assert [figure.value for figure in collector.figures(1).named] == [10 * VIDEOS[0][1].shape[1]]
    assert vars(pattern) == {"factor": 10}


def test_a_metric_is_made_of_others_by_their_class(probe):
    (figure,) = shown_to(Collector(probe, [MacsBeside()]), VIDEOS[:2]).figures(2).named
    assert figure.value == sum(place.dense_macs for place in probe.layers) > 0
    with pytest.raises(LookupError, match="Frames"):
        Collector(probe).metric(Frames)


def test_a_registered_metric_is_in_every_measurement(probe):
    register(Frames())
    try:
        assert shown_to(Collector(probe), VIDEOS).figures(4).named[0].name == "frames_seen"
        with pytest.raises(ValueError, match="frames-seen"):
            register(Frames())
    finally:
        del METRICS["frames-seen"]


def test_metrics_that_cannot_be_told_apart_are_refused(probe):
    with pytest.raises(ValueError, match="frames-seen"):
        Collector(probe, [Frames(), Frames()])

    class Unnamed(Frames):
        name = "with space"

    with pytest.raises(ValueError, match="Unnamed"):
        Collector(probe, [Unnamed()])

    class Other(Frames):
        name = "other"

    with pytest.raises(DeltafineError, match="frames_seen"):
        shown_to(Collector(probe, [Frames(), Other()]), VIDEOS[:2]).figures(2)

    class Thief(Derived):
        name = "thief"

        def result(self, beside):
            return Result(figures={"fidelity": 1.0})

    with pytest.raises(ValueError, match="fidelity"):
        shown_to(Collector(probe, [Thief()]), VIDEOS[:2]).figures(2)


@pytest.mark.parametrize("given", [{"name": "a b"}, {"name": "é"}, {"unit": "seconds"}, {"value": "1"}])
def test_a_named_figure_has_a_name_a_unit_and_a_value_that_every_format_can_show(given):
    sound = {"name": "jumps", "value": Estimate(value=0.1, low=0, high=0.2), "unit": "share", "meaning": "jumps"}
    NamedFigure(**sound)
    with pytest.raises(ValueError, match=next(iter(given))):
        NamedFigure.model_validate({**sound, **given}, strict=True)


def test_there_is_one_metric_per_file_and_every_one_is_registered():
    files: dict[str, list[str]] = {}
    for module in pkgutil.iter_modules(deltafine.measurement.__path__):
        name = f"{deltafine.measurement.__name__}.{module.name}"
        for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if kind.__module__ == name and issubclass(kind, Metric) and not inspect.isabstract(kind):
                files.setdefault(module.name, []).append(kind)
    assert all(len(kinds) == 1 for kinds in files.values())
    kinds_of_all = {kind for kinds in files.values() for kind in kinds}
    assert {type(metric) for metric in METRICS.values()} == kinds_of_all - {Score}  # which needs the user's function
    assert [re.sub("-", "_", name) for name in METRICS] == [
        type(m).__module__.rpartition(".")[2] for m in METRICS.values()
    ]


def test_every_figure_of_the_document_comes_from_a_metric(probe):
    given: set[str] = set()
    for output in (Output(), Output("numbers", values=(0.0, 10.0))):
        figures = shown_to(Collector(Subject(probe, output)), VIDEOS).figures(4)
        given |= figures.model_fields_set
        assert figures.operations.model_fields_set == type(figures.operations).model_fields.keys()
        for part in [*figures.layers, *figures.deltas]:
            assert part.model_fields_set == type(part).model_fields.keys()
    of_others = {"score", "score_change", "frozen_score", "outputs"}  # of a function of the user, of several outputs
    assert given | of_others == Figures.model_fields.keys()
