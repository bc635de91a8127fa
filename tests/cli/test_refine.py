"""`deltafine refine` from beginning to end, as a user runs it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

import deltafine.cli.console
from deltafine import load_report
from tests.cli.running import Command
from tests.small_runs import write_small_model, write_small_video, write_small_videos

FAST = ("--frames", 4, "--batch", 4, "--relative-threshold", 0.5)


def test_a_run_says_what_it_found_and_shows_and_writes_its_report(
    deltafine: Command, model: Path, videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = deltafine("refine", model, "--data", videos, "--out", out, "--epochs", 1, *FAST)
    assert done.code == 0, done.errors
    assert "10 videos, 2 classes, 8 train / 2 validation" in done.output
    assert "epoch 1 of 1: loss " in done.output
    assert "original" in done.output
    assert "refined" in done.output
    assert f"Written to {out}: refined.keras, report.html, report.json, report.md" in done.output
    assert "\x1b[" not in done.output

    pictures = load_report(out).pictures
    assert len({picture.video for picture in pictures}) == 2
    page = (out / "report.html").read_text("utf-8")
    for picture in pictures:
        drawn = (out / "pictures" / picture.file).read_bytes()
        assert drawn.startswith(b"\x89PNG")
        assert base64.b64encode(drawn).decode() in page

    shown = deltafine("report", out)
    assert shown.code == 0
    assert shown.output.strip() in done.output
    assert "exists already" in deltafine("refine", model, "--data", videos, "--out", out).refusal


def test_overwrite_replaces_a_run_and_videos_that_cannot_be_used_are_listed(
    deltafine: Command, model: Path, tmp_path: Path
) -> None:
    data = write_small_videos(tmp_path / "videos")
    (data / "dark" / "broken.avi").write_bytes(b"not a video" * 100)
    write_small_video(data / "light" / "short.avi", True, 50, frames=3)
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "settings.toml").write_text("old = 1", "utf-8")
    (out / "checkpoints" / "last.h5").write_text("old", "utf-8")
    done = deltafine(
        "refine", model, "--data", data, "--out", out, "--overwrite", "--epochs", 0, "--max-bad-videos", 1, *FAST
    )
    assert done.code == 0, done.errors
    assert not (out / "checkpoints" / "last.h5").exists()
    problems = {
        entry["video"]: entry["reason"] for entry in json.loads((out / "report.json").read_bytes())["data"]["problems"]
    }
    assert problems.keys() == {"dark/broken.avi", "light/short.avi"}
    assert problems["dark/broken.avi"].startswith("cannot be decoded")
    assert problems["light/short.avi"] == "has 3 frames, a clip needs 4"
    assert "dark/broken.avi" in (out / "report.html").read_text("utf-8")


def interrupt_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes as soon as the user has been told of an epoch."""
    tell = deltafine.cli.console.Talk.epoch

    def tell_and_stop(self: deltafine.cli.console.Talk, now: object, epochs: int) -> None:
        tell(self, now, epochs)
        if now.epoch == epoch:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(deltafine.cli.console.Talk, "epoch", tell_and_stop)


