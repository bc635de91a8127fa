"""A model that does not work on the videos is found before anything is measured, with what explains it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import deltafine
from deltafine.document.report import Reference, Report
from deltafine.jobs.measure import measure_model
from deltafine.measurement.output import Output
from deltafine.measurement.reference import _judged, _Sample, check_reference, sentence_of
from deltafine.model.insert import RESCALES
from deltafine.report import load_report, render
from deltafine.report.gate import Gate, check
from deltafine.report.summary import headline
from tests.cli.running import Command
from tests.small_runs import SIZE
from tests.video.painted import write_video

LEVELS = {"dark": 40, "grey": 110, "light": 190}
"""Mean brightness of the videos of each class."""


def brightness(scaling: str | None, classes: int = 3) -> Any:
    """A model that finds the class of a video by its brightness, for pixels that are scaled in this way."""
    scale, offset = RESCALES[scaling] if scaling else (1.0, 0.0)
    centres = np.array([np.mean(np.asarray(scale) * level + np.asarray(offset)) for level in LEVELS.values()])
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(1, 1, use_bias=False, name="mean")(inputs)
    x = layers.Activation("linear", name="act")(x)
    x = layers.Conv2D(1, 1, use_bias=False, name="same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(1 if classes == 1 else 3, activation=None if classes == 1 else "softmax", name="head")(x)
    model = keras.Model(inputs, x)
    model.get_layer("mean").set_weights([np.full((1, 1, 3, 1), 1 / 3)])
    model.get_layer("same").set_weights([np.ones((1, 1, 1, 1))])
    sharp = 60 / np.ptp(centres) ** 2
    if classes == 1:
        model.get_layer("head").set_weights([np.ones((1, 1)), np.zeros(1)])
    else:
        model.get_layer("head").set_weights([2 * sharp * centres[None], -sharp * centres**2])
    return model


def write_videos(root: Path, names: dict[str, int], each: int = 5, frames: int = 8) -> Path:
    """Videos of some brightness, with a little noise and a square that moves."""
    random = np.random.default_rng(0)
    for name, level in names.items():
        for number in range(each):
            pictures = np.clip(level + random.normal(0, 6, (frames, 32, 32, 3)), 0, 255).astype(np.uint8)
            for frame, picture in enumerate(pictures):
                picture[8:12, 3 * frame :][:, :4] += 20
            write_video(root / name / f"{name}{number}.avi", pictures=list(pictures))
    return root


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("reference") / "videos", LEVELS)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_videos(tmp_path_factory.mktemp("unlabelled") / "classes", LEVELS, each=2)
    flat = made.parent / "videos"
    flat.mkdir()
    for file in made.rglob("*.avi"):
        file.rename(flat / file.name)
    return flat


def measured(model: Any, folder: Path, data: Path, **settings: Any) -> Report:
    model.save(folder / "model.keras")
    report, _ = measure_model(folder / "model.keras", data, frames=4, **{"validation": 0.6, **settings})
    return report


def looked_at(
    model: Any, data: Path, *, rescale: str | None = None, classes: tuple[str, ...] | None = None, numbers: bool = False
) -> Reference:
    """What `report MODEL --data` finds before it measures."""
    videos = deltafine.open_dataset(data, validation=0.6, classes=classes)
    output = Output()
    if numbers:
        output = Output("numbers", values=tuple(float(name) for name in videos.classes))

    def rescaled(scaling: str | None) -> Any:
        return deltafine.insert_deltas(model, [], rescale=scaling)

    return check_reference(
        "original", rescaled(rescale), videos, output, frames=4, rescale=rescale, rescaled=rescaled
    )  # fmt: skip


def test_a_model_that_works_is_said_to_be_good_and_nothing_else(videos: Path) -> None:
    found = looked_at(brightness(None), videos)
    assert (found.value, found.broken, found.tried) == (1.0, "", {})
    assert found.chance == pytest.approx(1 / 3)
    assert "an accuracy of 100.0%" in sentence_of(found)


@pytest.mark.parametrize("scaling", RESCALES)
def test_the_scaling_that_was_left_out_is_named(scaling: str, videos: Path) -> None:
    reference = looked_at(brightness(scaling), videos)
    assert f"With --rescale {scaling} it is 100.0%: the pixels are probably scaled wrongly." in reference.broken
    assert reference.tried[scaling] == 1
    assert set(reference.tried) == set(RESCALES)


def test_a_scaling_that_the_model_does_already_is_named(videos: Path) -> None:
    reference = looked_at(brightness(None), videos, rescale="0..1")
    assert "Without --rescale it is 100.0%" in reference.broken


def test_no_factor_is_named_and_no_cost_passes(tmp_path: Path, videos: Path) -> None:
    report = measured(brightness("0..1"), tmp_path, videos)
    assert headline(report).sentence == (
        "The original model does not work on these videos: accuracy 33.3%, a constant answer 33.3%"
    )
    for how in ("html", "markdown"):
        shown = str(render(report, how))
        assert "x fewer MACs" not in shown
        assert "does not work on these videos" in shown
        assert "the pixels are probably scaled wrongly" in shown
    costs = {"min-sparsity": 0.0, "max-macs-ratio": 1.0, "max-pixel-density": 1.0}
    for one in check(report, Gate(costs)):
        assert not one.met
        assert "the original model does not work on these videos" in one.measured


@pytest.mark.parametrize("wrong", ["grey,dark,light", "light,grey,dark", "grey,light,dark"])
def test_the_order_of_the_classes_that_explains_the_labels_is_named(wrong: str, videos: Path) -> None:
    reference = looked_at(brightness(None), videos, classes=tuple(wrong.split(",")))
    assert reference.classes == ["dark", "grey", "light"]
    assert "100.0% in the other order. Give --classes dark,grey,light." in reference.broken


def test_answers_by_chance_are_no_other_order_of_the_classes() -> None:
    random = np.random.default_rng(0)
    for classes, videos in ((2, 8), (3, 12), (10, 40), (50, 64)):
        named, broken = 0, 0
        for _ in range(40):
            labels = np.repeat(random.integers(classes, size=(videos, 1)), 8, axis=1)
            answers = np.repeat(random.integers(classes, size=(videos, 1)), 8, axis=1)
            sample = _Sample(np.eye(classes, dtype=np.float32)[answers], labels, np.arange(videos))
            found = _judged(sample, Output(), [str(number) for number in range(classes)])
            named += found.order is not None
            broken += found.broken
        assert named <= 4, (classes, named)
        assert broken >= 20, (classes, broken)


def test_a_weak_model_is_not_broken() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60)[:, None] % 3
    answers = np.where(random.random((60, 1)) < 0.6, labels, random.integers(3, size=(60, 1)))
    sample = _Sample(np.eye(3, dtype=np.float32)[answers], labels, np.arange(60))
    assert not _judged(sample, Output(), "abc").broken


def test_a_good_model_of_unequal_classes_is_not_broken() -> None:
    labels = (np.arange(60)[:, None] >= 57).astype(np.int64)  # a model that always said 0 would be right in 95%
    answers = np.where(np.arange(60)[:, None] % 8 == 0, 1 - labels, labels)
    good = _Sample(np.eye(2, dtype=np.float32)[answers], labels, np.arange(60))
    always = _Sample(np.eye(2, dtype=np.float32)[0 * answers], labels, np.arange(60))
    assert not _judged(good, Output(), "ab").broken
    assert _judged(always, Output(), "ab").broken


def test_without_labels_constant_answers_are_found(unlabelled: Path) -> None:
    broken = looked_at(brightness("0..1"), unlabelled)
    assert broken.value is None
    assert "class 2 on nearly every frame" in broken.broken
    assert "The answers vary with --rescale 0..1" in broken.broken
    sound = looked_at(brightness(None), unlabelled)
    assert sound.broken == ""


def test_numbers_are_judged_by_their_error(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "videos", {"40": 40, "110": 110, "190": 190})
    right = looked_at(brightness(None, 1), data, numbers=True)
    wrong = looked_at(brightness(None, 1), data, numbers=True, rescale="torch")
    assert right.judged_by == "error"
    assert right.value is not None
    assert right.value < 0.3
    assert right.broken == ""
    assert "no better than a constant" in wrong.broken
    assert "Without --rescale it is" in wrong.broken


@pytest.mark.parametrize(("factor", "offset"), [(-1.0, 0.0), (57.3, 0.0), (1.0, 500.0), (-0.01, 3.0)])
def test_numbers_of_another_sign_unit_or_zero_are_told_with_what_mends_them(
    factor: float, offset: float, tmp_path: Path
) -> None:
    data = write_videos(tmp_path / "videos", {"40": 40, "110": 110, "190": 190})
    model = brightness(None, 1)
    right = looked_at(model, data, numbers=True)
    other = keras.Model(model.inputs[0], layers.Rescaling(factor, offset)(model.outputs[0]))
    told = re.search(
        r"Its answers times (\S+?)( (plus|minus) (\S+))? have an error of (\S+)%",
        looked_at(other, data, numbers=True).broken,
    )
    assert told is not None
    fitted_factor, shift = float(told[1]), float(told[4] or 0) * (-1 if told[3] == "minus" else 1)
    assert right.value is not None
    assert float(told[5]) / 100 <= right.value + 0.001  # the nearest line is at least as near
    for number in (40, 110, 190):
        assert fitted_factor * (factor * number + offset) + shift == pytest.approx(number, abs=25)


def test_numbers_that_have_nothing_to_do_with_the_labels_are_mended_by_no_line(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "videos", {"40": 110, "110": 40, "190": 110})
    broken = looked_at(brightness(None, 1), data, numbers=True).broken
    assert "no better than a constant" in broken
    assert "Its answers times" not in broken


def test_a_model_of_grey_is_not_tried_with_scalings_of_colours(videos: Path) -> None:
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(2, 3, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalMaxPooling2D()(x)))
    model.layers[-1].set_weights([np.zeros((2, 3)), np.float32([0, 1, 0])])
    reference = looked_at(model, videos)
    assert reference.broken.startswith("The original model gives 'grey' on nearly every frame")
    assert set(reference.tried) == {"0..1", "-1..1"}
    assert "No other usual scaling of the pixels is better (0..1 33.3%, -1..1 33.3%)." in reference.broken


def test_a_run_says_it_before_it_trains_and_goes_on(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Command(capsys, monkeypatch)
    model = tmp_path / "model.keras"
    brightness("0..1").save(model)
    arguments = ("refine", model, "--data", videos, "--out", tmp_path / "run", "--frames", 4, "--validation", "60%")
    done = command(*arguments, "--epochs", 1, "--set", "relative_threshold=0.5")
    assert done.code == 0, done.errors
    said = "With --rescale 0..1 it is 100.0%"
    assert done.output.index(said) < done.output.index("epoch 1 of 1")
    report = load_report(tmp_path / "run")
    assert report.reference is not None
    assert said in report.reference.broken
    assert said in report.warnings[0]
    assert command("report", tmp_path / "run").code == 0
    gated = command("report", tmp_path / "run", "--max-macs-ratio", "100%")
    assert gated.code == 1
    assert "x fewer MACs" not in gated.output


def test_a_run_of_a_model_that_works_says_how_good_it_is(tmp_path: Path, videos: Path) -> None:
    said: list[str] = []

    class Listener:
        def say(self, text: str) -> None:
            said.append(text)

        def progress(self, what: str, done: int, total: int, figures: str = "") -> None: ...

        def epoch(self, epoch: Any, epochs: int) -> None: ...

    model = tmp_path / "model.keras"
    brightness("torch").save(model)
    how: dict[str, Any] = {"rescale": "torch", "frames": 4, "epochs": 0, "relative_threshold": 0.5, "validation": 0.6}
    report = deltafine.refine(model, videos, tmp_path / "run", listener=Listener(), **how)
    assert any("accuracy of 100.0% on 45 validation clips, averaged over the classes" in line for line in said), said
    assert report.reference is not None
    assert report.reference.broken == ""
