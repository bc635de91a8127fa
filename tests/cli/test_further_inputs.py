"""A model that takes a speed and a gear beside its frames, from the list of videos to refined answers."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import measure, measure_model, refine
from deltafine.errors import DeltafineError
from deltafine.jobs import pictures
from deltafine.jobs.bench import bench
from deltafine.layers import Stream
from deltafine.measurement.output import Output
from deltafine.model import insert_deltas, load
from deltafine.model.clip_model import with_time
from deltafine.report import load_report
from deltafine.video import open_dataset
from tests.cli.running import Command
from tests.small_runs import FAST, SIZE, write_small_video
from tests.test_workers import ended, start

VIDEOS, FRAMES = 6, 30
SHARES = {0: 0.5, 1: 1.0, 2: 2.0}
"""By gear: what the speed is multiplied with."""
RUN: dict[str, Any] = {**FAST, "epochs": 1, "passes": 1, "recalibrate": 0}


def speed_of(video: int, frame: int) -> float:
    """Another one in each frame, so that a frame that gets its neighbour's is found out."""
    return round(float(np.random.default_rng([video, frame]).uniform(-3, 3)), 3)


def gear_of(video: int) -> int:
    return video % 3


def answer_of(video: int, frame: int) -> float:
    """What the model answers, but for a little that it makes of the picture."""
    return SHARES[gear_of(video)] * speed_of(video, frame)


