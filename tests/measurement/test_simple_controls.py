"""Held answers, the motion gate and models that run on every k-th frame, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from deltafine import open_dataset
from deltafine.document.controls import AnswerAgePoint
from deltafine.measurement import Probe, judging, motion_gate
from deltafine.measurement import side_by_side as comparison
from deltafine.measurement.answer_age import AnswerAge
from deltafine.measurement.collector import Collector
from deltafine.measurement.held_answers import EVERY, HeldAnswers
from deltafine.measurement.held_runs import run_held
from deltafine.measurement.metric import Answered
from deltafine.measurement.motion_gate import THRESHOLDS, MotionGate, mean_difference
from deltafine.measurement.output import Output
from deltafine.measurement.refined_held import RefinedHeld
from deltafine.measurement.side_by_side import measure, measure_with_controls
from deltafine.measurement.simple_controls import SimpleControls
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.workers import from_bytes, to_bytes
from tests.measurement.test_measure import classifier
from tests.video.painted import write_video

SIZE = (16, 32)
CLASSES, NUMBERS = Output(), Output("numbers", values=(-1.0, 0.0, 2.5))


def last_run(frame, every, phase):
    """The frame that ran last: the first of the stream, or one of those of the phase."""
    return max([0, *(run for run in range(phase, frame + 1, every))])


def streams_of(outputs, seed=0, lengths=(61, 17, 3)):
    random = np.random.default_rng(seed)
    return [(random.normal(size=(n, outputs)).cumsum(0), random.integers(-1, 3, n)) for n in lengths]


def pieces_of(stream, size):
    predictions, labels = stream
    for begin in range(0, len(labels), size):
        yield slice(begin, begin + size), predictions[begin : begin + size], labels[begin : begin + size]


def answered(predictions, labels):
    return Answered(predictions[None], labels[None], np.array([0]), original=predictions[None])


def held_points(output, labelled, streams, size=7):
    held = HeldAnswers(output, labelled)
    for unit, stream in enumerate(streams):
        held.begin()
        for _, predictions, labels in pieces_of(stream, size):
            held.update(answered(predictions, labels), unit)
    return held.points()


def assert_like(point, by_phase):
    assert len(by_phase) == point.every
    assert point.quality == pytest.approx(np.mean(by_phase))
    assert (point.low, point.high) == pytest.approx((min(by_phase), max(by_phase)))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_held_accuracy_in_every_phase_is_that_of_a_plain_loop(size):
    streams = streams_of(3)
    points = held_points(CLASSES, True, streams, size)
    assert [point.every for point in points] == list(EVERY)
    for point in points:
        by_phase = []
        for phase in range(point.every):
            right = of = 0
            for predictions, labels in streams:
                for frame, label in enumerate(labels):
                    if label >= 0:
                        right += predictions[last_run(frame, point.every, phase)].argmax() == label
                        of += 1
            by_phase.append(right / of)
        assert_like(point, by_phase)


def test_without_labels_held_answers_are_compared_with_the_originals_own():
    streams = streams_of(3)
    for point in held_points(CLASSES, False, streams):
        by_phase = []
        for phase in range(point.every):
            same = [
                predictions[last_run(frame, point.every, phase)].argmax() == predictions[frame].argmax()
                for predictions, _ in streams
                for frame in range(len(predictions))
            ]
            by_phase.append(np.mean(same))
        assert_like(point, by_phase)


@pytest.mark.parametrize("labelled", [True, False])
def test_held_errors_of_numbers_are_those_of_a_plain_loop(labelled):
    streams = streams_of(1)
    for point in held_points(NUMBERS, labelled, streams):
        by_phase = []
        for phase in range(point.every):
            errors, targets = [], []
            for predictions, labels in streams:
                for frame, label in enumerate(labels):
                    if labelled and label < 0:
                        continue
                    target = NUMBERS.values[label] if labelled else predictions[frame, 0]
                    errors.append(predictions[last_run(frame, point.every, phase), 0] - target)
                    targets.append(target)
            by_phase.append(np.sqrt(np.mean(np.square(errors))) / np.std(targets))
        assert_like(point, by_phase)


def test_a_network_that_takes_clips_holds_the_last_answer_of_a_window():
    random = np.random.default_rng(1)
    predictions, labels = random.normal(size=(12, 4, 3)), random.integers(0, 3, (12, 4))
    held = HeldAnswers(CLASSES, True)
    held.begin()
    for of_window, known in zip(predictions, labels, strict=True):
        held.update(answered(of_window, known), 0, window=True)
    for point in held.points():
        by_phase = []
        for phase in range(point.every):
            right = 0
            for window in range(12):
                run = last_run(window, point.every, phase)
                given = predictions[window] if run == window else np.repeat(predictions[run][-1:], 4, axis=0)
                right += (given.argmax(-1) == labels[window]).sum()
            by_phase.append(right / 48)
        assert_like(point, by_phase)


@pytest.fixture(params=["compiled", "without numba"])
def gate_compiled_or_not(request, monkeypatch):
    if request.param == "without numba":
        monkeypatch.setattr(motion_gate, "why_no_numba", lambda: "it is not installed")


@pytest.mark.parametrize("size", [1, 5, 100])
def test_the_motion_gate_decides_as_a_plain_loop_does(size, gate_compiled_or_not):
    random = np.random.default_rng(2)
    streams = streams_of(3, lengths=(40, 9))
    films = [random.integers(0, 256, (len(labels), 4, 6, 3)) // random.choice([1, 9, 60], (len(labels), 1, 1, 1))
             for _, labels in streams]  # fmt: skip
    films = [np.uint8(film) for film in films]
    gate = MotionGate(CLASSES, True)
    for unit, (stream, film) in enumerate(zip(streams, films, strict=True)):
        gate.begin()
        for part, predictions, labels in pieces_of(stream, size):
            gate.update(film[part], answered(predictions, labels), unit)
    points = gate.points()
    assert [point.threshold for point in points] == list(THRESHOLDS)
    for point in points:
        runs = right = of = frames = 0
        for (predictions, labels), film in zip(streams, films, strict=True):
            last = None
            for frame, label in enumerate(labels):
                if last is None or np.abs(film[frame].astype(float) - film[last]).mean() > point.threshold:
                    last, runs = frame, runs + 1
                frames += 1
                if label >= 0:
                    right, of = right + (predictions[last].argmax() == label), of + 1
        assert (point.share, point.quality) == (runs / frames, right / of)
    assert 0.02 < points[-1].share < points[0].share


@pytest.mark.parametrize("shape", [(5, 7, 3), (4100, 4100, 1)])
def test_a_gate_compares_exactly_however_large_frames_are(shape, gate_compiled_or_not):
    size = int(np.prod(shape))
    film = np.zeros((3, *shape), np.uint8)
    film[1] = 255
    film[2] = 255
    film[2].flat[0] = 254  # 1 of so many bytes
    least = 1 / size
    gate = MotionGate(CLASSES, True, thresholds=(0.0, least * 0.999, least, 254.999, 255.0))
    gate.update(film, answered(np.eye(3), np.zeros(3, int)), 0)
    assert [point.share * 3 for point in gate.points()] == pytest.approx([3, 3, 2, 2, 1])


def test_a_difference_equal_to_the_threshold_does_not_run(gate_compiled_or_not):
    film = np.zeros((2, 2, 2, 1), np.uint8)
    film[1] = 4
    assert mean_difference(*film) == 4.0
    gate = MotionGate(CLASSES, True, thresholds=(3.0, 4.0))
    gate.update(film, answered(np.eye(2), np.zeros(2, int)), 0)
    assert [point.share for point in gate.points()] == [1.0, 0.5]


@pytest.mark.parametrize("shape", [(5, 7, 3), (300, 4, 1), (4100, 4100, 1)])
def test_a_difference_is_exact_however_large(shape):
    random = np.random.default_rng(6)
    one, other = random.integers(0, 256, (2, *shape), dtype=np.uint8)
    assert mean_difference(one, other) == np.abs(one.astype(int) - other).sum() / one.size
    assert mean_difference(np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8)) == 255


def test_maps_are_judged_in_parts_as_at_once(monkeypatch):
    random = np.random.default_rng(8)
    maps, film = random.normal(size=(40, 6, 5, 3)).cumsum(0), random.integers(0, 90, (40, 2, 3, 1), dtype=np.uint8)

    def points(at_once):
        monkeypatch.setattr(judging, "AT_ONCE", at_once)
        held, gate = HeldAnswers(CLASSES, False), MotionGate(CLASSES, False)
        shown = Answered(maps[None], np.full((1, 40), -1), np.array([0]), original=maps[None])
        held.update(shown, 0)
        gate.update(film, shown, 0)
        return held.points(), gate.points()

    held, gate = points(1)
    assert points(10**6) == (held, gate)
    answers = maps.argmax(-1)
    of_phases = [
        np.mean([(answers[last_run(frame, 3, phase)] == answers[frame]).mean() for frame in range(40)])
        for phase in range(3)
    ]
    assert_like(held[1], of_phases)


def test_several_workers_come_to_the_figures_of_one():
    streams = streams_of(1, lengths=(30, 25, 20))
    for output, labelled in ((CLASSES, True), (NUMBERS, True), (NUMBERS, False)):
        parts = []
        for mine in ((0, 2), (1,)):
            held = HeldAnswers(output, labelled)
            for unit in mine:
                held.begin()
                held.update(answered(*streams[unit]), unit)
            parts.append(held)
        parts[0].add(parts[1].record())
        assert parts[0].points() == held_points(output, labelled, streams, size=100)


def test_nothing_is_found_where_nothing_is_labelled():
    held, gate = HeldAnswers(CLASSES, True), MotionGate(CLASSES, True)
    held.update(answered(np.eye(3), np.full(3, -1)), 0)
    gate.update(np.zeros((3, 2, 2, 1), np.uint8), answered(np.eye(3), np.full(3, -1)), 0)
    assert held.points() == gate.points() == []


def test_an_answer_that_is_no_number_is_not_taken_for_a_right_one():
    predictions = np.array([[0.0], [np.nan], [1.0], [2.0]])
    held = HeldAnswers(NUMBERS, True)
    held.update(answered(predictions, np.array([0, 1, 2, 2])), 0)
    assert np.isnan(held.points()[0].quality)


@pytest.fixture(scope="module")
def models():
    model = classifier()
    sites = select_sites(find_activations(model))
    return {
        "original": insert_deltas(model, []),
        "refined": insert_deltas(model, sites, DeltaSettings(initial_threshold={"input": 60.0, "conv": 0.4})),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    rows = ["video,frame,label"]
    random = np.random.default_rng(4)
    for number, frames in enumerate((45, 23)):
        moves = random.choice([0, 2, 12, 60], (frames, 1, 1, 1)) * random.normal(size=(frames, 4, 8, 3))
        film = (128 + moves.cumsum(0)).clip(0, 255).astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)
        write_video(folder / f"v{number}.avi", frames, pictures=list(film))
        rows += [f"v{number}.avi,{frame},{'ab'[(frame + number) // 6 % 2]}" for frame in range(frames)]
    (folder / "labels.csv").write_text("\n".join(rows))
    return open_dataset(folder, validation=1.0)


def films_of(data):
    return [next(iter(pieces)) for _, pieces in data.streams("validation", size=SIZE, chunk=100)]


def answers_of(model, frames):
    return Probe(model).run(frames[None]).predictions[0].argmax(-1)


def test_controls_on_real_files_are_those_of_plain_loops(models, data):
    _, controls = measure_with_controls(models, data, 4, refined_held=(2, 4))
    assert controls.judged_by == "accuracy"
    films = [(frames, labels, answers_of(models["original"], frames)) for frames, labels in films_of(data)]
    frames_of_all = sum(len(labels) for _, labels, _ in films)
    for point in controls.held:
        by_phase = [
            sum(
                answers[last_run(frame, point.every, phase)] == label
                for _, labels, answers in films
                for frame, label in enumerate(labels)
            )
            / frames_of_all
            for phase in range(point.every)
        ]
        assert_like(point, by_phase)
    for point in controls.motion_gate:
        runs = right = 0
        for frames, labels, answers in films:
            last = None
            for frame, label in enumerate(labels):
                if last is None or np.abs(frames[frame].astype(int) - frames[last]).mean() > point.threshold:
                    last, runs = frame, runs + 1
                right += answers[last] == label
        assert (point.share, point.quality) == (runs / frames_of_all, right / frames_of_all)
    assert len({point.share for point in controls.motion_gate}) > 2


def test_the_refined_model_held_is_run_and_counted_on_every_kth_frame_alone(models, data):
    _, controls = measure_with_controls(models, data, 4, refined_held=(2, 4))
    assert [point.every for point in controls.refined_held] == [2, 4]
    for point in controls.refined_held:
        probe = Probe(models["refined"])
        macs = right = frames_of_all = steady = 0
        for frames, labels in films_of(data):
            piece = probe.run(frames[None, :: point.every])
            answers = piece.predictions[0].argmax(-1)
            right += sum(answers[frame // point.every] == label for frame, label in enumerate(labels))
            macs += sum(counts.macs_delta[0, 1:].sum() for counts in piece.counts[: len(probe.layers)])
            frames_of_all, steady = frames_of_all + len(labels), steady + len(labels) - 1
        dense = sum(place.dense_macs for place in probe.layers)
        assert point.quality == right / frames_of_all
        assert point.mac_density == pytest.approx(macs / steady / dense)


def test_controls_do_not_depend_on_how_much_is_measured_at_once(models, data, monkeypatch):
    whole = measure_with_controls(models, data, 4, refined_held=(3,))[1]
    monkeypatch.setattr(comparison, "VALUES_AT_ONCE", 2 * SIZE[0] * SIZE[1] * 3)  # two frames
    assert measure_with_controls(models, data, 4, refined_held=(3,))[1] == whole


def test_the_original_alone_is_held_and_gated_and_a_model_alone_is_not(models, data):
    _, alone = measure_with_controls({"original": models["original"]}, data, 4, refined_held=(2,))
    assert len(alone.held) == len(EVERY)
    assert alone.refined_held == []
    _, refined = measure_with_controls({"refined": models["refined"]}, data, 4, refined_held=(2,))
    assert refined.held == refined.motion_gate == []
    assert [point.every for point in refined.refined_held] == [2]
    unlabelled = SimpleControls({"refined": Collector(Probe(models["refined"])).subject}, labelled=False)
    assert unlabelled.result() is None


@pytest.mark.parametrize("size", [1, 3, 16])
def test_a_model_held_has_the_figures_of_the_frames_that_it_runs_on(models, size):
    frames = np.random.default_rng(3).integers(0, 256, (1, 22, *SIZE, 3), dtype=np.uint8)
    probe, state, every = Probe(models["refined"]), None, 3
    alone = probe.run(frames[:, ::every])
    collector = Collector(probe)
    pieces = []
    for begin in range(0, 22, size):
        piece, state = run_held(probe, frames[:, begin : begin + size], state, every)
        collector.update(piece)
        pieces.append(piece)
    run = np.arange(22) % every == 0
    for name in ("changed", "macs_delta", "macs_spatial"):
        for index in range(len(probe.layers)):
            counted = np.concatenate([getattr(piece.counts[index], name)[0] for piece in pieces])
            np.testing.assert_array_equal(counted[run], getattr(alone.counts[index], name)[0])
            assert not counted[~run].any()
    predictions = np.concatenate([piece.predictions[0] for piece in pieces])
    np.testing.assert_allclose(predictions, alone.predictions[0].repeat(every, axis=0)[:22], rtol=1e-5)
    steady = np.concatenate([piece.steady[0] for piece in pieces])
    assert not steady[0]
    assert steady[1:].all()
    whole = Collector(probe)
    whole.update(alone)
    found, often = collector.operations(), whole.operations()
    for name in ("effective_macs_delta", "overhead_operations"):  # 7 of 21 frames
        assert getattr(found, name) == pytest.approx(getattr(often, name) / every)
    assert found.energy_dense == pytest.approx(often.energy_dense)
    assert found.energy_delta == pytest.approx(often.energy_delta / every)


def test_a_model_held_runs_on_as_many_frames_at_once_as_come_in_a_piece(models, monkeypatch):
    subject, ran = Collector(Probe(models["refined"])).subject, []
    run = subject.probe.run
    monkeypatch.setattr(subject.probe, "run", lambda frames, state: ran.append(frames.shape[1]) or run(frames, state))
    frames = np.random.default_rng(3).integers(0, 256, (30, *SIZE, 3), dtype=np.uint8)
    held = RefinedHeld(subject, 4, True)
    for begin in range(0, 30, 4):
        piece = frames[begin : begin + 4]
        held.update(piece, Answered(np.zeros((1, len(piece), 2)), np.zeros((1, len(piece)), int), np.array([0])), 0)
    (point,) = held.points()
    assert ran == [4, 4]
    answers = run(frames[None, ::4]).predictions[0].argmax(-1).repeat(4)[:30]
    assert point.quality == np.mean(answers == 0)


def test_measuring_a_model_held_judges_all_frames(models, data):
    found = measure(models, data, frames=4, every={"refined": 3})["refined"].streams
    right = of = 0
    for frames, labels in films_of(data):
        answers = answers_of(models["refined"], frames[::3])
        right += sum(answers[frame // 3] == label for frame, label in enumerate(labels))
        of += len(labels)
    assert found.frames == of
    assert found.frame_accuracy.value == right / of


def delays_of(answers, labels):
    """Frames until each new label is answered, infinite where the next one comes first."""
    found = []
    for begin in range(1, len(labels)):
        if labels[begin] == labels[begin - 1] or min(labels[begin - 1 : begin + 1]) < 0:
            continue
        end = begin
        while end < len(labels) and labels[end] == labels[begin]:
            end += 1
        followed = [frame - begin for frame in range(begin, end) if answers[frame] == labels[begin]]
        found.append(followed[0] if followed else np.inf)
    return found


def assert_ages(point, model, every, delays, changes):
    assert (point.model, point.every, point.changes) == (model, every, changes)
    ordered = sorted(delays)
    for given, share in ((point.median, 0.5), (point.p95, 0.95)):
        expected = ordered[int(np.ceil(share * len(ordered))) - 1]
        assert given == (expected if np.isfinite(expected) else None)
    assert point.followed == pytest.approx(np.isfinite(delays).mean())


def test_the_age_of_answers_is_that_of_a_plain_loop_in_whatever_parts():
    random = np.random.default_rng(5)
    labels = random.integers(-1, 3, 40).repeat(5)
    answers = np.concatenate([[0] * 3, labels[:-3]])
    answers[random.random(200) < 0.3] = 1
    for size in (1, 7, 200):
        age = AnswerAge(1)
        for begin in range(0, 200, size):
            age.update(answers[None, begin : begin + size], labels[begin : begin + size])
        delays = delays_of(answers, labels)
        assert_ages(age.point("m", 1), "m", 1, delays, len(delays))


def test_a_label_that_never_changes_has_no_age():
    age = AnswerAge(2)
    age.update(np.zeros((2, 9), int), np.zeros(9, int))
    assert age.point("m", 1) is None


def test_a_stream_that_ends_first_was_not_followed_and_the_next_begins_without_a_change():
    age = AnswerAge(1)
    age.update(np.array([[0, 0, 0]]), np.array([0, 1, 1]))
    age.begin()
    age.update(np.array([[2, 2]]), np.array([2, 2]))
    assert age.point("m", 1) == AnswerAgePoint(model="m", every=1, changes=1, followed=0, median=None, p95=None)


def test_ages_on_real_files_are_those_of_plain_loops_for_all_models_and_phases(models, data):
    _, controls = measure_with_controls(models, data, 4, refined_held=(2,))
    films = [
        (labels, answers_of(models["original"], frames), answers_of(models["refined"], frames[::2]).repeat(2))
        for frames, labels in films_of(data)
    ]
    points = {(point.model, point.every): point for point in controls.answer_age}
    assert set(points) == {("original", k) for k in (1, *EVERY)} | {("refined", 1), ("refined", 2)}
    for every in (1, *EVERY):
        delays = []
        for labels, answers, _ in films:
            for phase in range(every):
                held = [answers[last_run(frame, every, phase)] for frame in range(len(labels))]
                delays += delays_of(held, labels)
        assert_ages(points["original", every], "original", every, delays, len(delays) // every)
    delays = [delay for labels, _, held in films for delay in delays_of(held, labels)]
    assert_ages(points["refined", 2], "refined", 2, delays, len(delays))


def test_controls_of_two_workers_add_up_to_those_of_one(models, data):
    subjects = {name: Collector(Probe(model)).subject for name, model in models.items()}

    def seen(*mine):
        controls = SimpleControls(subjects, labelled=True, refined_held=(2,))
        for unit, (frames, labels) in enumerate(films_of(data)):
            if unit in mine:
                shown = {name: subject.probe.run(frames[None]).predictions for name, subject in subjects.items()}
                controls.begin()
                controls.update(
                    frames, {name: Answered(of, labels[None], np.array([unit])) for name, of in shown.items()}, unit
                )
        return controls

    first = seen(0)
    first.add(from_bytes(to_bytes(seen(1).record())))
    assert first.result() == seen(0, 1).result()
