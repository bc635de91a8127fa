"""A whole refinement of a small model on small videos."""

from __future__ import annotations

import csv
import functools
import operator
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from deltafine import export, load_report, refine
from deltafine.document.history import Epoch
from deltafine.errors import DeltafineError, Interrupted
from deltafine.jobs.refine import Quiet
from deltafine.model import delta_layers
from deltafine.refinement.run import checkpoints
from deltafine.refinement.run.refinement import Outcome, Refinement
from deltafine.report import Report
from deltafine.report.health import movement
from deltafine.settings import resolve
from tests.small_runs import FAST, FRAMES, SIZE, write_small_model, write_small_videos

EPOCHS = 3
SETTINGS = {**FAST, "epochs": EPOCHS}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


@pytest.fixture(scope="module")
def in_memory(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A run whose refined model is still at hand."""
    out = tmp_path_factory.mktemp("first")
    model, videos = material
    return Refinement(resolve(model=str(model), data=str(videos), **SETTINGS), out, Quiet()).run(), out


@pytest.fixture(scope="module")
def finished(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """The same run once more, with everything that it writes."""
    out = tmp_path_factory.mktemp("second") / "new" / "run"
    return refine(*material, out, **SETTINGS), out


def load(out: Path) -> Any:
    return keras.models.load_model(out / "refined.keras")


def weights(out: Path) -> list[bytes]:
    return [value.tobytes() for value in load(out).get_weights()]


def without_seconds(history: list[Epoch]) -> list[dict[str, Any]]:
    return [epoch.model_dump(exclude={"seconds"}) for epoch in history]


def test_a_run_writes_what_it_says_and_nothing_half(finished: tuple[Report, Path]) -> None:
    report, out = finished
    names = {entry.name for entry in out.iterdir()}
    assert names == {
        "refined.keras",
        "report.json",
        "report.html",
        "report.md",
        "settings.toml",
        "history.csv",
        "checkpoints",
        "pictures",
    }
    assert not [file for file in out.rglob("*") if "writing" in file.name or file.name.endswith(".tmp")]
    kept = {int(file.stem.removeprefix("epoch-")) for file in (out / "checkpoints").glob("epoch-*.h5")}
    assert {point.epoch for point in report.front} <= kept


def test_the_report_on_disk_is_the_one_that_is_returned(finished: tuple[Report, Path]) -> None:
    report, out = finished
    assert load_report(out) == report
    assert list(report.models) == ["original", "calibrated", "refined"]
    assert report.data.classes == ["dark", "light"]
    assert (report.data.train_videos, report.data.validation_videos) == (8, 2)


def test_the_report_has_the_curve_against_sensitivity(finished: tuple[Report, Path]) -> None:
    report, _ = finished
    curve, streams = report.sensitivity, report.models["refined"].streams
    assert curve is not None
    assert (curve.model, curve.videos, curve.frames) == ("refined", streams.videos, streams.frames)
    (as_refined,) = [point for point in curve.points if point.sensitivity == 1]
    assert as_refined.mac_density == streams.operations.mac_density
    assert curve.points[0].mac_density > curve.points[-1].mac_density


def test_steps_are_said_to_have_moved_from_where_training_started(material: tuple[Path, Path], tmp_path: Path) -> None:
    searched = {"relative_threshold": None, "max_divergence": 0.0001, "training_divergence": 10.0, "epochs": 1}
    report = refine(*material, tmp_path / "run", **{**SETTINGS, **searched})
    steps = {name: {delta.name: delta.threshold_median for delta in report.models[name].streams.deltas}
             for name in ("calibrated", "refined")}  # fmt: skip
    assert report.start_thresholds.keys() == steps["refined"].keys()
    grown = [report.start_thresholds[name] / steps["calibrated"][name] for name in report.start_thresholds]
    assert max(grown) > 1.5
    assert movement(report) == {
        name: pytest.approx(step / report.start_thresholds[name]) for name, step in steps["refined"].items()
    }
    assert all(0.1 < moved < 10 for moved in movement(report).values())


def test_the_history_has_a_line_per_epoch(finished: tuple[Report, Path]) -> None:
    report, out = finished
    with (out / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
    assert [float(row["loss"]) for row in rows] == [epoch.loss for epoch in report.history]
    for epoch in report.history:
        assert epoch.loss == pytest.approx(epoch.task_loss + epoch.penalty_loss)


def test_the_settings_written_are_enough_to_repeat_the_run(finished: tuple[Report, Path]) -> None:
    report, out = finished
    settings = resolve(out / "settings.toml")
    assert settings.hash() == report.settings_hash
    assert settings.model_dump(mode="json") == report.settings


def test_the_chosen_epoch_is_marked_and_its_weights_are_those_of_the_refined_model(
    in_memory: tuple[Outcome, Path],
) -> None:
    outcome, out = in_memory
    (chosen,) = [point for point in outcome.front if point.chosen]
    loaded = load(out)
    for variable in loaded.variables:
        variable.assign(np.zeros_like(variable))
    checkpoints.restore(out / "checkpoints" / f"epoch-{chosen.epoch:04d}.h5", loaded.variables)
    for layer in delta_layers(loaded).values():
        if chosen.threshold_scale != 1:
            layer.set_threshold(np.exp(np.asarray(layer.log_threshold)) * chosen.threshold_scale)
    assert [value.tobytes() for value in loaded.get_weights()] == weights(out)


def test_the_refined_model_loads_and_predicts_to_the_last_bit_as_in_memory(in_memory: tuple[Outcome, Path]) -> None:
    outcome, out = in_memory
    clips = np.random.default_rng(0).integers(0, 256, (3, 6, 16, 16, 3)).astype("float32")
    loaded = load(out)
    assert loaded.count_params() == outcome.refined.count_params()
    np.testing.assert_array_equal(loaded.predict(clips, verbose=0), outcome.refined.predict(clips, verbose=0))
    for path, layer in delta_layers(loaded).items():
        np.testing.assert_array_equal(layer.threshold, delta_layers(outcome.refined)[path].threshold)


def test_two_runs_with_one_seed_give_the_same_weights_and_figures(
    in_memory: tuple[Outcome, Path], finished: tuple[Report, Path]
) -> None:
    outcome, first = in_memory
    report, second = finished
    assert weights(first) == weights(second)
    assert outcome.measurements == report.models
    assert without_seconds(outcome.history) == without_seconds(report.history)
    assert outcome.front == report.front


def changed(before: Any, after: Any, layer: str) -> list[bool]:
    """Which weights of a layer differ."""
    pairs = zip(before.get_layer(layer).get_weights(), after.get_layer(layer).get_weights(), strict=True)
    return [not np.array_equal(one, other) for one, other in pairs]


def test_training_changes_weights_and_statistics(material: tuple[Path, Path], finished: tuple[Report, Path]) -> None:
    before, after = keras.models.load_model(material[0]), load(finished[1])
    assert changed(before, after, "conv1") == [True]
    assert changed(before, after, "norm1") == [True] * 4


def test_the_page_about_the_refined_model_does_what_it_says(
    finished: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "refined-model.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(finished[1].parent)
    clip = np.random.default_rng(0).integers(0, 256, (1, 9, SIZE, SIZE, 3)).astype("float32")
    names: dict[str, Any] = {"pieces": [clip[:, :4], clip[:, 4:]], "video": clip[0]}
    export(finished[1], form="streaming", check=False, overwrite=True)
    for block in blocks:
        exec(block, names)
    assert len(blocks) >= 6
    np.testing.assert_allclose(names["answer"][0], names["frames"](clip)[0, -1], rtol=1e-5, atol=1e-6)
    # What the pieces ended with is what the whole video ends with.
    np.testing.assert_allclose(names["predictions"], names["frames"](clip)[:, 4:], rtol=1e-5, atol=1e-6)


class StopAfter(Quiet):
    """Presses Ctrl-C when an epoch is over, or while something is done."""

    def __init__(self, epoch: int = 0, what: str = "", after: int = 0) -> None:
        self._epoch, self._what, self._left = epoch, what, after

    def epoch(self, epoch: Any, epochs: int) -> None:
        if epoch.epoch == self._epoch:
            signal.raise_signal(signal.SIGINT)

    def progress(self, what: str, done: int, total: int, figures: str = "") -> None:
        self._left -= what == self._what
        if what == self._what and self._left < 0:
            signal.raise_signal(signal.SIGINT)


def test_a_run_that_is_stopped_keeps_its_best_and_resumed_ends_as_if_never_stopped(
    material: tuple[Path, Path], finished: tuple[Report, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted) as stop:
        refine(*material, out, listener=StopAfter(epoch=1), **SETTINGS)
    assert stop.value.saved == out / "refined.keras"
    assert load(out).predict(np.zeros((1, 4, 16, 16, 3)), verbose=0).shape == (1, 2)
    assert not (out / "report.json").exists()

    resumed = refine(*material, out, resume=True)
    report, uninterrupted = finished
    assert weights(out) == weights(uninterrupted)
    assert resumed.models == report.models
    assert without_seconds(resumed.history) == without_seconds(report.history)


def test_a_stop_within_an_epoch_loses_no_step(
    material: tuple[Path, Path], finished: tuple[Report, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted) as stop:
        refine(*material, out, listener=StopAfter(what="epoch 1"), **SETTINGS)
    assert stop.value.saved is None
    assert {entry.name for entry in out.iterdir()} == {"settings.toml", "checkpoints", "cache"}
    assert checkpoints.read_facts(out / "checkpoints" / "last.h5")["step"] == 1
    with pytest.raises(DeltafineError, match="was started with epochs = 3, not 5"):
        refine(*material, out, resume=True, epochs=5)
    with pytest.raises(Interrupted):
        refine(*material, out, resume=True, listener=StopAfter(what="epoch 2"))
    with pytest.raises(Interrupted):
        refine(*material, out, resume=True, listener=StopAfter(what="validating", after=3))
    resumed = refine(*material, out, resume=True)
    report, uninterrupted = finished
    assert weights(out) == weights(uninterrupted)
    assert resumed.models == report.models
    assert without_seconds(resumed.history) == without_seconds(report.history)


def test_without_epochs_the_calibrated_model_is_measured_and_is_what_is_written(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    # Here with the search for steps that runs have by default.
    report = refine(*material, tmp_path / "run", epochs=0, frames=4)
    assert list(report.models) == ["original", "calibrated"]
    assert report.history == []
    assert report.front == []
    assert [file.name for file in (tmp_path / "run" / "checkpoints").iterdir()] == ["calibrated.h5"]
    loaded = load(tmp_path / "run")
    measured = {figures.name: figures.threshold_median for figures in report.models["calibrated"].streams.deltas}
    assert measured == {path: pytest.approx(float(layer.threshold)) for path, layer in delta_layers(loaded).items()}
    original = keras.models.load_model(material[0])
    assert not any(
        functools.reduce(
            operator.iadd, [changed(original, loaded, name) for name in ("conv1", "norm1", "conv2", "head")], []
        )
    )


def test_steps_are_relative_to_the_activations_of_the_model_as_it_was_given(in_memory: tuple[Outcome, Path]) -> None:
    outcome, _ = in_memory
    model, data = outcome.prepared.model, outcome.prepared.data
    clips = data.clips("train", frames=FRAMES, size=(SIZE, SIZE), batch=8)
    frames = np.concatenate([batch.frames.reshape(-1, SIZE, SIZE, 3) for batch in clips]).astype("float32")
    activations = {"input": frames}
    for name in ("relu1", "conv2"):
        activations[name] = np.asarray(keras.Model(model.input, model.get_layer(name).output)(frames))
    found = {figures.name: figures.threshold_median for figures in outcome.measurements["calibrated"].streams.deltas}
    for site in outcome.prepared.sites:
        if site.selected:
            rms = np.sqrt(np.mean(activations[site.name] ** 2))
            assert found[site.delta_name] == pytest.approx(FAST["relative_threshold"] * rms, rel=1e-3), site.name


@pytest.fixture(scope="module")
def without_labels(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A short run on the same videos in one folder, with BatchNorm frozen."""
    tmp_path = tmp_path_factory.mktemp("unlabelled")
    flat = tmp_path / "videos"
    flat.mkdir()
    for video in material[1].rglob("*.avi"):
        os.link(video, flat / video.name)
    report = refine(material[0], flat, tmp_path / "run", **{**SETTINGS, "epochs": 1}, freeze_batchnorm=True)
    return report, tmp_path / "run"


def test_frozen_batchnorm_keeps_its_statistics_and_scale(
    material: tuple[Path, Path], without_labels: tuple[Report, Path]
) -> None:
    before, after = keras.models.load_model(material[0]), load(without_labels[1])
    assert changed(before, after, "conv1") == [True]
    assert changed(before, after, "norm1") == [False] * 4


def test_a_run_without_labels_follows_the_original_and_has_fidelity_instead_of_accuracy(
    without_labels: tuple[Report, Path],
) -> None:
    report, _ = without_labels
    refined = report.models["refined"].streams
    assert refined.frame_accuracy is None
    assert refined.fidelity is not None
    assert report.history[0].accuracy is None
    assert report.history[0].validation_accuracy is not None


def test_a_target_is_reached_by_steering_and_by_one_factor_on_the_steps(
    material: tuple[Path, Path], finished: tuple[Report, Path], tmp_path: Path
) -> None:
    calibrated = finished[0].models["calibrated"].streams.operations
    target = round(0.8 * calibrated.mac_density, 4)
    report = refine(*material, tmp_path / "run", **SETTINGS, target_macs=target)
    (chosen,) = [point for point in report.front if point.chosen]
    assert chosen.mac_density == pytest.approx(target, rel=0.05)
    assert not any("target" in warning for warning in report.warnings)
    refined, of_epoch = load(tmp_path / "run"), load(tmp_path / "run")
    checkpoints.restore(tmp_path / "run" / "checkpoints" / f"epoch-{chosen.epoch:04d}.h5", of_epoch.variables)
    for path, layer in delta_layers(of_epoch).items():
        assert float(delta_layers(refined)[path].threshold) == pytest.approx(
            float(layer.threshold) * chosen.threshold_scale, rel=1e-5
        )


def test_another_epoch_can_be_picked_afterwards(
    material: tuple[Path, Path], finished: tuple[Report, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[1], out)
    kept = sorted(int(file.stem.removeprefix("epoch-")) for file in (out / "checkpoints").glob("epoch-*.h5"))
    report = refine(*material, out, resume=True, pick=kept[0])
    loaded = load(out)
    assert all(
        np.array_equal(value, saved)
        for value, saved in zip(loaded.get_weights(), weights_of_epoch(out, kept[0], loaded), strict=True)
    )
    assert [epoch.epoch for epoch in report.history] == list(range(1, EPOCHS + 1))
    with pytest.raises(DeltafineError, match=r"Epoch 99 of the run in .* was not kept: pick one of "):
        refine(*material, out, resume=True, pick=99)
    with pytest.raises(DeltafineError, match="give --resume as well"):
        refine(*material, tmp_path / "other", pick=1, **SETTINGS)


def weights_of_epoch(out: Path, epoch: int, model: Any) -> list[np.ndarray]:
    other = keras.models.clone_model(model)
    checkpoints.restore(out / "checkpoints" / f"epoch-{epoch:04d}.h5", other.variables)
    return other.get_weights()


def test_training_options_do_what_they_say(material: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 2, "freeze": ("conv1", "norm*"), "optimizer": "sgd", "accumulate": 2}
    refine(*material, tmp_path / "run", **settings, tensorboard=True, flip=True, brightness=0.1)
    before, after = keras.models.load_model(material[0]), load(tmp_path / "run")
    assert changed(before, after, "conv1") == [False]
    assert changed(before, after, "norm1") == [False] * 4
    assert changed(before, after, "conv2") == [True, True]
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    with pytest.raises(
        DeltafineError, match="--freeze 'conf1' matches no layer with weights; the nearest names are conv1"
    ):
        refine(*material, tmp_path / "other", **{**SETTINGS, "freeze": ("conf1",)})


def test_training_ends_early_where_nothing_gets_better(material: tuple[Path, Path], tmp_path: Path) -> None:
    # With a rate of next to nothing every epoch is like the first.
    settings = {**SETTINGS, "epochs": 6, "learning_rate": 1e-12, "freeze_batchnorm": True, "early_stopping": 2}
    report = refine(*material, tmp_path / "run", **settings)
    assert len(report.history) < 6