def driver(several: bool = False) -> Any:
    """Speed times what the gear stands for, and a little of how bright the picture is; exactly, by its weights."""
    keras.utils.set_random_seed(0)
    frames = keras.Input((SIZE, SIZE, 3), name="frames")
    speed = keras.Input((1,), name="speed")
    gear = keras.Input((1,), dtype="int32", name="gear")
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1")(layers.Rescaling(1 / 255)(frames))
    x = layers.Conv2D(4, 3, activation="relu", name="conv2")(x)
    seen = layers.Dense(1, name="seen")(layers.GlobalAveragePooling2D()(x))
    table = layers.Embedding(3, 1, name="table")
    paced = layers.Multiply()([speed, layers.Flatten()(table(gear))])
    both = layers.Concatenate()([layers.Rescaling(0.01)(seen), paced])
    answer = layers.Dense(1, name="steering", kernel_initializer="ones")(both)
    model = keras.Model([frames, speed, gear], [answer, seen] if several else answer, name="driver")
    table.set_weights([np.array([[SHARES[gear]] for gear in range(3)])])
    return model


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with a steering and a speed for each frame, and a gear for all of them."""
    folder = tmp_path_factory.mktemp("drives")
    for video in range(VIDEOS):
        write_small_video(folder / "videos" / f"{video}.avi", video % 2 == 0, seed=video, frames=FRAMES)
    write_labels(folder)
    return folder


def write_labels(folder: Path, *, late: int = 0, label: str = "label", without: tuple[int, int] | None = None) -> None:
    """The list; its speeds come so many frames late, and one frame has none."""
    with (folder / "labels.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["video", "frame", label, "split", "speed", "gear", "weather"])
        for video in range(VIDEOS):
            split = "train" if video < 3 else "validation"
            lines.writerow([f"{video}.avi", "", "", split, "", gear_of(video), "dry"])
            for frame in range(FRAMES):
                speed = "" if (video, frame) == without else speed_of(video, (frame - late) % FRAMES)
                lines.writerow([f"{video}.avi", frame, round(answer_of(video, frame), 4), split, speed, "", ""])


@pytest.fixture
def own_videos(videos: Path, tmp_path: Path) -> Path:
    """A copy, of which a test may change the list."""
    return shutil.copytree(videos, tmp_path / "drives")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "driver.keras"
    driver().save(path)
    return path


@pytest.fixture(scope="module")
def run(model: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    refine(model, videos, out, **RUN, fps=12.5, frame_stride=2)
    return out


def drive(video: int, folder: Path) -> dict[str, np.ndarray]:
    """What a video gives the model, as Keras takes it: (time, ...)."""
    data = open_dataset(folder)
    one = next(one for one in data.videos if one.path.stem == str(video))
    stream = next(stream for found, stream in data.streams(one.split, size=(SIZE, SIZE)) if found is one)
    frames = np.concatenate([frames for frames, _ in stream]).astype("float32")
    speeds = np.array([[speed_of(video, frame)] for frame in range(len(frames))], "float32")
    return {"frames": frames, "speed": speeds, "gear": np.full((len(frames), 1), gear_of(video))}


def test_a_refined_model_has_had_the_right_numbers_with_every_frame(run: Path) -> None:
    report = load_report(run)
    for name in ("original", "refined"):
        for figures in (report.models[name].streams, report.models[name].clips):
            assert figures.label_error is not None
            assert figures.label_error < 0.05, name
    assert report.models["refined"].streams.operations.mac_density < 0.5
    assert report.model.further_inputs == [
        "speed (column speed of labels.csv)",
        "gear (column gear of labels.csv)",
    ]
    assert report.reference is not None
    assert report.reference.value is not None
    assert report.reference.value < 0.05
    assert report.warnings.count("labels.csv has the column 'weather', which is not used.") == 1
    assert not any("'speed'" in warning for warning in report.warnings)


@pytest.mark.parametrize("late", [0, 1])
def test_the_error_tells_numbers_that_come_a_frame_late(late: int, model: Path, own_videos: Path) -> None:
    write_labels(own_videos, late=late)
    report, _ = measure_model(model, own_videos)
    error = report.models["original"].streams.label_error
    assert error is not None
    assert (error > 0.5) == bool(late)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"start": "carried"}, marks=pytest.mark.slow),
        {"start": "noise", "flip": True, "batch": 3},
        pytest.param({"mixed_precision": True}, marks=pytest.mark.slow),
        pytest.param({"sampling": "random", "clips_per_video": 3, "control": True}, marks=pytest.mark.slow),
        {"recalibrate": 1, "start": "carried", "granularity": "pixel"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_each_way_to_train_has_the_right_numbers(
    settings: dict[str, Any], model: Path, videos: Path, tmp_path: Path
) -> None:
    report = refine(model, videos, tmp_path / "run", **{**RUN, **settings})
    assert report.history[0].task_loss < 0.05  # half the squared error over the spread of the labels
    error = report.models["refined"].streams.label_error
    assert error is not None
    assert error < 0.1


def test_thresholds_of_many_layers_are_found_with_the_right_numbers(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltafine.refinement.thresholds.allocation.MANY_LAYERS", 0)
    report = refine(model, videos, tmp_path / "run", **{**RUN, "epochs": 0})
    error = report.models["calibrated"].streams.label_error
    assert error is not None
    assert error < 0.1


@pytest.mark.slow
def test_workers_have_the_numbers_of_their_shards(model: Path, videos: Path, tmp_path: Path) -> None:
    settings = [f"--set={name}={value}" for name, value in {**RUN, "batch": 5}.items()]
    command = ["refine", model, "--data", videos, "--out", tmp_path / "run", *settings]
    for code, said, errors in ended(start([str(word) for word in command], 2)):
        assert code == 0, said + errors
    report = load_report(tmp_path / "run")
    assert report.history[0].task_loss < 0.05
    error = report.models["refined"].streams.label_error
    assert error is not None
    assert error < 0.1


def test_a_run_from_the_command_line_plays_each_frame_as_keras_answers_it(
    deltafine: Command, model: Path, videos: Path, tmp_path: Path
) -> None:
    out, film = tmp_path / "run", videos / "videos" / "4.avi"
    settings = [f"--set={name}={value}" for name, value in RUN.items()]
    done = deltafine("refine", model, "--data", videos, "--out", out, *settings)
    assert done.code == 0, done
    assert "Beside its frames the model takes speed (column speed of labels.csv), gear" in done.output + done.errors
    assert "it takes speed (column speed of labels.csv)" in " ".join(done.output.split())
    inputs = drive(4, videos)
    for of, expected in (
        (model, load(model).predict(inputs, verbose=0)),
        (out, streamed(load(out / "refined.keras"), inputs)),
    ):
        *frames, _ = [json.loads(line) for line in deltafine("run", of, film, "--json").output.splitlines()]
        played = [frame["outputs"]["steering"]["values"] for frame in frames]
        np.testing.assert_allclose(played, expected, rtol=1e-3, atol=1e-4)


def streamed(refined: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What a refined clip model answers on a whole video."""
    with Stream(measuring=True):
        return np.asarray(with_time(refined)([values[None] for values in inputs.values()], training=False))[0]


