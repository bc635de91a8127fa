"""The original's answers are computed once for each clip: the same to the bit in any company, and as in every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deltafine.jobs.refine import Quiet, refine
from deltafine.model import insert_deltas
from deltafine.refinement.run.preparation import prepare
from deltafine.refinement.run.refinement import Refinement
from deltafine.refinement.training import kept_answers
from deltafine.refinement.training.kept_answers import KeptAnswers
from deltafine.settings import resolve
from tests.refinement.test_training import batch, trainer_of
from tests.small_runs import FAST, SIZE, small_model, write_small_model, write_small_videos

NAMES = [(0, 0), (0, 5), (1, 0), (1, 5)]


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return write_small_model(folder / "m.keras"), write_small_videos(folder / "videos", per_class=3)


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(model: Any) -> None:
    frames, _ = batch()
    together = KeptAnswers(insert_deltas(model, [])).of(frames, NAMES).numpy()
    for number, name in enumerate(NAMES):
        alone = KeptAnswers(insert_deltas(model, [])).of(frames[number : number + 1], [name]).numpy()
        assert alone.tobytes() == together[number].tobytes()
    plain = model.predict(frames.reshape(-1, SIZE, SIZE, 3).astype(np.float32), verbose=0)
    np.testing.assert_allclose(together.reshape(plain.shape), plain, atol=1e-6)


def test_a_clip_is_computed_once(model: Any) -> None:
    frames, _ = batch()
    kept = KeptAnswers(insert_deltas(model, []))
    before = kept.of(frames, NAMES).numpy()
    # What was seen is not looked at any more: other pixels under the same names have the same answers.
    assert kept.of(np.zeros_like(frames), NAMES[::-1]).numpy().tobytes() == before[::-1].tobytes()


def test_training_with_kept_answers_is_training_with_computed_ones(model: Any) -> None:
    losses = []
    for clips in (None, NAMES):
        trainer, _, _ = trainer_of(model)
        trainer._answers = KeptAnswers(insert_deltas(model, []))
        losses.append([trainer.train_on_batch(*batch(), 5.0, clips=clips)[0] for _ in range(6)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_only_what_has_room_is_kept(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptAnswers(insert_deltas(model, []))
    monkeypatch.setattr(kept_answers, "ROOM", 4 * 10 * 8 * 2)  # bytes of ten clips of eight frames, two classes each
    assert kept.fit(10, 8)
    assert not kept.fit(11, 8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"flip": True}, True),
        ({"flip": True, "crop": 0.9}, False),
        ({"brightness": 0.1}, False),
        ({"mix": 0.5}, False),
        ({"mix": 0.0}, True),
        ({"sampling": "random", "clips_per_video": 2}, False),
        ({"clips_per_video": 2}, True),
    ],
)
def test_the_same_clips_come_again_unless_they_are_drawn_or_varied(
    material: tuple[Path, Path], settings: dict[str, Any], expected: bool
) -> None:
    prepared = prepare(resolve(model=str(material[0]), data=str(material[1]), **settings), Quiet())
    assert prepared.clips_come_again == expected


@pytest.mark.parametrize(("settings", "expected"), [({}, True), ({"distill": 0.0}, False), ({"flip": True}, True)])
def test_runs_keep_answers_where_the_original_is_followed(
    material: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any], expected: bool
) -> None:
    run = Refinement(resolve(model=str(material[0]), data=str(material[1]), **settings), tmp_path / "run", Quiet())
    assert (run._kept_answers is not None) == expected


@pytest.mark.parametrize("flip", [False, True])
def test_clips_with_the_same_name_have_the_same_frames(material: tuple[Path, Path], flip: bool) -> None:
    prepared = prepare(resolve(model=str(material[0]), data=str(material[1]), flip=flip), Quiet())
    epochs: list[dict[tuple[int, int, bool], bytes]] = [
        {
            clip: frames.tobytes()
            for one in prepared.clips("train", epoch=epoch)
            for clip, frames in zip(one.clips, one.frames, strict=True)
        }
        for epoch in range(1, 7)
    ]
    names = {name for epoch in epochs for name in epoch}
    for name in names:
        assert len({epoch[name] for epoch in epochs if name in epoch}) == 1
    assert len(names) == (1 + flip) * len({name[:2] for name in names})


def test_a_run_asks_the_original_no_more_than_once_for_each_clip(
    material: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    of = KeptAnswers.of

    def counting(self: KeptAnswers, frames: np.ndarray, clips: Any) -> tf.Tensor:
        before = set(self._kept)
        answers = of(self, frames, clips)
        asked.extend(set(self._kept) - before)
        return answers

    monkeypatch.setattr(KeptAnswers, "of", counting)
    refine(*material, tmp_path / "run", **{**FAST, "epochs": 3})
    assert len(asked) == len(set(asked)) > 0
