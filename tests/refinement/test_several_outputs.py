"""Runs of models with several outputs: all are followed, each on its own scale, and reported by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine import refine
from deltafine.errors import DeltafineError
from deltafine.jobs.answers import outputs_of
from deltafine.jobs.refine import Quiet
from deltafine.measurement.parts import OutputPart, by_name
from deltafine.measurement.probe import Probe
from deltafine.measurement.scoring import ScoredVideo
from deltafine.measurement.task import answers_of
from deltafine.model import delta_layers, insert_deltas, load
from deltafine.model.clip_model import with_time
from deltafine.model.output_names import output_names
from deltafine.refinement.run.refinement import Refinement
from deltafine.refinement.thresholds.recalibration import Recalibration
from deltafine.refinement.training.losses import RegressionLoss
from deltafine.runtime.lowering.lower import compile_model
from deltafine.settings import resolve
from tests.small_runs import FAST, SIZE, write_small_video

SCALE = 1000.0
RUN: dict[str, Any] = {**FAST, "task": "distill", "epochs": 1, "recalibrate": 0}


def detector(kind: str = "dict") -> Any:
    """A map of probabilities, and numbers that are thousands of times as large."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1")(layers.Rescaling(1 / 255)(inputs))
    centre = layers.Conv2D(1, 3, activation="sigmoid", name="centre")(x)
    large = keras.initializers.RandomNormal(stddev=SCALE)
    size = layers.Dense(2, kernel_initializer=large, name="size")(layers.Flatten()(x))
    outputs = {"list": [centre, size], "dict": {"where": centre, "size": size}, "tuple": (centre, size)}[kind]
    return keras.Model(inputs, outputs, name="detector")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_small_video(folder / f"{number}.avi", number % 2 == 0, seed=number)
    return folder


SEEN: list[tuple[ScoredVideo, dict[str, np.ndarray]]] = []


def seen(predictions: dict[str, np.ndarray], truth: dict[str, np.ndarray], video: ScoredVideo) -> float:
    """1 - mean distance of the maps."""
    SEEN.append((video, predictions))
    assert predictions.keys() == truth.keys()
    return 1 - float(np.abs(predictions["where"] - truth["where"]).mean())


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_all_outputs_are_followed_measured_and_reported_by_name(kind: str, videos: Path, tmp_path: Path) -> None:
    detector(kind).save(tmp_path / "model.keras")
    report = refine(tmp_path / "model.keras", videos, tmp_path / "run", **RUN, output_weight=["size=3"])
    streams = report.models["refined"].streams
    shapes = {one.name: (one.shape, one.weight) for one in streams.outputs}
    assert shapes == {"size": ([2], 3.0), ("where" if kind == "dict" else "centre"): ([5, 5, 1], 1.0)}
    errors = {one.name: one.relative_error for one in streams.outputs}
    assert all(error is not None and 0 < error < 1 for error in errors.values())
    whole = sum(one.weight * (one.relative_error or 0) ** 2 for one in streams.outputs) / 4
    assert streams.relative_error == pytest.approx(whole**0.5)
    assert report.model.outputs is None  # classes
    assert report.history[0].judged_by == "error"

    refined = load(tmp_path / "run" / "refined.keras")
    assert output_names(refined) == list(errors)
    kinds = outputs_of(compile_model(refined).plan, tmp_path / "run")
    assert sorted(one.name for one in kinds) == list(errors)  # what `run` calls them
    page = (tmp_path / "run" / "report.md").read_text()
    for name, error in errors.items():
        (line,) = [line for line in page.splitlines() if line.startswith("| ") and f"{name} |" in line]
        assert f"{100 * (error or 0):.1f}" in line


def test_a_score_is_given_the_outputs_by_name_and_the_frames_of_the_video(videos: Path, tmp_path: Path) -> None:
    detector().save(tmp_path / "model.keras")
    SEEN.clear()
    score = f"{__name__}:seen"
    settings: dict[str, Any] = {**RUN, "epochs": 0, "score": score}
    report = refine(tmp_path / "model.keras", videos, tmp_path / "run", **settings)
    refined = report.models["calibrated"].streams
    assert refined.score is not None
    assert refined.score.value < report.models["original"].streams.score.value == 1  # type: ignore[union-attr]
    for video, predictions in SEEN:
        assert video.path is not None
        assert video.path.parent == videos
        assert video.frames is not None
        assert video.frames.tolist() == list(range(12))
        assert {name: values.shape for name, values in predictions.items()} == {"size": (12, 2), "where": (12, 5, 5, 1)}