def test_constants_go_before_columns_when_a_video_is_played(
    deltafine: Command, model: Path, videos: Path, tmp_path: Path
) -> None:
    film = shutil.copy(videos / "videos" / "4.avi", tmp_path / "alone.avi")
    inputs = drive(4, videos)
    inputs["speed"][:], inputs["gear"][:] = 1.5, 2
    constants = ("--input", "speed=1.5", "--input", "gear=2", "--json")
    *frames, _ = [json.loads(line) for line in deltafine("run", model, film, *constants).output.splitlines()]
    played = [frame["outputs"]["steering"]["values"] for frame in frames]
    np.testing.assert_allclose(played, load(model).predict(inputs, verbose=0), rtol=1e-3, atol=1e-4)


def test_a_constant_of_all_videos_is_taken_for_a_column(model: Path, own_videos: Path, tmp_path: Path) -> None:
    header = "video,frame,label,split,speed\n"
    rows = [
        f"{video}.avi,{frame},{2 * speed_of(video, frame)},{'train' if video < 3 else 'validation'},"
        f"{speed_of(video, frame)}\n"
        for video in range(VIDEOS)
        for frame in range(FRAMES)
    ]
    (own_videos / "labels.csv").write_text(header + "".join(rows))
    report = refine(model, own_videos, tmp_path / "run", **{**RUN, "epochs": 0}, input=["gear=2"])
    error = report.models["original"].streams.label_error
    assert error is not None
    assert error < 0.05
    assert report.model.further_inputs[1] == "gear (2 in all frames)"
    again, _ = measure_model(tmp_path / "run" / "refined.keras", own_videos)  # with the run's constant
    assert again.models["refined"].streams.label_error == pytest.approx(report.models["calibrated"].streams.label_error)


