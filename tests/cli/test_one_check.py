"""A model that cannot be refined is refused by every command that would refine or measure it, in the same words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from tests.cli.running import Command
from tests.model.test_insertable import Backbone
from tests.small_runs import small_model


def quantised() -> Any:
    model = small_model()
    model.quantize("int8")
    return model


def keeping_state() -> Any:
    inputs = keras.Input(batch_shape=(1, 4, 16, 16, 3))
    x = layers.TimeDistributed(layers.Conv2D(2, 3, activation="relu"))(inputs)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.LSTM(3, stateful=True)(x)))


def uncopyable() -> Any:
    return Backbone(3, 10)


def two_inputs() -> Any:
    one, other = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    return keras.Model([one, other], layers.Dense(2)(layers.Flatten()(layers.Add()([one, other]))))


def table_beside() -> Any:
    frames, table = keras.Input((16, 16, 3)), keras.Input((4, 4), name="table")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, activation="relu")(frames))
    return keras.Model([table, frames], layers.Dense(2)(layers.Concatenate()([x, layers.Flatten()(table)])))


def depth_pictures() -> Any:
    inputs = keras.Input((16, 16, 4))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Conv2D(2, 3, activation="relu")(inputs))))


def any_size() -> Any:
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def across_the_batch() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(2)(x - keras.ops.mean(x, axis=0, keepdims=True)))


REFUSED = {
    quantised: "is quantised (int8)",
    keeping_state: "keeps its state",
    uncopyable: "cannot be copied from its own configuration",
    two_inputs: "deltafine needs one input",
    table_beside: "takes (4, 4) of float32 for a frame, and an input beside the frames is one number or a vector",
    depth_pictures: "1 or 3 channels",
    any_size: "give one with --size",
    across_the_batch: "works across the batch axis",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_refine_refuses_inspect_and_report_refuse_in_the_same_words(make, deltafine, videos, tmp_path):
    path, out = tmp_path / "model.keras", tmp_path / "run"
    make().save(path)
    refine = ("refine", path, "--data", videos, "--out", out)
    commands = [("inspect", path), (*refine, "--dry-run"), refine, ("report", path, "--data", videos)]
    sentences = {deltafine(*command).refusal for command in commands}
    assert len(sentences) == 1
    assert REFUSED[make] in sentences.pop()
    assert not out.exists()


def test_a_dry_run_shows_what_its_recipe_says(deltafine: Command, model: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('skip = ["conv2"]\nstep_per = "channel"\n')
    command = ("refine", model, "--data", videos, "--out", tmp_path / "run", "--dry-run", "--recipe")
    done = deltafine(*command, tmp_path / "recipe.toml")
    assert done.code == 0
    assert "named by --skip" in done.output
    assert done.output == deltafine("inspect", model, "--skip", "conv2", "--threshold-per", "channel").output


def test_an_unknown_scope_of_thresholds_is_refused(deltafine: Command, model: Path) -> None:
    assert "'layer', 'channel' or 'neuron'" in deltafine("inspect", model, "--threshold-per", "pixel").refusal


@pytest.fixture
def with_lambda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with Python code in its file, in a folder with a module that holds the same as a function."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "functions_of_test.py").write_text("def scaled(x):\n    return x / 255\n")
    inputs = keras.Input((16, 16, 3))
    x = layers.Lambda(lambda x: x / 255, name="lambda_1")(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    keras.Model(inputs, layers.Dense(2, activation="softmax")(x)).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_commands_that_take_a_model_take_the_function_of_a_lambda_layer(with_lambda, deltafine, videos):
    given = ("--custom-objects", "lambda_1=functions_of_test:scaled")
    video = next(videos.rglob("*.avi"))
    refine = ("refine", with_lambda, "--data", videos, "--out", "run", "--epochs", "0", "--frames", "4")
    commands: list[tuple[object, ...]] = [
        ("inspect", with_lambda),
        refine,
        ("report", with_lambda, "--data", videos),
        ("export", "run"),
        ("run", "run", video, "--frames", "3"),
    ]
    for command in commands:
        done = deltafine(*command, *given)
        assert done.code == 0, (command, done)
    for command in (commands[0], commands[2]):
        assert "--custom-objects lambda_1=module:function" in deltafine(*command).refusal


@pytest.mark.slow
def test_bench_takes_the_function_of_a_lambda_layer(with_lambda, videos):
    given = ("--custom-objects", "lambda_1=functions_of_test:scaled")
    bench = ("bench", str(with_lambda), "--data", str(videos), "--frames", "4", "--threads", "1")
    command = [sys.executable, "-m", "deltafine", *bench, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
