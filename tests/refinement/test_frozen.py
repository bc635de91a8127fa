"""Models that come with frozen weights: what is said of these, what is trained, and what trains them all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from typer.testing import CliRunner

from deltafine import load_report, refine
from deltafine.cli import app
from deltafine.errors import DeltafineError
from deltafine.jobs.refine import Quiet
from deltafine.model import delta_layers, find_activations, insert_deltas
from deltafine.model.freezing import frozen_weights, set_trainable
from deltafine.report import render
from deltafine.settings import resolve
from tests.old_defaults import as_before
from tests.small_runs import FAST, SIZE, small_model, write_small_videos

SETTINGS = {**FAST, "epochs": 1}


class Saying(Quiet):
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_videos(tmp_path_factory.mktemp("videos"), per_class=3)


def frozen_model(*thawed: str) -> Any:
    """The small model, all of whose layers but these are frozen."""
    model = small_model()
    for layer in model.layers:
        layer.trainable = layer.name in thawed
    return model


def nested_model() -> Any:
    """The recipe of transfer learning: a frozen base with statistics, its last layer thawed, and a free head."""
    keras.utils.set_random_seed(0)
    inside = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, strides=2, use_bias=False, name="conv1")(layers.Rescaling(1 / 255)(inside))
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="norm1")(x))
    base = keras.Model(inside, layers.Conv2D(6, 3, activation="relu", name="conv2")(x), name="base")
    base.trainable = False
    base.get_layer("conv2").trainable = True
    outside = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(base(outside))
    return keras.Model(outside, layers.Dense(2, activation="softmax", name="head")(x))


def saved(model: Any, folder: Path) -> Path:
    model.save(folder / "model.keras")
    return folder / "model.keras"


def changed(before: Any, after: Any) -> set[str]:
    """Names of the layers, nested ones too, of which a weight is another."""
    old = {layer.name: layer.get_weights() for layer in before._flatten_layers() if not hasattr(layer, "layers")}
    new = {layer.name: layer.get_weights() for layer in after._flatten_layers() if layer.name in old}
    return {
        name
        for name, weights in new.items()
        if any(not np.array_equal(a, b) for a, b in zip(old[name], weights, strict=True))
    }


def test_what_is_frozen_is_counted_without_statistics_and_delta_layers() -> None:
    model = nested_model()
    conv1, norm1, conv2, head = 3 * 3 * 3 * 4, 2 * 4, 3 * 3 * 4 * 6 + 6, 6 * 2 + 2
    for one in (model, insert_deltas(model, find_activations(model))):
        found = frozen_weights(one)
        assert (found.parameters, found.of) == (conv1 + norm1, conv1 + norm1 + conv2 + head)
        assert found.layers == ("base/conv1", "base/norm1")
    model.trainable = False
    assert frozen_weights(model).parameters == frozen_weights(model).of
    assert frozen_weights(small_model()).layers == ()


def test_patterns_thaw_layers_and_whole_nested_models_and_leave_the_others_as_they_were() -> None:
    for pattern, left in [("base/norm*", ("base/conv1",)), ("base", ()), ("*", ()), ("base/*1", ())]:
        model = nested_model()
        set_trainable(model, unfreeze=[pattern])
        assert frozen_weights(model).layers == left, pattern
    model = nested_model()
    model.trainable = False  # frozen as a whole, so that Keras would train nothing of it
    model.get_layer("base").get_layer("conv2").trainable = False
    set_trainable(model, unfreeze=["head"])
    assert frozen_weights(model).layers == ("base/conv1", "base/norm1", "base/conv2")
    assert len(model.trainable_variables) == 2
    set_trainable(model, unfreeze=["*"], freeze=["*/norm1"])
    assert frozen_weights(model).layers == ("base/norm1",), "freeze goes before unfreeze"


def test_a_part_of_a_layer_that_is_frozen_stays_so() -> None:
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 24))(layers.Conv2D(6, 4, strides=2, padding="same", activation="relu")(inputs))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(attention(x, x))))
    attention.key_dense.trainable = False
    clip_model = insert_deltas(model, find_activations(model))
    assert frozen_weights(clip_model).layers == ("attention/key",)
    assert frozen_weights(clip_model).parameters == frozen_weights(model).parameters
    assert frozen_weights(model).layers == ("attention",)
    assert frozen_weights(model).parameters == 24 * 8 + 8


def test_steps_in_a_frozen_base_can_be_trained() -> None:
    model = nested_model()
    clip_model = insert_deltas(model, find_activations(model))
    assert all(layer.log_threshold.trainable for layer in delta_layers(clip_model).values())


def test_a_model_with_nothing_to_train_is_calibrated_and_the_report_says_so(videos: Path, tmp_path: Path) -> None:
    listener = Saying()
    model = saved(frozen_model(), tmp_path)
    report = refine(model, videos, tmp_path / "run", listener=listener, **{**SETTINGS, "target_macs": 0.1})
    before, after = keras.models.load_model(model), keras.models.load_model(tmp_path / "run" / "refined.keras")
    assert changed(before, after) == set()
    assert list(report.models) == ["original", "calibrated"]
    assert report.history == []
    of = frozen_weights(before).of
    (said,) = [text for text in report.warnings if "Nothing is trained" in text]
    assert f"all {of:,} weights of the model are frozen" in said
    assert "--unfreeze '*'" in said
    assert any("budget is not aimed at" in text for text in report.warnings)
    assert not any("did not pay" in text for text in report.warnings)
    assert said in listener.said, "before the calibration, too"
    with pytest.raises(DeltafineError, match="trains nothing, so it has no epoch 1"):
        refine(model, videos, tmp_path / "run", resume=True, pick=1)


def test_a_frozen_base_stays_and_every_way_to_show_the_report_says_how_much_of_it_there_is(
    videos: Path, tmp_path: Path
) -> None:
    model = saved(nested_model(), tmp_path)
    report = refine(model, videos, tmp_path / "run", **SETTINGS)
    before, after = keras.models.load_model(model), keras.models.load_model(tmp_path / "run" / "refined.keras")
    assert changed(before, after) == {"conv2", "head"}
    assert frozen_weights(after).layers == ("base/conv1", "base/norm1"), "the flags are those of the original"
    assert report.model.frozen is not None
    assert report.model.frozen.model_dump() == load_report(tmp_path / "run").model.frozen.model_dump()
    words = "116 of 352 weights frozen"
    assert words in render(report, "html")
    assert words in render(report, "markdown")
    shown = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["report", str(tmp_path / "run")]).stdout
    assert words in shown
    assert any(words in text and "--unfreeze PATTERN" in text for text in report.warnings)


def test_what_is_unfrozen_is_trained_and_the_refined_model_has_it_so(videos: Path, tmp_path: Path) -> None:
    model = saved(frozen_model(), tmp_path)
    report = refine(model, videos, tmp_path / "run", **SETTINGS, unfreeze=("conv*", "head"), freeze=("conv1",))
    before, after = keras.models.load_model(model), keras.models.load_model(tmp_path / "run" / "refined.keras")
    assert changed(before, after) == {"conv2", "head"}
    assert frozen_weights(after).layers == ("conv1", "norm1")
    assert report.model.frozen is not None
    assert report.model.frozen.layers == ["conv1", "norm1"]
    assert "refined" in report.models


def test_an_epoch_of_one_step_trains(videos: Path, tmp_path: Path) -> None:
    model = saved(small_model(), tmp_path)
    refine(model, videos, tmp_path / "run", **{**SETTINGS, "batch": 64})
    before, after = keras.models.load_model(model), keras.models.load_model(tmp_path / "run" / "refined.keras")
    assert {"conv1", "conv2", "head"} <= changed(before, after)


def test_a_pattern_that_thaws_nothing_is_refused_before_anything_is_written(videos: Path, tmp_path: Path) -> None:
    model = saved(frozen_model(), tmp_path)
    words = r"--unfreeze 'conf1' matches no layer with weights; the nearest .* conv1"
    with pytest.raises(DeltafineError, match=words):
        refine(model, videos, tmp_path / "run", **SETTINGS, unfreeze=("conf1",))
    assert not (tmp_path / "run").exists()
    ran = CliRunner().invoke(
        app,
        [
            "refine",
            str(model),
            "--data",
            str(videos),
            "--out",
            str(tmp_path / "run"),
            "--dry-run",
            "--unfreeze",
            "pool",
        ],
    )
    assert isinstance(ran.exception, DeltafineError)


def test_inspect_and_the_dry_run_say_what_is_frozen(videos: Path, tmp_path: Path) -> None:
    model = str(saved(frozen_model("head"), tmp_path))
    assert "weights are frozen, in conv1, norm1, conv2" in CliRunner().invoke(app, ["inspect", model]).stdout
    dry = ["refine", model, "--data", str(videos), "--out", "x", "--dry-run", "--unfreeze", "*"]
    assert "frozen" not in CliRunner().invoke(app, dry).stdout


def test_runs_that_knew_nothing_of_it_can_still_be_resumed() -> None:
    plain = resolve(model="m", data="d")
    assert plain.hash() != resolve(model="m", data="d", unfreeze=("*",)).hash()
    # As an older version wrote it.
    assert as_before().hash() == HASH_BEFORE


HASH_BEFORE = "8eec024ba09d4c02ed9b79c28b463e086c157548ab14be513284b78b741b0bc5"