def test_a_manifest_has_the_number_of_a_video(model: Path, videos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(videos / "videos", tmp_path / "listed")
    rows = [
        f"{video}.avi,{'train' if video < 3 else 'validation'},{video - 2.5},{gear_of(video)},"
        f"{SHARES[gear_of(video)] * (video - 2.5)}\n"
        for video in range(VIDEOS)
    ]
    (folder / "manifest.csv").write_text("path,split,speed,gear,label\n" + "".join(rows))
    report, _ = measure_model(model, folder, task="regression")
    error = report.models["original"].streams.label_error
    assert error is not None
    assert error < 0.05


def test_streams_of_their_own_have_their_own_list(model: Path, videos: Path, own_videos: Path, tmp_path: Path) -> None:
    for film in (own_videos / "videos").glob("*.avi"):  # other files than those that are trained on
        number = int(film.stem)
        write_small_video(film, number % 2 == 0, seed=100 + number, frames=FRAMES)
    report = refine(model, videos, tmp_path / "run", **{**RUN, "epochs": 0}, streams=str(own_videos))
    error = report.models["original"].streams.label_error
    assert error is not None
    assert error < 0.05
    write_labels(own_videos, without=(5, 0))
    with pytest.raises(DeltafineError, match=r"for frame 0 of videos/5\.avi"):
        refine(model, videos, tmp_path / "other", **RUN, streams=str(own_videos))


def test_a_single_video_is_cut_in_two_with_its_numbers(model: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(videos / "videos" / "1.avi", tmp_path / "one" / "1.avi")
    rows = [f"1.avi,{frame},{answer_of(1, frame)},{speed_of(1, frame)},{gear_of(1)}\n" for frame in range(FRAMES)]
    (tmp_path / "one" / "labels.csv").write_text("video,frame,label,speed,gear\n" + "".join(rows))
    report = refine(model, tmp_path / "one", tmp_path / "run", **RUN)
    error = report.models["original"].streams.label_error
    assert error is not None
    assert error < 0.05


def test_without_labels_the_answers_of_the_original_are_followed(model: Path, videos: Path, tmp_path: Path) -> None:
    report = refine(model, videos, tmp_path / "run", **{**RUN, "task": "distill"})
    error = report.models["refined"].streams.relative_error
    assert error is not None
    assert error < 0.1
    assert report.model.further_inputs[0] == "speed (column speed of labels.csv)"


def test_pictures_of_a_report_show_the_frames_alone(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, ...]] = []

    def draw(frames: np.ndarray, maps: Any) -> bytes:
        drawn.append(frames.shape)
        return pictures.draw_whole(frames, maps)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(pictures, "draw_whole", pictures.draw, raising=False)
    monkeypatch.setattr(pictures, "draw", draw)
    measure_model(model, videos)
    assert {shape[1:] for shape in drawn} == {(SIZE, SIZE, 3)}


def test_a_data_set_is_as_before_when_it_was_measured(model: Path, videos: Path) -> None:
    data = open_dataset(videos)
    clip_model = insert_deltas(load(model), [], clip_output="per-frame")
    found = measure({"original": clip_model}, data, frames=4, output=Output("numbers", values=data.values))
    assert found["original"].streams.label_error == pytest.approx(0, abs=0.05)
    assert next(iter(data.clips("train", size=(SIZE, SIZE), frames=4))).frames.shape[2:] == (SIZE, SIZE, 3)


def test_columns_for_inputs_and_for_one_of_several_outputs_stand_in_one_list(own_videos: Path, tmp_path: Path) -> None:
    write_labels(own_videos, label="steering")
    driver(several=True).save(tmp_path / "model.keras")
    report = refine(tmp_path / "model.keras", own_videos, tmp_path / "run", **RUN)
    steering = next(one for one in report.models["refined"].streams.outputs if one.name == "steering")
    assert steering.label_error is not None
    assert steering.label_error < 0.1
    assert any("'weather'" in warning for warning in report.warnings)
    assert not any("'speed'" in warning or "'gear'" in warning for warning in report.warnings)


def test_a_run_goes_on_with_the_numbers_that_it_began_with_alone(
    deltafine: Command, model: Path, own_videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    refine(model, own_videos, out, **RUN)
    assert deltafine("refine", model, "--data", own_videos, "--out", out, "--resume").code == 0
    write_labels(own_videos, late=1)
    refused = deltafine("refine", model, "--data", own_videos, "--out", out, "--resume").refusal
    assert f"The videos in {own_videos} are not those that the run" in refused


def test_missing_numbers_are_refused_before_anything_is_computed(
    deltafine: Command, model: Path, run: Path, own_videos: Path, tmp_path: Path
) -> None:
    write_labels(own_videos, without=(4, 7))
    sentence = "labels.csv has nothing in the column 'speed' for frame 7 of videos/4.avi"
    out = tmp_path / "new"
    for command in (
        ("refine", model, "--data", own_videos, "--out", out, "--set=epochs=1"),
        ("report", model, "--data", own_videos),
    ):
        assert sentence in deltafine(*command).refusal
    with pytest.raises(DeltafineError, match=re.escape(sentence)):
        bench(run, own_videos, threads=None)
    assert not out.exists()
    played = deltafine("run", run, own_videos / "videos" / "4.avi")
    assert played.code == 2
    assert sentence in played.errors
    assert played.output.count("frame ") == 7  # those before it


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "The model takes 'speed' beside its frames, and there is no labels.csv or manifest.csv with"),
        (("--input", "speed=1"), "The model takes 'gear' beside its frames"),
        (("--input", "speed=1", "--input", "gear=3"), "is not from 0 to 2, as the embedding of the input 'gear'"),
        (("--input", "speed=fast"), "The input 'speed=fast' cannot be read"),
        (("--input", "pace=1"), "The model has no input 'pace'"),
    ],
)
def test_what_run_cannot_give_is_refused_in_a_sentence(
    given: tuple[str, ...], words: str, deltafine: Command, model: Path, tmp_path: Path
) -> None:
    film = write_small_video(tmp_path / "film.avi", light=True, seed=0, frames=4)
    assert words in deltafine("run", model, film, *given).refusal