def test_ctrl_c_exits_with_130_says_where_the_best_model_is_and_resume_goes_on(
    deltafine: Command, model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    arguments = ("refine", model, "--data", videos, "--out", out)
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        done = deltafine(*arguments, "--epochs", 2, *FAST)
    assert done.code == 130
    assert f"Interrupted: the best model so far is {out / 'refined.keras'}; go on with --resume." in done.output
    assert "Traceback" not in done.errors
    keras.models.load_model(out / "refined.keras")
    assert not (out / "report.json").exists()

    assert "was started with epochs = 2, not 3" in deltafine(*arguments, "--resume", "--epochs", 3).refusal
    done = deltafine(*arguments, "--resume")
    assert done.code == 0, done.errors
    assert "resumed after epoch 1 of 2" in done.output
    assert "epoch 2 of 2" in done.output
    assert [epoch.epoch for epoch in load_report(out).history] == [1, 2]


@pytest.mark.parametrize(
    ("what", "options", "left"),
    [
        ("calibrating", (), "the calibration was not over, and what it tried is kept"),
        ("calibrating", ("--cache", "{out}-kept"), "the calibration was not over, and what it tried is kept"),
        ("measuring streams, frames", (), "the refined model is {out}/refined.keras"),
    ],
)
def test_ctrl_c_outside_of_the_training_says_what_is_left(
    deltafine: Command,
    model: Path,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    options: tuple[str, ...],
    left: str,
) -> None:
    def stop(self: object, now: str, done: int, total: int, figures: str = "") -> None:
        if now == what:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("deltafine.cli.console.Talk.progress", stop)
    out = tmp_path / "run"
    more = [option.format(out=out) for option in options]
    done = deltafine("refine", model, "--data", videos, "--out", out, "--epochs", 0, "--frames", 4, *more)
    assert done.code == 130
    assert f"Interrupted: {left.format(out=out)}" in done.output
    assert "go on with --resume" in done.output
    assert (out / "settings.toml").exists()


@pytest.mark.slow
def test_a_signal_from_outside_stops_a_run_in_a_process_of_its_own(model: Path, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["refine", model, "--data", videos, "--out", out, "--epochs", "100000", *FAST]
    process = subprocess.Popen(
        [sys.executable, "-m", "deltafine", *map(str, arguments)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("epoch 2 of"):
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said + rest
    assert f"Interrupted: the best model so far is {out / 'refined.keras'}" in rest
    keras.models.load_model(out / "refined.keras")
    assert not [file for file in out.rglob("*") if "writing" in file.name]


def test_a_recipe_is_followed_and_options_go_before_it(
    deltafine: Command, model: Path, videos: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('epochs = 0\nframes = 4\nrelative_step = 2.0\nskip = ["conv2"]\n', "utf-8")
    out = tmp_path / "run"
    done = deltafine("refine", model, "--data", videos, "--out", out, "--recipe", recipe, "--relative-threshold", 0.25)
    assert done.code == 0, done.errors
    report = load_report(out)
    assert (report.settings["frames"], report.settings["relative_threshold"]) == (4, 0.25)
    assert {site.name: site.selected for site in report.sites}["conv2"] is False


def test_a_run_repeats_from_its_own_settings(deltafine: Command, model: Path, videos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    common = ("refine", model, "--data", videos)
    assert deltafine(*common, "--out", first, "--epochs", 0, *FAST).code == 0
    recipe = Path(shutil.copy(first / "settings.toml", tmp_path / "recipe.toml"))
    assert deltafine(*common, "--out", second, "--recipe", recipe).code == 0
    assert load_report(first).models == load_report(second).models
    assert load_report(first).settings_hash == load_report(second).settings_hash


def test_what_the_output_says_and_the_size_of_frames_are_options(
    deltafine: Command, videos: Path, tmp_path: Path
) -> None:
    frames = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(keras.layers.Rescaling(1 / 255)(frames))
    keras.Model(frames, keras.layers.Conv2D(2, 1, name="map")(x)).save(tmp_path / "maps.keras")
    start = ("refine", tmp_path / "maps.keras", "--data", videos, "--out", tmp_path / "run")
    assert "give one with --size" in deltafine(*start).refusal
    assert "16x20x3" in deltafine(*start, "--size", "16x20", "--dry-run").output
    done = deltafine(*start, "--size", "16x20", "--task", "distill", "--clip-output", "last", "--epochs", 0, *FAST)
    assert done.code == 0, done.errors
    assert "of the spread of the original's predictions" in " ".join(done.output.split())
    assert "Relative error" in done.output
    assert keras.models.load_model(tmp_path / "run" / "refined.keras").output_shape == (None, 7, 9, 2)


def test_a_budget_that_is_not_reached_exits_with_1_after_everything_is_written(
    deltafine: Command, model: Path, videos: Path, tmp_path: Path
) -> None:
    arguments = (
        "refine",
        model,
        "--data",
        videos,
        "--out",
        tmp_path / "run",
        "--frames",
        4,
        "--relative-threshold",
        0.5,
    )
    done = deltafine(*arguments, "--epochs", 1, "--target-macs", 0.0001)
    assert done.code == 1, done.errors
    assert "The budget is not kept: see the warnings above." in done.output
    report = load_report(tmp_path / "run")
    assert report.kept_budget is False
    assert any("was not reached" in warning for warning in report.warnings)
    assert (tmp_path / "run" / "refined.keras").exists()
    assert deltafine("report", tmp_path / "run").code == 0


@pytest.mark.parametrize("library", ["_pydantic_core", "libtensorflow_framework", "h5py"])
def test_ctrl_c_while_libraries_are_loaded_ends_without_a_traceback(tmp_path: Path, library: str) -> None:
    command = [sys.executable, "-m", "deltafine", "refine", str(write_small_model(tmp_path / "m.keras"))]
    command += ["--data", str(write_small_videos(tmp_path / "videos")), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and library not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said == "" or "Interrupted" in said  # typer ends a command that has not begun without a word


def test_ctrl_c_in_code_that_was_given_as_text_gives_the_exit_code_too(tmp_path: Path) -> None:
    """CPython would end by the signal: libraries make classes of text while they are loaded."""
    (tmp_path / "typer.py").write_text("exec('raise KeyboardInterrupt')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    done = subprocess.run(
        [sys.executable, "-m", "deltafine", "--help"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_ctrl_c_within_a_callback_is_not_lost(tmp_path: Path) -> None:
    """Imports have such callbacks. Python reports what is raised in them, and goes on."""
    code = "import signal, time, weakref\nclass Gone: pass\ngone = Gone()\n"
    code += "seen = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGINT))\ndel gone\ntime.sleep(60)\n"
    (tmp_path / "typer.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    done = subprocess.run(
        [sys.executable, "-m", "deltafine", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")