def test_each_output_counts_the_same_in_the_loss_however_large_it_is() -> None:
    generator = np.random.default_rng(0)
    parts = (OutputPart("map", (4, 4, 1)), OutputPart("size", (2,)))
    scales = np.concatenate([np.full(16, 0.01), np.full(2, SCALE)])
    original = (scales * generator.normal(size=(40, 18))).astype("float32")
    loss = RegressionLoss(original, parts=parts)
    away = original.copy()
    away[:, :16] += original[:, :16].std()
    of_map = loss.divergence(original, away)
    away = original.copy()
    away[:, 16:] += original[:, 16:].std(0)
    of_size = loss.divergence(original, away)
    assert (of_map, of_size) == (pytest.approx(0.25, rel=0.02), pytest.approx(0.25, rel=1e-4))  # half of 1/2 each
    clips, labels = away.reshape(4, 10, 18), np.full(4, -1)
    assert float(loss(clips, original.reshape(4, 10, 18), labels)) == pytest.approx(of_size, rel=1e-5)
    heavy = RegressionLoss(original, parts=(OutputPart("map", (4, 4, 1)), OutputPart("size", (2,), 3.0)))
    assert heavy.divergence(original, away) == pytest.approx(3 / 8, rel=1e-4)
    held = np.repeat(loss.logits(original).mean(0, keepdims=True), 40, axis=0)
    apart = np.square(loss.logits(original) - held).sum(0)
    assert apart[:16].sum() == pytest.approx(apart[16:].sum(), rel=0.1)  # what follows, too


def test_thresholds_are_tried_by_the_loss_of_all_outputs(videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    detector().save(tmp_path / "model.keras")
    settings = resolve(model=str(tmp_path / "model.keras"), data=str(videos), **RUN)
    made = Refinement(settings, tmp_path / "run", Quiet())
    for path, layer in delta_layers(made.student).items():
        layer.set_threshold(12.0 if path.startswith("input") else 0.2)
    batch = next(iter(made.prepared.clips("train", epoch=1)))
    answers = Probe(made.original).run(batch.frames).predictions
    assert answers.shape[2:] == (27,)
    loss = made.prepared.read_output(answers.reshape(-1, 27))
    held = Probe(made.student).run(batch.frames).predictions
    expected = float(loss(held, answers, np.full(len(answers), -1)))
    assert expected > 1e-3
    found = Recalibration(made.student, with_time(made.original), loss, made.prepared.weights, [batch])
    assert found.play(dict.fromkeys(made.prepared.weights, 1.0)).loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"task": "classification"}, "has 2 outputs \\('size', 'where'\\), .*--task distill"),
        ({"output_weight": ["boxes=2"]}, "no output 'boxes'"),
        ({"score": "mean-iou"}, "for maps"),
    ],
)
def test_what_several_outputs_cannot_be_is_refused(
    settings: dict[str, Any], reason: str, videos: Path, tmp_path: Path
) -> None:
    detector().save(tmp_path / "model.keras")
    with pytest.raises(DeltafineError, match=reason):
        refine(tmp_path / "model.keras", videos, tmp_path / "run", **{**RUN, **settings})
    assert not (tmp_path / "run").exists()


def test_outputs_are_called_by_their_keys_or_by_the_layers_that_make_them() -> None:
    inner = detector("list")
    inputs = keras.Input((SIZE, SIZE, 3))
    centre, size = inner(inputs)
    flat = layers.Reshape((25,), name="flattened")(centre)
    assert output_names(keras.Model(inputs, [flat, size])) == ["centre", "size"]
    assert output_names(keras.Model(inputs, [size, size])) == ["size 0", "size 1"]
    assert output_names(keras.Model(inputs, {"b": size, "a": [centre, flat]})) == ["a/0", "a/1", "b"]


def of_windows(*kinds: str) -> Any:
    """Of a network that takes clips: an output for each frame, or for the window."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, SIZE, SIZE, 3))
    x = layers.TimeDistributed(layers.Conv2D(2, 3, strides=4, activation="relu"))(inputs)
    x = layers.TimeDistributed(layers.Flatten())(x)
    ends = {"frames": x, "window": layers.LSTM(3)(x)}
    return keras.Model(inputs, {f"{place}": layers.Dense(place + 1)(ends[kind]) for place, kind in enumerate(kinds)})


@pytest.mark.parametrize("kind", ["frames", "window"])
def test_outputs_of_windows_are_laid_out_step_by_step(kind: str) -> None:
    model = of_windows(kind, kind)
    clips = np.random.default_rng(0).uniform(0, 255, (2, 4, SIZE, SIZE, 3)).astype("float32")
    answers = answers_of(model, (4, SIZE, SIZE, 3), 4)
    assert (answers.steps, answers.shape) == (4 if kind == "frames" else None, (3,))
    found = Probe(insert_deltas(model, [])).run(clips).predictions
    expected = model(clips, training=False)
    whole = np.concatenate([np.asarray(expected[name]).reshape(2, -1, size) for name, size in (("0", 1), ("1", 2))], -1)
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
    apart = by_name(found, answers.parts)
    assert {name: values.shape[2:] for name, values in apart.items()} == {"0": (1,), "1": (2,)}


def test_outputs_of_frames_and_of_windows_cannot_be_compared_together() -> None:
    with pytest.raises(DeltafineError, match=r"different numbers of answers for a clip \('0' 4, '1' 1\)"):
        answers_of(of_windows("frames", "window"), (4, SIZE, SIZE, 3), 4)
