"""``measure``: models side by side on real video files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import measure, open_dataset
from deltafine.errors import DeltafineError
from deltafine.measurement import Probe
from deltafine.measurement import side_by_side as comparison
from deltafine.measurement.collector import Collector
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from tests.video.painted import write_classes, write_video

SIZE = (16, 32)


def classifier(seed=2):
    """One that changes its mind within a video."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, strides=2, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(2, activation="softmax", name="head"),
        ]
    )
    for weight in model.weights:
        weight.assign(np.random.default_rng(seed).normal(0, 0.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def models():
    model = classifier()
    sites = select_sites(find_activations(model))
    return {
        "original": insert_deltas(model, []),
        "stale": insert_deltas(model, sites, DeltaSettings(initial_threshold={"input": 150.0, "conv": 1.0})),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("videos"), {"left": 6, "right": 6}, frames=13)


@pytest.fixture(scope="module")
def data(folder):
    return open_dataset(folder, validation=0.5)


@pytest.fixture(scope="module")
def measured(models, data):
    return measure(models, data, frames=4)


def videos_of(data):
    """Every validation video in one piece with its labels, read independently of the measurement."""
    streams = data.streams("validation", size=SIZE, chunk=100)
    return [next(iter(pieces)) for _, pieces in streams]


def predictions(clip_model, clips):
    per_frame = keras.Model(clip_model.inputs[0], clip_model.get_layer("frame_predictions").output)
    return np.asarray(per_frame(clips.astype("float32")))


def test_figures_of_streams_equal_those_by_hand(models, data, measured):
    videos = videos_of(data)
    assert len(videos) == 6
    answers = {name: [predictions(model, frames[None])[0] for frames, _ in videos] for name, model in models.items()}
    labels = [known for _, known in videos]
    for name, model in models.items():
        figures = measured[name].streams
        assert (figures.videos, figures.frames) == (6, 6 * 13)
        right = [found.argmax(-1) == known for found, known in zip(answers[name], labels, strict=True)]
        assert figures.frame_accuracy.value == pytest.approx(np.mean(right))
        whole = [found.mean(0).argmax() == known[0] for found, known in zip(answers[name], labels, strict=True)]
        assert figures.clip_accuracy.value == np.mean(whole)
        assert figures.window_accuracy is None
        collector = Collector(Probe(model))
        for frames, _ in videos:
            collector.update(collector.probe.run(frames[None]))
        assert figures.operations == collector.operations()
        assert figures.layers == collector.layers()
        held = [found[0].argmax() == known for found, known in zip(answers["original"], labels, strict=True)]
        assert figures.frozen_accuracy.value == pytest.approx(np.mean(held))
        same = [a.argmax(-1) == b.argmax(-1) for a, b in zip(answers[name], answers["original"], strict=True)]
        assert figures.fidelity == np.mean(same)
    change = measured["stale"].streams.accuracy_change.value
    assert change == pytest.approx(
        measured["stale"].streams.frame_accuracy.value - measured["original"].streams.frame_accuracy.value
    )
    assert measured["original"].streams.accuracy_change is None
    assert measured["original"].streams.fidelity == 1


def test_figures_of_clips_equal_those_by_hand(models, data, measured):
    (clips,) = data.clips("validation", frames=4, size=SIZE, batch=1000)
    assert len(clips.frames) == 6 * 4  # three clips side by side and one that ends on the last frame
    found = {name: predictions(model, clips.frames) for name, model in models.items()}
    for name in models:
        figures = measured[name].clips
        assert (figures.videos, figures.frames) == (6, 6 * 4 * 4)
        assert figures.window_accuracy.value == np.mean(found[name].mean(1).argmax(-1) == clips.labels)
        assert figures.frame_accuracy.value == np.mean(found[name].argmax(-1) == clips.labels[:, None])
        whole = [
            found[name][clips.videos == video].mean((0, 1)).argmax() == clips.labels[clips.videos == video][0]
            for video in np.unique(clips.videos)
        ]
        assert figures.clip_accuracy.value == np.mean(whole)
        held = found["original"][:, 0].argmax(-1)  # the first frame's answer for the whole window
        assert figures.frozen_accuracy.value == np.mean(held == clips.labels)
    change = measured["stale"].clips.accuracy_change.value
    windows = [measured[name].clips.window_accuracy.value for name in ("stale", "original")]
    assert change == pytest.approx(windows[0] - windows[1])


def test_the_delta_model_saves_work_and_pays_with_fidelity(measured):
    original, stale = (measured[name].streams for name in ("original", "stale"))
    assert 0 < stale.operations.mac_density < original.operations.mac_density
    assert stale.fidelity < 1
    assert original.deltas == []
    assert [delta.name for delta in stale.deltas] == ["input_delta", "conv_delta"]
    assert stale.operations.state_bytes == original.operations.state_bytes + sum(d.state_bytes for d in stale.deltas)


def test_figures_do_not_depend_on_how_much_is_measured_at_once(models, data, measured, monkeypatch):
    monkeypatch.setattr(comparison, "VALUES_AT_ONCE", 5 * SIZE[0] * SIZE[1] * 3)  # five frames, one clip
    again = measure(models, data, frames=4)
    for name in models:
        for ours, theirs in zip(
            (again[name].streams, again[name].clips), (measured[name].streams, measured[name].clips), strict=True
        ):
            assert ours.model_dump() == theirs.model_dump()


def test_frames_with_labels_of_their_own_are_judged_one_by_one(models, tmp_path):
    write_video(tmp_path / "one.avi", 9, first=3)
    write_video(tmp_path / "two.avi", 9, first=40)
    rows = [f"{name}.avi,{frame},{'ab'[(frame + shift) // 4 % 2]}" for shift, name in enumerate(("one", "two"))
            for frame in range(1, 8)]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,label", *rows]))
    data = open_dataset(tmp_path)
    found = measure(models, data, frames=4)["stale"].streams
    right = of = 0
    for frames, known in videos_of(data):
        answers = predictions(models["stale"], frames[None])[0].argmax(-1)
        right, of = right + ((answers == known) & (known >= 0)).sum(), of + (known >= 0).sum()
    assert of == 14
    assert found.frame_accuracy.value == right / of
    assert found.clip_accuracy is None


def test_without_labels_there_is_fidelity_and_no_accuracy(models, folder, tmp_path):
    for number in range(2):
        write_video(tmp_path / f"v{number}.avi", 8, first=number)
    found = measure(models, open_dataset(tmp_path, validation=0.5), frames=4)["stale"]
    for figures in (found.streams, found.clips):
        assert figures.frame_accuracy is figures.clip_accuracy is figures.window_accuracy is None
        assert figures.accuracy_change is figures.frozen_accuracy is None
        assert 0 <= figures.fidelity <= 1


def test_without_the_original_there_is_nothing_to_compare_with(models, data):
    figures = measure({"stale": models["stale"]}, data, frames=4)["stale"].streams
    assert figures.fidelity is figures.accuracy_change is None
    assert figures.frame_accuracy is not None


def test_without_the_original_a_models_own_first_answer_is_the_control(models, data):
    alone = measure({"stale": models["original"]}, data, frames=4)["stale"]
    beside = measure({"original": models["original"]}, data, frames=4)["original"]
    assert alone.streams.frozen_accuracy == beside.streams.frozen_accuracy
    assert alone.clips.frozen_accuracy == beside.clips.frozen_accuracy


def test_progress_is_told_to_the_end(models, data):
    told = []
    measure({"stale": models["stale"]}, data, frames=4, progress=lambda *news: told.append(news))
    frames = [(done, total) for what, done, total in told if what == "streams, frames"]
    assert frames == [(done * frames[-1][1] // 6, frames[-1][1]) for done in range(1, 7)]
    assert told[-1][0] == "clips"
    assert told[-1][1] == told[-1][2]


def test_models_of_different_frame_sizes_are_refused(models, data):
    other = insert_deltas(keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)]), [])
    with pytest.raises(DeltafineError, match="different shapes"):
        measure({**models, "other": other}, data, frames=4)


def test_videos_of_one_frame_are_refused_in_one_sentence(models, tmp_path):
    for number in range(4):
        write_video(tmp_path / "class" / f"v{number}.avi", 1, first=number)
    with pytest.raises(DeltafineError, match="second frame"):
        measure(models, open_dataset(tmp_path, validation=0.5), frames=1)
