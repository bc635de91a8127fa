"""Quality and cost of each video and class, and intervals over recordings."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import measure, open_dataset
from deltafine.measurement import Probe
from deltafine.measurement import side_by_side as comparison
from deltafine.measurement.accuracy import Accuracy
from deltafine.measurement.collector import Collector
from deltafine.measurement.output import Output
from deltafine.measurement.recordings import recording_of
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.workers import ALONE
from tests.measurement.test_measure import SIZE, classifier, predictions, videos_of
from tests.video.painted import write_video

LENGTHS = {"left/v_hall_full_c01.avi": 13, "right/v_hall_top_c02.avi": 9, "left/v_yard_c01.avi": 11}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number, (name, frames) in enumerate(LENGTHS.items()):
        write_video(folder / name, frames, first=40 * number)
    return open_dataset(folder, validation=1.0)


@pytest.fixture(scope="module")
def models():
    model = classifier()
    sites = select_sites(find_activations(model))
    coarse = DeltaSettings(initial_threshold={"input": 150.0, "conv": 1.0})
    return {"original": insert_deltas(model, []), "refined": insert_deltas(model, sites, coarse)}


@pytest.fixture(scope="module")
def measured(models, data):
    return measure(models, data, frames=4)


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("heavy/v_hwy_full_c06.avi", "v_hwy"),
        ("light/v_hwy_left_c11.avi", "v_hwy"),
        ("heavy/0001.avi", "heavy/0001"),  # each class may count its own videos
        ("hwy_right.avi", "hwy"),
        ("Run/v_Run_g07_c02.avi", "v_Run_g07"),
        ("cam1/day.mp4 [frames 10-29]", "cam1/day"),
        ("cam1/day.mp4", "cam1/day"),
        ("yard-part2.MP4", "yard"),
        ("walk/k3Fq_x_000010_000020.mp4", "walk/k3Fq_x"),
        ("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "April_09_brush_hair"),
        ("drives/drive_12.mp4", "drives/drive_12"),  # a number alone does not tell
        ("scene1/left.mp4", "scene1/left"),  # nor does a name that is nothing but a part
        ("videos/frames.2024", "videos/frames.2024"),
    ],
)
def test_crops_and_pieces_of_one_recording_are_known_by_their_names(name, recording):
    assert recording_of(name, ("heavy", "light", "Run")) == recording


def test_a_word_that_is_a_class_does_not_say_that_a_video_is_a_part():
    assert recording_of("turn_left.mp4", ("left", "right")) == "turn_left"
    assert recording_of("turn_left.mp4") == recording_of("turn_right.mp4")


def test_what_the_data_says_of_recordings_counts_more_than_names():
    assert recording_of("a_left.mp4", group="monday") == recording_of("b.mp4", group="monday") == "monday"


def test_an_interval_is_drawn_over_recordings():
    apart, together = Accuracy(), Accuracy(lambda video: "one" if video < 6 else "two")
    for accuracy in (apart, together):
        for video in range(12):
            accuracy.update(video, np.zeros(4), np.array([0, 0, 0, int(video < 6)]))
    assert apart.result().value == together.result().value == 42 / 48
    assert (together.result().low, together.result().high) == (0.75, 1.0)
    assert apart.result().low > 0.78
    assert (together.recordings, apart.recordings) == (2, 12)
    same = Accuracy(lambda video: str(video // 3))
    for video in range(12):
        same.update(video, np.zeros(4), np.array([0, 0, 0, video % 2]))
    assert same.change_from(same).high == 0


def test_each_video_has_the_figures_that_it_has_by_itself(models, data, measured):
    videos = dict(zip(data.select("validation"), videos_of(data), strict=True))
    for name, model in models.items():
        by_video = {one.video: one for one in measured[name].streams.by_video}
        assert list(by_video) == [video.name for video in videos]
        for video, (frames, labels) in videos.items():
            found = by_video[video.name]
            answers, original = (predictions(one, frames[None])[0].argmax(-1) for one in (model, models["original"]))
            assert found.frames == found.labelled == LENGTHS[video.name]
            assert found.accuracy == np.mean(answers == labels)
            assert found.fidelity == np.mean(answers == original)
            alone = Collector(Probe(model))
            alone.update(alone.probe.run(frames[None]))
            assert found.mac_density == alone.operations().mac_density
            assert found.frame_macs_worst == alone.operations().frame_macs_worst
            assert found.label_changes == 0
    assert [one.recording for one in measured["refined"].streams.by_video] == ["v_hall", "v_yard", "v_hall"]
    assert measured["refined"].streams.recordings == measured["refined"].clips.recordings == 2
    assert measured["refined"].clips.by_video == []


def test_the_column_of_groups_says_what_the_recordings_are(models, tmp_path):
    for number, name in enumerate(("a.avi", "b.avi", "c.avi")):
        write_video(tmp_path / name, 6, first=30 * number)
    (tmp_path / "manifest.csv").write_text("path,label,group\na.avi,x,hall\nb.avi,y,hall\nc.avi,x,\n")
    grouped = open_dataset(tmp_path, validation=1.0)
    streams = measure({"original": models["original"]}, grouped, frames=3)["original"].streams
    assert [one.recording for one in streams.by_video] == ["hall", "hall", "c"]
    assert streams.recordings == 2


def test_classes_and_what_they_are_taken_for_add_up_to_the_accuracy(models, data, measured):
    videos = videos_of(data)
    for name, model in models.items():
        figures = measured[name].streams
        answers = np.concatenate([predictions(model, frames[None])[0].argmax(-1) for frames, _ in videos])
        labels = np.concatenate([known for _, known in videos])
        for one in figures.by_class:
            assert one.labelled == (labels == one.label).sum()
            assert one.answered == (answers == one.label).sum()
            assert one.right == (answers[labels == one.label] == one.label).sum()
        assert sum(one.right for one in figures.by_class) / len(labels) == figures.frame_accuracy.value
        wrong = {(one.label, one.answer): one.count for one in figures.confused}
        assert sum(wrong.values()) == (answers != labels).sum()
        assert all(count == ((labels == a) & (answers == b)).sum() for (a, b), count in wrong.items())
    assert figures.confused


def test_the_gain_over_the_frozen_control_is_paired(measured):
    for figures in (measured[name].streams for name in measured):
        gain = figures.gain_over_frozen
        assert gain.value == pytest.approx(figures.frame_accuracy.value - figures.frozen_accuracy.value)
        assert gain.low <= gain.value <= gain.high
    assert measured["refined"].clips.gain_over_frozen is None


def test_the_errors_of_videos_make_up_that_of_all(data):
    keras.utils.set_random_seed(0)
    network = [keras.Input((*SIZE, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(1, name="head")]
    regressor = insert_deltas(keras.Sequential(network), [])
    found = measure({"original": regressor}, data, frames=4, output=Output("numbers", values=(-1.0, 2.5)))
    figures = found["original"].streams
    frames = np.array([one.frames for one in figures.by_video])
    errors = np.array([one.error for one in figures.by_video])
    assert figures.label_error == pytest.approx(np.sqrt((frames * errors**2).sum() / frames.sum()))
    assert figures.by_class == figures.confused == []


def test_two_processes_find_the_same_of_each_video(models, data, measured):
    class Half:
        count, chief = 2, True
        others: list[bytes] = []

        def __init__(self, index):
            self.index = index

        def together(self, work):
            return work()

        def gather(self, content):
            Half.others[self.index : self.index + 1] = [content]
            return [Half.others[0], content] if self.index else [content, content]

    probes = {name: Probe(model) for name, model in models.items()}
    comparison.measure_streams(probes, data, workers=Half(0))
    found = comparison.measure_streams(probes, data, workers=Half(1))
    alone = comparison.measure_streams(probes, data, workers=ALONE)
    assert found["refined"].by_video == alone["refined"].by_video == measured["refined"].streams.by_video
    assert found["refined"].confused == alone["refined"].confused
