"""Whatever is wrong with the input of `deltafine refine`: exit code 2, one sentence, nothing written, nothing lost."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import pytest
from keras import layers

from tests.cli.running import Command, Done
from tests.small_runs import CLASSES, write_small_model, write_small_video, write_small_videos


@pytest.fixture
def refuse(deltafine: Command, model: Path, videos: Path, tmp_path: Path) -> Refine:
    return Refine(deltafine, model, videos, tmp_path / "run")


class Refine:
    """`deltafine refine` on sound input but for what a test changes."""

    def __init__(self, command: Command, model: Path, videos: Path, out: Path) -> None:
        self.command, self.model, self.videos, self.out = command, model, videos, out

    def run(self, *options: object, model: Path | None = None, data: Path | None = None) -> Done:
        return self.command(
            "refine", model or self.model, "--data", data or self.videos, "--out", self.out, "--epochs", 0, *options
        )

    def __call__(self, *options: object, model: Path | None = None, data: Path | None = None) -> str:
        """The sentence of a refusal after which there is no run directory."""
        sentence = self.run(*options, model=model, data=data).refusal
        assert not self.out.exists()
        return sentence


def test_a_missing_model(refuse: Refine, tmp_path: Path) -> None:
    assert f"There is no model at {tmp_path / 'nowhere.keras'}" in refuse(model=tmp_path / "nowhere.keras")


def test_a_model_cut_short(refuse: Refine, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.keras"
    broken.write_bytes(model.read_bytes()[:2000])
    assert f"{broken} is not a readable .keras file" in refuse(model=broken)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_model_that_may_not_be_read(refuse: Refine, model: Path, tmp_path: Path) -> None:
    closed = Path(shutil.copy(model, tmp_path / "closed.keras"))
    closed.chmod(0)
    assert str(closed) in refuse(model=closed)


def test_files_that_are_no_keras_model(refuse: Refine, tmp_path: Path) -> None:
    text, archive, hdf5 = tmp_path / "notes.txt", tmp_path / "archive.keras", tmp_path / "numbers.h5"
    text.write_text("notes", "utf-8")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("notes.txt", "notes")
    with h5py.File(hdf5, "w") as file:
        file["numbers"] = [1, 2, 3]
    assert "is not a Keras model file" in refuse(model=text)
    assert "holds no Keras model" in refuse(model=archive)
    assert "holds no Keras model" in refuse(model=hdf5)
    assert "is a folder, and no model" in refuse(model=tmp_path)
    finished = tmp_path / "finished"
    finished.mkdir()
    (finished / "refined.keras").write_bytes(b"")
    assert f"is a run directory: give its model, {finished / 'refined.keras'}" in refuse(model=finished)


def test_weights_without_a_model(refuse: Refine, model: Path, tmp_path: Path) -> None:
    weights = tmp_path / "small.weights.h5"
    keras.models.load_model(model).save_weights(weights)
    assert "holds weights only" in refuse(model=weights)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.head = layers.Dense(2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.head.build((None, 16 * 16 * 3))

    def call(self, frames: object) -> object:
        return self.head(layers.Flatten()(frames))


def test_a_subclassed_model(refuse: Refine, tmp_path: Path) -> None:
    model = Subclassed()
    model.build((None, 16, 16, 3))
    model.save(tmp_path / "subclassed.keras")
    assert "is subclassed (Subclassed)" in refuse(model=tmp_path / "subclassed.keras")


def test_a_model_that_was_never_built(refuse: Refine, tmp_path: Path) -> None:
    keras.Sequential([layers.Conv2D(2, 3, activation="relu")]).save(tmp_path / "unbuilt.keras")
    assert "is not built" in refuse(model=tmp_path / "unbuilt.keras")


def test_models_that_do_not_take_one_frame_and_give_one_class_vector(refuse: Refine, tmp_path: Path) -> None:
    frame = keras.Input((16, 16, 3))
    keras.Model(frame, layers.Conv2D(2, 3, activation="relu")(frame)).save(tmp_path / "pictures.keras")
    assert "need one class vector per frame" in refuse(model=tmp_path / "pictures.keras")
    vector = keras.Input((7,))
    keras.Model(vector, layers.Dense(2)(layers.Dense(3, "relu")(vector))).save(tmp_path / "vectors.keras")
    assert "needs one input of frames" in refuse(model=tmp_path / "vectors.keras")


def test_a_cache_that_is_a_file(refuse: Refine, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"mine")
    assert f"{tmp_path / 'cache'} is a file: give a folder" in refuse("--cache", tmp_path / "cache")
    assert (tmp_path / "cache").read_bytes() == b"mine"


def test_no_activation_left(refuse: Refine) -> None:
    assert "No place for a delta layer is left" in refuse("--skip", "*")


@pytest.mark.parametrize("option", ["--at", "--skip"])
def test_a_pattern_that_matches_nothing_is_answered_with_the_nearest_names(refuse: Refine, option: str) -> None:
    sentence = refuse(option, "rellu1")
    assert sentence.startswith(f"{option} 'rellu1' matches no layer of the model; the nearest names are 'relu1'")


def test_no_videos(refuse: Refine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert f"No videos were found in {tmp_path / 'empty'}" in refuse(data=tmp_path / "empty")
    assert f"There is nothing at {tmp_path / 'nowhere'}" in refuse(data=tmp_path / "nowhere")


def test_a_split_list_that_names_missing_files(refuse: Refine, tmp_path: Path) -> None:
    data = write_small_videos(tmp_path / "data", per_class=2)
    (data / "classInd.txt").write_text("1 dark\n2 light\n", "utf-8")
    (data / "trainlist01.txt").write_text("dark/dark0.avi 1\nlight/light0.avi 2\nlight/gone.avi 2\n", "utf-8")
    (data / "testlist01.txt").write_text("dark/dark1.avi\n", "utf-8")
    sentence = refuse(data=data)
    assert "1 of 4 videos" in sentence
    assert "light/gone.avi is listed in trainlist01.txt but not there" in sentence


def test_clips_that_are_longer_than_every_video(refuse: Refine) -> None:
    sentence = refuse("--frames", 500)
    assert "None of the 8 train videos" in sentence
    assert "a clip needs 500" in sentence


def test_more_corrupted_videos_than_allowed(refuse: Refine, tmp_path: Path) -> None:
    data = write_small_videos(tmp_path / "data")
    for name in CLASSES:
        (data / name / "broken.avi").write_bytes(b"not a video" * 100)
    sentence = refuse("--max-bad-videos", 1, data=data)
    assert "2 of 12 videos in" in sentence
    assert "more than the 1 allowed" in sentence
    assert "dark/broken.avi" in sentence


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (("--max-frames", 7), "has more than 7 frames"),
        (("--max-seconds", 1e-9), "takes longer than 1e-09 seconds of pro"),
    ],
)
def test_videos_beyond_the_limits(refuse: Refine, limit: tuple[object, ...], reason: str) -> None:
    assert reason in refuse("--max-bad-videos", 0, *limit)


def test_classes_that_do_not_fit_the_model(refuse: Refine, tmp_path: Path) -> None:
    three = write_small_model(tmp_path / "three.keras", classes=3)
    sentence = refuse(model=three)
    assert "The model has 3 outputs but" in sentence
    assert "2 classes (dark, light)" in sentence
    assert "--classes" in sentence


def test_a_class_that_is_not_there(refuse: Refine) -> None:
    assert "There is no class 'lihgt'" in refuse("--classes", "dark,lihgt")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--frames", 1), "The setting 'frames' is '1'"),
        (("--epochs", "many"), "The setting 'epochs' is 'many'"),
        (("--batch", "0"), "The setting 'batch' is '0'"),
        (("--rule", "sometimes"), "The setting 'rule' is 'sometimes'"),
        (("--method", "magic"), "The setting 'method' is 'magic'"),
        (("--granularity", "voxel"), "The setting 'granularity' is 'voxel'"),
        (("--rescale", "0..2"), "The setting 'rescale' is '0..2'"),
        (("--layout", "pile"), "There is no layout 'pile'"),
        (("--penalty", "nan"), "The setting 'penalty' is 'nan'"),
        (("--method", "l1", "--granularity", "pixel"), "The settings do not go together"),
    ],
)
def test_values_that_do_not_do(refuse: Refine, options: tuple[object, ...], words: str) -> None:
    assert words in refuse(*options)


@pytest.mark.parametrize("arguments", [("--streams", ""), ("--streams=",), ("",)])
def test_an_empty_argument_is_not_the_current_folder(refuse: Refine, arguments: tuple[str, ...]) -> None:
    assert "is empty: give a value" in refuse(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("data",),
        ("report",),
        ("export",),
        ("run", __file__),
        ("report", "--baseline", "x" * 300),
    ],
)
def test_a_path_that_cannot_even_be_looked_for(deltafine: Command, arguments: tuple[str, ...]) -> None:
    command, *more = arguments
    assert "File name too long" in deltafine(command, "x" * 300, *more).refusal


def test_going_on_and_replacing_exclude_each_other(refuse: Refine) -> None:
    assert "ask for one of them" in refuse("--resume", "--overwrite")


def test_usage_errors_exit_with_2_as_well(refuse: Refine) -> None:
    done = refuse.run("--no-such-option")
    assert done.code == 2
    assert "--no-such-option" in done.errors
    assert "Traceback" not in done.errors
    assert not refuse.out.exists()


def test_a_recipe_with_an_unknown_name(refuse: Refine, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("epohcs = 3\n", "utf-8")
    assert "There is no setting named 'epohcs': did you mean epochs" in refuse("--recipe", tmp_path / "recipe.toml")


def test_an_existing_directory_is_left_as_it_is(refuse: Refine) -> None:
    refuse.out.mkdir()
    (refuse.out / "notes.txt").write_text("mine", "utf-8")
    assert "exists already" in refuse.run().refusal
    assert "is not a run directory, so it is not overwritten" in refuse.run("--overwrite").refusal
    assert "holds no run that could be resumed" in refuse.run("--resume").refusal
    assert [entry.read_text("utf-8") for entry in refuse.out.iterdir()] == ["mine"]


def test_a_file_where_the_run_should_go(refuse: Refine) -> None:
    refuse.out.write_text("mine", "utf-8")
    assert "is a file" in refuse.run("--overwrite").refusal
    assert refuse.out.read_text("utf-8") == "mine"


def test_a_place_that_cannot_be_written(refuse: Refine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", "utf-8")
    refuse.out = tmp_path / "file" / "run"
    assert "cannot be made: Not a directory" in refuse.run().refusal


def test_overwriting_with_bad_input_keeps_the_old_run(refuse: Refine, tmp_path: Path) -> None:
    refuse.out.mkdir()
    (refuse.out / "settings.toml").write_text("old = 1", "utf-8")
    for bad in (
        refuse.run("--overwrite", data=tmp_path / "nowhere"),
        refuse.run("--overwrite", "--frames", 500),
        refuse.run("--overwrite", "--at", "nothing*"),
    ):
        assert bad.refusal
    assert (refuse.out / "settings.toml").read_text("utf-8") == "old = 1"


def test_debug_shows_the_traceback_and_the_sentence(deltafine: Command, tmp_path: Path) -> None:
    done = deltafine("--debug", "refine", tmp_path / "no.keras", "--data", tmp_path, "--out", tmp_path / "run")
    assert done.code == 2
    assert "Traceback (most recent call last)" in done.errors
    assert done.errors.strip().splitlines()[-1].startswith("Error: There is no model at")


def test_an_error_of_the_program_itself_does_not_pass_for_a_gate(
    deltafine: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("nobody has foreseen this")

    monkeypatch.setattr("deltafine.report.load_report", broken)
    done = deltafine("report", tmp_path)
    assert done.code == 70
    assert "RuntimeError: nobody has foreseen this" in done.errors


def test_names_in_a_sentence_cannot_steer_the_terminal(refuse: Refine, tmp_path: Path) -> None:
    sentence = refuse(model=tmp_path / "\x1b[31m[bold]red.keras")
    assert "\x1b" not in sentence
    assert "\\x1b[31m[bold]red.keras" in sentence


def test_the_demo_leaves_directories_of_others_alone(deltafine: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    assert "exists already" in deltafine("demo", "--out", tmp_path).refusal
    assert "was not made by the demo" in deltafine("demo", "--out", tmp_path, "--overwrite").refusal
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_short_video_alone_is_named(refuse: Refine, tmp_path: Path) -> None:
    write_small_video(tmp_path / "data" / "dark" / "short.avi", False, 0, frames=3)
    write_small_video(tmp_path / "data" / "light" / "short.avi", True, 1, frames=3)
    sentence = refuse(data=tmp_path / "data")
    assert "has 3 frames, a clip needs 8" in sentence
