"""Training clips start from the state that the clips before them left."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltafine.layers import Stream
from deltafine.model import DeltaSettings, find_activations, insert_deltas, select_sites
from deltafine.model.clip_model import with_time
from deltafine.refinement.training.carried_state import Carried
from deltafine.refinement.training.losses import ClassificationLoss
from deltafine.refinement.training.step import Trainer
from deltafine.settings import resolve
from tests.old_defaults import as_before
from tests.small_runs import SIZE, small_model

PIECE = 4


def student_of(granularity: str = "element") -> Any:
    model = small_model()
    sites = select_sites(find_activations(model))
    return (
        insert_deltas(
            model,
            sites,
            DeltaSettings(granularity=granularity, initial_threshold=6.0, random_start=False, train_threshold=False),
        ),
        model,
        sites,
    )


def walk(clips: int, frames: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (128 + random.normal(0, 8, (clips, frames, SIZE, SIZE, 3)).cumsum(axis=1)).clip(0, 255).astype(np.uint8)


def trainer_of(granularity: str = "element") -> tuple[Trainer, Any]:
    """A trainer that changes nothing worth mentioning, so that states can be foretold."""
    keras.utils.set_random_seed(0)
    student, _, sites = student_of(granularity)
    resolved = resolve(
        model="m",
        data="d",
        warmup=0,
        distill=0.0,
        learning_rate=1e-20,
        granularity=granularity,
        average=0.0,
        start="carried",
    )
    for layer in student.layers:
        layer.trainable = layer.trainable and not isinstance(layer, keras.layers.BatchNormalization)
    shares = {site.delta_name: site.mac_share for site in sites if site.selected}
    return Trainer(student, None, ClassificationLoss(True, 0.0), shares, resolved, 10), with_time(student)


def end_of(student: Any, frames: np.ndarray, state: Any = None) -> list[np.ndarray]:
    with Stream(state) as stream:
        student(tf.cast(frames, tf.float32), training=False)
    return [np.asarray(value) for value in stream.state]


@pytest.mark.parametrize("granularity", ["element", "pixel"])
def test_pieces_of_a_video_in_one_place_of_the_batch_are_one_stream(granularity: str) -> None:
    trainer, student = trainer_of(granularity)
    frames = walk(2, 4 * PIECE)
    for begin in range(0, 4 * PIECE, PIECE):
        trainer.train_on_batch(frames[:, begin : begin + PIECE], np.array([0, 1]), 1.0)
    assert trainer.carried is not None
    expected = end_of(student, np.concatenate([frames[:, :PIECE][:, ::-1], frames], axis=1))
    alone = end_of(student, frames[:, -PIECE:])
    for one, other in zip(trainer.carried.arrays, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert any(not np.allclose(one, other, atol=1e-2) for one, other in zip(expected, alone, strict=True))


def test_what_was_left_changes_the_loss_until_it_is_forgotten() -> None:
    frames, other, labels = walk(2, PIECE), walk(2, PIECE, seed=1), np.array([0, 1])
    trainer, _ = trainer_of()
    assert trainer.carried is not None
    alone = trainer.train_on_batch(frames, labels, 1.0)
    trainer.carried.restart()
    trainer.train_on_batch(other, labels, 1.0)
    after_another = trainer.train_on_batch(frames, labels, 1.0)
    trainer.carried.restart()
    again = trainer.train_on_batch(frames, labels, 1.0)
    assert after_another[0] != pytest.approx(alone[0], rel=1e-6)
    assert again == pytest.approx(alone, rel=1e-6)


def test_batches_that_shrink_grow_or_are_empty_keep_each_place_apart() -> None:
    student = with_time(student_of()[0])
    carried = Carried(student)
    frames = walk(3, PIECE)
    assert [len(value) for value in carried.before(frames[:0])] == [0] * len(carried.before(frames[:0]))
    whole = carried.before(frames)
    assert {len(value) for value in whole} == {3}
    carried.keep([value[:2] + 1 for value in whole])
    for now, was in zip(carried.before(frames), whole, strict=True):
        np.testing.assert_allclose(now[:2], np.asarray(was)[:2] + 1)
        np.testing.assert_array_equal(now[2], np.asarray(was)[2])
    saved = carried.arrays
    other = Carried(student)
    other.arrays = saved
    for now, was in zip(other.before(frames), saved, strict=True):
        np.testing.assert_array_equal(now, was)
    assert Carried(student).arrays == []


def test_clips_go_on_from_each_other_but_for_classes_unless_something_else_is_wanted() -> None:
    def carried(**values: Any) -> bool:
        return resolve(model="m", data="d", **values).carried

    assert carried(task="regression")
    assert carried(task="distill")
    assert carried(recalibrate=2)
    assert carried(task="regression", granularity="pixel")
    assert carried(start="carried")
    others = (
        {},
        {"learning_rate": 0.01, "epochs": 3},
        {"granularity": "pixel", "rule": "quantize"},
        {"method": "paper"},
        {"granularity": "pixel"},
        {"granularity": "pixel", "start": "noise"},
        {"start": "exact"},
    )
    assert not any(carried(**values) for values in others)
    for noisy in ({"start": "noise"}, {"method": "l1"}, {"rule": "quantize"}):
        assert resolve(model="m", data="d", **noisy).noisy
    assert resolve(model="m", data="d").noisy
    assert not any(resolve(model="m", data="d", start=start).noisy for start in ("carried", "exact"))
    assert not resolve(model="m", data="d", task="regression").noisy


def test_what_a_run_has_resolved_means_the_same_when_it_is_read_again() -> None:
    """A run that was begun when clips of classes went on from each other has written "auto" with all the rest."""
    resolved = {"epochs": 16, "learning_rate": 0.0005, "training_divergence": 0.05}
    before = resolve(model="m", data="d", start="auto", **resolved)
    assert before.carried
    assert before.first_penalty == 2.0
    today = resolve(model="m", data="d")
    again = today.model_copy(
        update={
            "start": "noise",
            "epochs": 7,
            "learning_rate": today.rate,
            "training_divergence": today.divergence_to_train_from,
        }
    )
    for one in (today, again):
        assert (one.first_penalty, one.rate, one.noisy, one.carried) == (60.0, 0.001, True, False)
        assert one.recalibrations == 0


def test_runs_of_an_earlier_version_start_their_clips_as_they_did() -> None:
    assert as_before().noisy
    assert not as_before().carried
    assert as_before(granularity="pixel").carried
    assert as_before(task="regression").teaching == 0.5
