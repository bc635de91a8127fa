"""Controls under a score of the user's own, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from deltafine.measurement.collector import Collector
from deltafine.measurement.held_answers import EVERY, HeldAnswers, spread
from deltafine.measurement.metric import Answered
from deltafine.measurement.motion_gate import MotionGate
from deltafine.measurement.output import Output
from deltafine.measurement.probe import Probe
from deltafine.measurement.score import Score
from deltafine.measurement.scoring import scoring_of
from deltafine.measurement.side_by_side import measure_with_controls
from deltafine.measurement.simple_controls import SimpleControls
from deltafine.workers import from_bytes, to_bytes
from tests.measurement.test_simple_controls import (
    answers_of,
    assert_like,
    data,
    films_of,
    last_run,
    models,
    pieces_of,
    streams_of,
)
from tests.own_scores import balanced, nearness

__all__ = ["data", "models"]

BALANCED, NEARNESS = scoring_of("tests.own_scores:balanced"), scoring_of("tests.own_scores:nearness")


def answered(predictions, labels, video):
    return Answered(predictions[None], labels[None], np.array([video]), original=predictions[None])


def score_held(streams, every, phase, of_stream):
    """The mean over the streams of what ``of_stream(held predictions, predictions, labels)`` gives."""
    found = []
    for predictions, labels in streams:
        held = predictions[[last_run(frame, every, phase) for frame in range(len(labels))]]
        found.append(of_stream(held, predictions, labels))
    return np.mean(found)


def of_labelled(held, _, labels):
    return balanced(held[labels >= 0], labels[labels >= 0])


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize(
    ("scoring", "labelled", "of_stream"),
    [(BALANCED, True, of_labelled), (NEARNESS, False, lambda held, own, _: nearness(held, own))],
)
def test_held_answers_have_the_score_of_a_plain_loop_in_all_phases_or_a_few(size, scoring, labelled, of_stream):
    streams = streams_of(3)
    held = HeldAnswers(Output(), labelled, scoring)
    for number, stream in enumerate(streams):
        held.begin()
        for _, predictions, labels in pieces_of(stream, size):
            held.update(answered(predictions, labels, number), number)
    points = held.points()
    assert [point.every for point in points] == list(EVERY)
    for point in points:
        phases = range(point.every) if point.every <= 10 else [phase * point.every // 4 for phase in range(4)]
        by_phase = [score_held(streams, point.every, phase, of_stream) for phase in phases]
        assert point.quality == pytest.approx(np.mean(by_phase))
        assert (point.low, point.high) == pytest.approx((min(by_phase), max(by_phase)))


def test_few_phases_are_spread_over_all_and_begin_with_the_first():
    assert [spread(range(k), 4) for k in (2, 4, 5, 8, 48)] == [
        [0, 1],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0, 2, 4, 6],
        [0, 12, 24, 36],
    ]


def test_a_network_that_takes_clips_holds_the_last_answer_of_a_window_for_the_score():
    random = np.random.default_rng(1)
    predictions, labels = random.normal(size=(12, 4, 3)), random.integers(0, 3, (12, 4))
    held, gate = HeldAnswers(Output(), True, BALANCED), MotionGate(Output(), True, (1.0,), BALANCED)
    for one in (held, gate):
        one.begin()
    for window in range(12):
        of_window = answered(predictions[window], labels[window], 0)
        held.update(of_window, 0, window=True)
        gate.update(np.full((4, 2, 2, 1), 2 * (window // 2), np.uint8), of_window, 0, window=True)

    def expected(every, phase):
        given = []
        for window in range(12):
            ran = last_run(window, every, phase)
            given.append(predictions[window] if ran == window else np.repeat(predictions[ran][-1:], 4, axis=0))
        return balanced(np.concatenate(given), labels.reshape(-1))

    assert_like(held.points()[0], [expected(2, phase) for phase in range(2)])
    (point,) = gate.points()
    assert (point.share, point.quality) == (0.5, pytest.approx(expected(2, 0)))


@pytest.fixture(scope="module")
def scored(models, data):
    return measure_with_controls(models, data, 4, refined_held=(2,), metrics=[Score(BALANCED, True)])


def test_on_real_files_all_controls_have_the_score_of_plain_loops(scored, models, data):
    measured, controls = scored
    assert controls.judged_by == "score"
    assert controls.quality_of(measured["original"].streams) == measured["original"].streams.score.value
    films = [
        (frames, labels, Probe(models["original"]).run(frames[None]).predictions[0])
        for frames, labels in films_of(data)
    ]
    streams = [(predictions, labels) for _, labels, predictions in films]
    assert_like(controls.held[0], [score_held(streams, 2, phase, of_labelled) for phase in range(2)])
    for point in controls.motion_gate:
        found = []
        for frames, labels, predictions in films:
            last, source = None, []
            for frame in range(len(labels)):
                if last is None or np.abs(frames[frame].astype(int) - frames[last]).mean() > point.threshold:
                    last = frame
                source.append(last)
            found.append(balanced(predictions[source], labels))
        assert point.quality == pytest.approx(np.mean(found))
    assert len({point.quality for point in controls.motion_gate}) > 1
    (point,) = controls.refined_held
    found = []
    for frames, labels in films_of(data):
        held = answers_of(models["refined"], frames[::2]).repeat(2)[: len(labels)]
        found.append(np.mean([(held[labels == one] == one).mean() for one in (0, 1)]))
    assert point.quality == pytest.approx(np.mean(found))
    assert [one.every for one in controls.answer_age if one.model == "original"] == [1, *EVERY]


def test_the_scores_of_two_workers_add_up_to_those_of_one(models, data):
    subjects = {name: Collector(Probe(model)).subject for name, model in models.items()}

    def seen(*mine):
        controls = SimpleControls(subjects, labelled=True, refined_held=(2,), scoring=BALANCED)
        for unit, (frames, labels) in enumerate(films_of(data)):
            if unit in mine:
                shown = {name: subject.probe.run(frames[None]).predictions for name, subject in subjects.items()}
                controls.begin()
                of_all = {name: Answered(of, labels[None], np.array([unit])) for name, of in shown.items()}
                controls.update(frames, of_all, unit)
        return controls

    first = seen(0)
    first.add(from_bytes(to_bytes(seen(1).record())))
    assert first.result() == seen(0, 1).result()
