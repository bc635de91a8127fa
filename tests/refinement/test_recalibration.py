"""Steps that are found anew: what is minimised against Keras, frame by frame, and what a run makes of them."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from deltafine import load_report, refine
from deltafine.errors import DeltafineError
from deltafine.jobs.refine import Quiet
from deltafine.measurement.probe import Probe
from deltafine.model import delta_layers
from deltafine.model.clip_model import with_time
from deltafine.refinement.run.refinement import Refinement
from deltafine.refinement.thresholds.recalibration import FACTOR, FARTHEST_AT_ONCE, SWEEPS, Recalibration, ReplayTrial
from deltafine.refinement.training.losses import ClassificationLoss
from deltafine.refinement.training.steering import AccuracyController
from deltafine.report.health import movement
from deltafine.runtime.lowering.lower import compile_model
from deltafine.runtime.numpy_stream import NumpyState
from deltafine.settings import resolve
from tests.small_runs import FAST, SIZE, write_small_model, write_small_videos

pytest.importorskip("numba")

THRESHOLDS = AccuracyController.THRESHOLDS
LOSS = ClassificationLoss(True, 0.5)
SETTINGS: dict[str, Any] = {**FAST, "start": "carried", "epochs": 2, "recalibrate": 1, "flip": True}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "small.keras"), write_small_videos(folder / "videos")


def refinement(material: tuple[Path, Path], out: Path, granularity: str) -> Refinement:
    """With steps that make some changes come through and hold others."""
    model, videos = material
    made = Refinement(resolve(model=str(model), data=str(videos), granularity=granularity, **SETTINGS), out, Quiet())
    for path, layer in delta_layers(made.student).items():
        layer.set_threshold(12.0 if path.startswith("input") else 0.2)
    return made


def recalibration(run: Refinement) -> Recalibration:
    clips = run.prepared.clips("train", epoch=1)
    return Recalibration(run.student, with_time(run.original), LOSS, run.prepared.weights, clips)


probe_of = functools.lru_cache(maxsize=2)(Probe)
"""The original and the student of a test are played again and again; making a probe takes longer than that."""


def played_by_keras(run: Refinement) -> ReplayTrial:
    """The same, with all places of the batches as streams of the clip model; the share is that of events."""
    student, original = probe_of(run.student), probe_of(run.original)
    predictions, answers, labels = [], [], []
    sent, seen = dict.fromkeys(run.prepared.weights, 0.0), 0
    state: Any = None
    for batch in run.prepared.clips("train", epoch=1):
        rows = len(batch.frames)
        piece = student.run(batch.frames, None if state is None else [value[:rows] for value in state])
        state = piece.state
        predictions.append(piece.predictions)
        answers.append(original.run(batch.frames).predictions)
        labels.append(batch.labels)
        seen += int(piece.steady.sum())
        for place, counts in zip(student.deltas, piece.counts[len(student.layers) :], strict=True):
            sent[place.name] += counts.changed[piece.steady].sum() / place.elements
    loss = LOSS(np.concatenate(predictions), np.concatenate(answers), np.concatenate(labels))
    return ReplayTrial(float(loss), sum(run.prepared.weights[name] * count / seen for name, count in sent.items()))


def share_of_the_work(run: Refinement) -> float:
    """Positions that are computed in NumPy, each with its MACs and 1000 more; that of the input is no work."""
    plan = compile_model(run.student).plan
    work, dense, frames = 0, 0, 0
    for place in range(SETTINGS["batch"]):
        state = NumpyState(plan, None)
        for number, batch in enumerate(run.prepared.clips("train", epoch=1)):
            for time, frame in enumerate(batch.frames[place : place + 1].reshape(-1, SIZE, SIZE, 3)):
                state.step(frame)
                if number or time:
                    rows = state.counts().rows.tolist()
                    for index, operation in list(enumerate(plan.operations))[1:]:
                        height, width, _ = plan.tensors[operation.output].shape
                        macs = plan.arrays[operation.weights].size if operation.kind == "conv" else 0
                        work += rows[index] * (1000 + macs)
                        dense += height * width * (1000 + macs)
                    frames += 1
    assert frames
    return work / dense


@pytest.mark.parametrize("granularity", ["pixel", "element"])
def test_what_is_minimised_is_what_keras_and_numpy_find(
    material: tuple[Path, Path], tmp_path: Path, granularity: str
) -> None:
    run = refinement(material, tmp_path, granularity)
    found = recalibration(run)
    factors = dict.fromkeys(run.prepared.weights, 1.0)
    layers = delta_layers(run.student)
    shares = []
    for path in [None, *layers]:
        if path is not None:
            layers[path].set_threshold(1.5 * np.asarray(layers[path].threshold))
            factors[path] = 1.5
        played, expected = found.play(factors), played_by_keras(run)
        assert played.loss == pytest.approx(expected.loss, rel=1e-5)
        share = expected.share if granularity == "element" else share_of_the_work(run)
        assert played.share == pytest.approx(share, rel=1e-9)
        shares.append(share)
    assert 0.02 < shares[-1] < shares[0] < 0.9
    assert played.total(3.0) == played.loss + 3 * played.share


def test_the_steps_found_are_better_and_lose_nothing(material: tuple[Path, Path], tmp_path: Path) -> None:
    run = refinement(material, tmp_path, "pixel")
    found = recalibration(run)
    before = found.play(dict.fromkeys(run.prepared.weights, 1.0))
    turns: list[int] = []
    steps = found.search(2.0, lambda turn, of: turns.append(turn))
    for path, layer in delta_layers(run.student).items():
        moves = np.log(steps[path] / np.asarray(layer.threshold)) / np.log(FACTOR)
        assert moves == pytest.approx(round(float(moves)), abs=1e-4)
        layer.set_threshold(steps[path])
    after = recalibration(run).play(dict.fromkeys(steps, 1.0))
    assert after.total(2.0) < before.total(2.0) - 0.02
    assert after.loss <= before.loss
    assert after.loss == pytest.approx(played_by_keras(run).loss, rel=1e-5)
    assert sorted(set(turns)) == list(range(1, SWEEPS * len(steps) + 1))


def test_a_price_lessens_the_work(material: tuple[Path, Path], tmp_path: Path) -> None:
    run = refinement(material, tmp_path, "pixel")
    found = recalibration(run)
    start = {path: np.asarray(layer.threshold) for path, layer in delta_layers(run.student).items()}

    def with_price(penalty: float) -> ReplayTrial:
        steps = found.search(penalty, lambda turn, of: None)
        return found.play({path: float(steps[path] / start[path]) for path in steps})

    free, dear = with_price(0.0), with_price(20.0)
    assert free.loss <= dear.loss
    assert dear.share < free.share


@pytest.mark.parametrize(("penalty", "moves"), [(0.15, 0), (0.3, 1), (3.0, FARTHEST_AT_ONCE)])
def test_loss_is_spent_where_that_is_allowed_and_pays(
    material: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, penalty: float, moves: int
) -> None:
    run = refinement(material, tmp_path, "pixel")
    found = recalibration(run)
    layers = delta_layers(run.student)
    last = list(layers)[-1]

    def known(factors: dict[str, float]) -> ReplayTrial:
        """A network whose last step alone matters: its loss grows by 0.1 with every move, its work falls by half."""
        moved = math.log(factors[last]) / math.log(FACTOR)
        return ReplayTrial(1.0 + 0.1 * moved, 0.5**moved)

    monkeypatch.setattr(found, "play", known)
    for lossless, expected in ((True, 0), (False, moves)):
        steps = found.search(penalty, lambda turn, of: None, lossless=lossless)
        ratio = {path: float(steps[path] / np.asarray(layer.threshold)) for path, layer in layers.items()}
        assert math.log(ratio.pop(last)) / math.log(FACTOR) == pytest.approx(expected, abs=1e-3)
        assert set(ratio.values()) == {1.0}


def test_a_run_keeps_the_steps_that_were_found_and_is_judged_with_them(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = {**SETTINGS, "granularity": "pixel", "relative_threshold": 0.25, "penalty": 5.0, "recalibrate": 2}
    report = refine(*material, tmp_path / "run", **settings)
    report = refine(
        *material, tmp_path / "run", **settings, resume=True, pick=min(point.epoch for point in report.front)
    )
    moved = movement(report)
    assert any(abs(np.log(moved[name])) > 0.3 for name in moved)
    refined = keras.models.load_model(tmp_path / "run" / "refined.keras")
    for delta in report.models["refined"].streams.deltas:
        step = np.asarray(delta_layers(refined)[delta.name].threshold)
        assert moved[delta.name] == pytest.approx(float(step) / report.start_thresholds[delta.name], rel=1e-5)
    assert load_report(tmp_path / "run") == report


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"start": "noise"}, "start 'carried'"),
        ({"rule": "quantize", "granularity": "pixel"}, "start 'carried'"),
        ({"granularity": "element", "start": "exact"}, "start 'carried'"),
    ],
)
def test_clips_that_are_no_streams_are_refused(
    material: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    model, videos = material
    with pytest.raises(DeltafineError, match=reason):
        refine(model, videos, tmp_path / "run", **{**SETTINGS, **settings})
    assert not (tmp_path / "run").exists()


def test_a_model_of_clips_is_refused(material: tuple[Path, Path], tmp_path: Path) -> None:
    inputs = keras.Input((4, SIZE, SIZE, 3))
    x = keras.layers.TimeDistributed(keras.layers.Conv2D(4, 3, activation="relu"))(inputs)
    x = keras.layers.GlobalAveragePooling3D()(x)
    keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x)).save(tmp_path / "clips.keras")
    with pytest.raises(DeltafineError, match="single frames"):
        refine(tmp_path / "clips.keras", material[1], tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_without_recalibrations_thresholds_follow_the_accuracy_that_is_left(
    material: tuple[Path, Path], tmp_path: Path
) -> None:
    how: dict[str, Any] = {"frames": 4, "batch": 4, "epochs": 2, "learning_rate": 1e-4}
    refine(*material, tmp_path / "run", **how, max_accuracy_drop="90%")
    report = refine(*material, tmp_path / "run", **how, max_accuracy_drop="90%", resume=True, pick=2)
    refined = keras.models.load_model(tmp_path / "run" / "refined.keras")
    assert report.settings["start"] == "noise"  # as by default with classes
    factors = [
        float(np.median(layer.threshold)) / report.start_thresholds[path]
        for path, layer in delta_layers(refined).items()
    ]
    assert 1 < factors[0] <= THRESHOLDS
    assert factors == pytest.approx([factors[0]] * len(factors), rel=1e-5)
