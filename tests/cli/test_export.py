from __future__ import annotations

import json

import av
import keras
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import deltafine
from deltafine.cli.export import export
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.model import DeltaSettings, find_activations, insert_deltas
from tests.model import small_models

app = typer.Typer()
app.command()(export)


def write_video(path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run directory as refine leaves it, and the videos it names."""
    folder = tmp_path_factory.mktemp("run")
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        frames = generator.integers(0, 255, (20, 24, 20, 3)).astype("uint8")
        write_video(folder / "videos" / label / "one.mp4", frames)
    model = small_models.plain()
    settings = DeltaSettings(rule="quantize", initial_threshold={"input": 4.0, "relu1": 0.05, "conv2": 0.05})
    insert_deltas(model, find_activations(model), settings).save(folder / "refined.keras")
    (folder / "settings.toml").write_text(f'data = "{folder / "videos"}"\n')
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(match: str, *arguments) -> None:
    error = run(*arguments).exception
    assert isinstance(error, DeltafineError), error
    assert match in str(error)


@pytest.mark.parametrize("form", ["stripped", "quantized"])
def test_a_keras_file_of_either_form_is_written(finished, form, tmp_path):
    shown = run(finished, "--form", form, "--output", tmp_path / "plain.keras")
    assert shown.exit_code == 0, shown.exception
    assert "on 32 frames of the videos the largest difference to the Keras model is 0, the same class" in shown.stdout
    assert keras.models.load_model(tmp_path / "plain.keras").input_shape == (None, 12, 10, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["plain.keras"]


def test_a_tflite_file_is_checked_on_the_frames_of_the_run(finished, tmp_path):
    shown = run(finished, "--format", "tflite", "--output", tmp_path / "plain.tflite")
    assert shown.exit_code == 0, shown.exception
    assert "on 32 frames of the videos" in shown.stdout
    assert "the same class on 100.0%" in shown.stdout
    assert (tmp_path / "plain.tflite").read_bytes()[4:8] == b"TFL3"


def test_a_tflite_file_is_checked_on_the_frames_that_short_videos_have(finished, tmp_path):
    frames = np.random.default_rng(1).integers(0, 255, (3, 24, 20, 3)).astype("uint8")
    write_video(tmp_path / "videos" / "a" / "short.mp4", frames)
    shown = run(finished, "--format", "tflite", "--output", tmp_path / "plain.tflite", "--data", tmp_path / "videos")
    assert shown.exit_code == 0, shown.exception
    assert "on 3 frames of the videos" in shown.stdout


def test_a_tflite_file_is_checked_on_frames_whatever_their_labels_are(finished, tmp_path):
    frames = np.random.default_rng(1).integers(0, 255, (3, 24, 20, 3)).astype("uint8")
    for name in ("train", "walk", "run"):  # a split or a class
        write_video(tmp_path / "videos" / name / "one.mp4", frames)
    shown = run(finished, "--format", "tflite", "--output", tmp_path / "plain.tflite", "--data", tmp_path / "videos")
    assert shown.exit_code == 0, shown.exception
    assert "on 9 frames of the videos" in shown.stdout


def test_a_keras_file_is_written_where_there_are_no_videos_to_check_it_on(finished, tmp_path):
    (tmp_path / "refined.keras").write_bytes((finished / "refined.keras").read_bytes())
    shown = run(tmp_path)
    assert shown.exit_code == 0, shown.exception
    assert "has no settings.toml that names videos" in shown.stdout
    assert keras.models.load_model(tmp_path / "export" / "stripped.keras").input_shape == (None, 12, 10, 3)


def test_an_unknown_format_is_refused_and_the_old_word_for_thresholds_is_understood(finished, tmp_path):
    refused("There is no export format 'onnxx': choose onnx.", finished, "--format", "onnxx")
    with pytest.warns(DeltafineWarning, match="'steps' is called 'thresholds' now"):
        shown = run(finished, "--format", "steps", "--output", tmp_path / "thresholds.json")
    assert shown.exit_code == 0, shown.exception
    assert json.loads((tmp_path / "thresholds.json").read_text())["version"] == 2


def test_the_thresholds_are_written_as_json(finished):
    assert run(finished, "--format", "thresholds", "--overwrite").exit_code == 0
    table = json.loads((finished / "export" / "thresholds.json").read_text())
    assert [layer["name"] for layer in table["layers"]] == ["input_delta", "relu1_delta", "conv2_delta"]
    assert table["layers"][0]["threshold"] == pytest.approx(4.0)


def test_the_list_shows_what_there_is_and_how_what_was_written_compares(finished, tmp_path):
    (tmp_path / "refined.keras").write_bytes((finished / "refined.keras").read_bytes())
    nothing = run(tmp_path, "--list").stdout
    assert "Written: nothing yet" in nothing
    for word in (
        "stripped",
        "quantized",
        "streaming",
        "keras",
        "tflite",
        "onnx",
        "int8",
        "akida",
        "lava",
        "plan",
        "neurobench",
    ):
        assert f"\n  {word} " in nothing
    data = ("--data", finished / "videos")
    assert run(tmp_path, "--format", "plan", *data).exit_code == 0
    assert run(tmp_path, "--form", "streaming", "--no-check").exit_code == 0
    assert run(tmp_path, "--output", tmp_path / "else.keras", *data).exit_code == 0
    _, _, shown = run(tmp_path, "--list").stdout.partition("\nWritten\n")
    assert "  plan.json (plan)\n    on 40 frames of the videos, one by one, the largest difference" in shown
    assert "  streaming.keras (keras, streaming)\n    not compared with the Keras model\n" in shown
    assert f"  {tmp_path / 'else.keras'} (keras, stripped)\n    on 32 frames of the videos the largest" in shown
    (tmp_path / "else.keras").unlink()
    (tmp_path / "export" / "streaming.keras").write_bytes(b"other")
    _, _, shown = run(tmp_path, "--list").stdout.partition("\nWritten\n")
    assert "streaming.keras (keras, streaming)\n    the file is another than the one that was checked\n" in shown
    assert "else.keras (keras, stripped)\n    the file is gone\n" in shown
    assert not (tmp_path / "else.keras").exists()
    refused("There is no model at", tmp_path / "nowhere", "--list")


def test_arrays_beside_a_plan_are_not_replaced_unless_told(finished, tmp_path):
    (tmp_path / "plan.npz").write_text("mine")
    refused("plan.npz exists already", finished, "--format", "plan", "--output", tmp_path / "plan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.npz"]


def test_an_existing_file_is_not_replaced_unless_told(finished, tmp_path):
    (tmp_path / "thresholds.json").write_text("mine")
    refused("exists already", finished, "--format", "thresholds", "--output", tmp_path / "thresholds.json")
    assert (tmp_path / "thresholds.json").read_text() == "mine"


def test_a_place_or_videos_that_cannot_be_are_refused_before_anything_is_written(finished, tmp_path):
    refused("does not end in .keras or .h5", finished, "--output", tmp_path / "new" / "plain.txt")
    refused("is a folder: name the file as well", finished, "--output", tmp_path, "--overwrite")
    refused("There is nothing at", finished, "--output", tmp_path / "plain.keras", "--data", tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_keras_file_may_be_hdf5(finished, tmp_path):
    assert run(finished, "--output", tmp_path / "plain.h5").exit_code == 0
    assert keras.models.load_model(tmp_path / "plain.h5").input_shape == (None, 12, 10, 3)


def test_what_is_no_run_is_refused(tmp_path):
    refused("There is no model at", tmp_path)
    small_models.plain().save(tmp_path / "refined.keras")
    refused("has no delta layers", tmp_path)


def test_python_writes_the_same_file_and_says_how_it_agrees(finished, tmp_path):
    shown = run(finished, "--format", "tflite", "--output", tmp_path / "shown.tflite")
    done = deltafine.export(finished, format="tflite", output=tmp_path / "plain.tflite")
    assert done.file.read_bytes() == (tmp_path / "shown.tflite").read_bytes()
    assert f"on {done.agreement.frames} frames of the videos" in shown.stdout
    assert deltafine.export(finished, output=tmp_path / "plain.keras").agreement.largest_difference == 0
    assert deltafine.export(finished, output=tmp_path / "other.keras", check=False).agreement is None


def test_frames_for_the_check_may_be_kept_and_lists_may_name_files_elsewhere(finished, tmp_path):
    data = tmp_path / "list" / "videos.csv"
    data.parent.mkdir()
    rows = "".join(f"{finished / 'videos' / label / 'one.mp4'},{label}\n" for label in "ab")
    data.write_text(f"video,label\n{rows}")
    arguments = (finished, "--format", "tflite", "--output", tmp_path / "plain.tflite", "--data", data)
    refused("allow", *arguments)
    shown = run(*arguments, "--allow-outside", "--cache", tmp_path / "cache", "--validation", "50%")
    assert shown.exit_code == 0, shown.exception
    assert "frames of the videos" in shown.stdout
    assert list((tmp_path / "cache").glob("frames-*.h5"))


def test_what_stands_for_a_clip_is_that_of_the_refined_model(finished, tmp_path):
    assert run(finished, "--clip-output", "mean", "--output", tmp_path / "plain.keras").exit_code == 0
    refused("is 'mean', not 'last'", finished, "--clip-output", "last", "--output", tmp_path / "last.keras")


def test_a_check_without_videos_is_refused_and_can_be_left_out(finished, tmp_path):
    (tmp_path / "refined.keras").write_bytes((finished / "refined.keras").read_bytes())
    refused("give --data, or --no-check", tmp_path, "--format", "tflite")
    shown = run(tmp_path, "--format", "tflite", "--no-check")
    assert "not compared" in shown.stdout
