"""The frames at which a model is worst, and the course of a stream, against plain loops over real files."""

from __future__ import annotations

import numpy as np
import pytest

from deltafine.jobs.worst_pictures import worst_pictures
from deltafine.measurement import Probe, measure
from deltafine.measurement import answers_over_time as over_time
from deltafine.measurement.answers_over_time import AnswersOverTime
from deltafine.measurement.collector import Collector
from deltafine.measurement.metric import Answered, Shown
from deltafine.measurement.output import Output
from deltafine.workers import from_bytes, to_bytes
from tests.measurement.test_simple_controls import SIZE, data, films_of, models

__all__ = ["data", "models"]


def of_course(models, predictions, original, labels, output=None):
    """The figures of two videos with these answers to frames that are all the same."""
    metric, probe = AnswersOverTime(), Probe(models["refined"])
    subject = Collector(probe).subject
    metric.begin(subject if output is None else type(subject)(probe, output))
    for video, (own, other, known) in enumerate(zip(predictions, original, labels, strict=True)):
        piece = probe.run(np.zeros((1, len(known), *SIZE, 3), np.uint8))
        metric.update(Shown(piece, Answered(own[None], known[None], np.array([video]), video, other[None])))
    return metric


@pytest.fixture(scope="module")
def streams(models, data):
    return measure(models, data, frames=4)["refined"].streams


def test_the_course_of_a_stream_is_that_of_a_plain_loop(streams, models, data):
    by_name = {video.name: film for video, film in zip(data.select("validation"), films_of(data), strict=True)}
    assert 1 <= len(streams.timelines) <= over_time.MOST_TIMELINES
    for found in streams.timelines:
        frames, labels = by_name[found.video]
        assert (found.frames, found.each) == (len(labels), 1)
        pieces = {name: Probe(model).run(frames[None]) for name, model in models.items()}
        answers = {name: piece.predictions[0].argmax(-1).tolist() for name, piece in pieces.items()}
        assert (found.answers, found.original) == (answers["refined"], answers["original"])
        assert found.truth == labels.tolist()
        probe = Probe(models["refined"])
        macs = sum(counts.macs_delta[0] for counts in pieces["refined"].counts[: len(probe.layers)])
        dense = sum(place.dense_macs for place in probe.layers)
        assert found.macs == pytest.approx([1.0, *(macs[1:] / dense)], abs=1e-4)


def test_the_worst_answers_are_wrong_ones_that_lose_most_and_have_a_picture_of_their_frame(streams, models, data):
    by_name = {video.name: film for video, film in zip(data.select("validation"), films_of(data), strict=True)}
    assert streams.worst_answers
    for found in streams.worst_answers:
        frames, labels = by_name[found.video]
        own, original = (Probe(models[name]).run(frames[None]).predictions[0] for name in ("refined", "original"))
        lost = original[np.arange(len(labels)), labels] - own[np.arange(len(labels)), labels]
        assert found.lost == pytest.approx(lost[found.frame], abs=1e-4)
        assert found.truth == labels[found.frame] != found.answer == own[found.frame].argmax()
    first = streams.worst_answers[0]
    frames, labels = by_name[first.video]
    own, original = (Probe(models[name]).run(frames[None]).predictions[0] for name in ("refined", "original"))
    lost = original[np.arange(len(labels)), labels] - own[np.arange(len(labels)), labels]
    assert first.lost == pytest.approx(lost[own.argmax(-1) != labels].max(), abs=1e-4)
    drawn = worst_pictures("refined", streams, data, shape=(*SIZE, 3))
    assert [picture.video for picture, _ in drawn] == [one.video for one in streams.worst_answers]
    assert all(picture.kind == "worst" and png.startswith(b"\x89PNG") for picture, png in drawn)
    video = next(video for video in data.videos if video.name == first.video)
    np.testing.assert_array_equal(data.frame(video, first.frame, size=SIZE), frames[first.frame])


def test_a_long_stream_has_few_points_and_frames_far_apart_are_named(models):
    frames = 600
    labels = np.zeros(frames, np.int64)
    original = np.tile([0.9, 0.1], (frames, 1))
    own = original.copy()
    own[[100, 110, 300]] = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    metric = of_course(models, [own], [original], [labels])
    found = metric.result(None).figures
    assert [one.frame for one in found["worst_answers"]] == [100, 300]  # 110 is near 100
    (course,) = found["timelines"]
    assert (course.frames, course.each, len(course.macs), len(course.answers)) == (600, 3, 200, 200)
    assert set(course.answers) == {0.0}  # one of three frames does not stand for them


def test_numbers_lose_the_error_that_they_make_more_than_the_original(models):
    output = Output("numbers", values=(0.0, 1.0))
    labels = np.array([0, 1, 1, -1])
    original = np.array([[0.1], [0.8], [1.0], [0.5]])
    own = np.array([[0.1], [0.4], [0.9], [0.6]])
    found = of_course(models, [own], [original], [labels], output).result(None).figures
    (worst,) = found["worst_answers"]
    assert (worst.frame, worst.answer, worst.original, worst.truth) == (1, 0.4, 0.8, 1.0)
    assert worst.lost == pytest.approx(0.6 - 0.2)
    (course,) = found["timelines"]
    assert course.truth == [0.0, 1.0, 1.0, 0.5]  # what has no label is compared with the original


@pytest.mark.parametrize("size", [1, 3, 40])
def test_it_does_not_matter_in_which_pieces_a_stream_comes(models, size):
    generator = np.random.default_rng(1)
    own, original = (generator.dirichlet([1, 1], 40) for _ in range(2))
    labels = np.where(np.arange(40) < 9, -1, generator.integers(0, 2, 40))  # none in the first pieces
    metric, probe, state = AnswersOverTime(), Probe(models["refined"]), None
    metric.begin(Collector(probe).subject)
    for begin in range(0, 40, size):
        part = slice(begin, begin + size)
        piece = probe.run(np.zeros((1, len(labels[part]), *SIZE, 3), np.uint8), state)
        state = piece.state
        answers = Answered(own[None, part], labels[None, part], np.array([0]), 0, original[None, part])
        metric.update(Shown(piece, answers))
    assert metric.result(None) == of_course(models, [own], [original], [labels]).result(None)


def test_maps_are_worst_where_most_positions_differ_and_have_no_answer(models):
    original = np.zeros((5, 2, 2, 3))
    own = original.copy()
    own[3, 0, :, 1] = 1.0
    found = of_course(models, [own], [original], [np.full(5, -1)]).result(None).figures
    (worst,) = found["worst_answers"]
    assert (worst.frame, worst.answer, worst.lost) == (3, None, 0.5)


def test_what_two_workers_have_seen_adds_up(models):
    generator = np.random.default_rng(0)
    predictions, original = (generator.dirichlet([1, 1], (2, 40)) for _ in range(2))
    labels = generator.integers(0, 2, (2, 40))
    whole = of_course(models, predictions, original, labels)
    first = of_course(models, predictions[:1], original[:1], labels[:1])
    record = whole.record()
    first.add(from_bytes(to_bytes({"1": record["1"]})))
    assert first.result(None) == whole.result(None)