def test_raw_frames_come_without_a_list(deltafine: Command, model: Path) -> None:
    refused = deltafine("run", model, "-").refusal
    assert "'speed' beside its frames, and no list says what it is for -: give --input speed=VALUE" in refused


def test_a_list_without_the_column_is_refused_by_every_command(
    deltafine: Command, model: Path, run: Path, own_videos: Path, tmp_path: Path
) -> None:
    rows = [f"{video}.avi,{frame},1\n" for video in range(VIDEOS) for frame in range(FRAMES)]
    (own_videos / "labels.csv").write_text("video,frame,pace\n" + "".join(rows))
    words = "has the columns 'pace': name a column of labels.csv or manifest.csv 'speed', or give --input speed=VALUE"
    for command in (
        ("refine", model, "--data", own_videos, "--out", tmp_path / "new"),
        ("report", model, "--data", own_videos),
        ("run", model, own_videos / "videos" / "0.avi"),
    ):
        assert words in deltafine(*command).refusal
    with pytest.raises(DeltafineError, match=re.escape(words)):
        bench(run, own_videos, threads=None)


def test_export_writes_the_inputs_or_refuses_them_by_name(
    deltafine: Command, run: Path, videos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "plain.keras"
    done = deltafine("export", run, "--output", file)
    assert done.code == 0, done
    assert "the largest difference to the Keras model is 0," in " ".join(done.output.split())
    plain = keras.models.load_model(file)
    inputs = drive(3, videos)
    assert [tensor.name for tensor in plain.inputs] == list(inputs)
    assert plain.predict(inputs, verbose=0).shape == (FRAMES, 1)
    for given in (("--format", "onnx"), ("--format", "tflite"), ("--format", "int8"), ("--format", "fixed-plan")):
        refused = deltafine("export", run, *given, "--output", tmp_path / "other", "--no-check").refusal
        assert "takes 'speed', 'gear' beside its frames, and the format" in refused or "does not end in" in refused
    assert "has no streaming form" in deltafine("export", run, "--form", "streaming", "--overwrite").refusal


def test_an_exported_plan_says_what_comes_with_a_frame(deltafine: Command, videos: Path, tmp_path: Path) -> None:
    frames, speed = keras.Input((SIZE, SIZE, 3), name="frames"), keras.Input((2,), name="speed")
    x = layers.Conv2D(4, 3, strides=2, activation="relu")(layers.Rescaling(1 / 255)(frames))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(3, activation="relu")(speed)])
    keras.Model([speed, frames], layers.Dense(2)(x)).save(tmp_path / "model.keras")
    refine(
        tmp_path / "model.keras", videos, tmp_path / "run", **{**RUN, "epochs": 0}, input=["speed=1.5,-2"],
        task="distill",
    )  # fmt: skip
    done = deltafine("export", tmp_path / "run", "--format", "plan", "--output", tmp_path / "plan.json")
    assert done.code == 0, done
    assert "frames of the videos, one by one, the largest difference" in " ".join(done.output.split())
    document = json.loads((tmp_path / "plan.json").read_text())
    (further,) = document["further_inputs"]
    assert (further["name"], further["shape"]) == ("speed", [2])
    given = [operation for operation in document["operations"] if operation["kind"] == "given"]
    assert [(one["name"], one["output"], one["whole"]) for one in given] == [("speed", further["tensor"], False)]


def test_bench_times_what_can_be_given_the_inputs(run: Path, videos: Path) -> None:
    done = bench(run, videos, frames=20, threads=None)
    timing = load_report(run).timings[0]
    assert [one.name.split()[0] for one in timing.runtimes] == ["deltafine", "TensorFlow"]
    errors = {one.name.split()[0]: one.label_error for one in timing.runtimes}
    assert errors["TensorFlow"] is not None
    assert errors["TensorFlow"] < 0.05
    assert done.left_out["ONNX Runtime"].startswith("is not given 'speed', 'gear'")


def test_inspect_shows_the_inputs(deltafine: Command, model: Path) -> None:
    done = deltafine("inspect", model)
    assert done.output.startswith("driver: frames 16x16x3, speed 1, gear 1 in, 1 out")
    assert "all of its changes are sent" in " ".join(done.output.split())
