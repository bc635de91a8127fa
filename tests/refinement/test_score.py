"""Runs that are judged by a score: choice, budget, report, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltafine import load_report, measure_model, refine
from deltafine.errors import DeltafineError
from deltafine.settings import resolve
from tests.own_scores import balanced
from tests.refinement.test_tasks import of_maps
from tests.small_runs import FAST, write_small_model, write_small_videos

OWN = "tests.own_scores"
F1 = '''
import numpy as np


def f1(predictions, labels):
    """Of class 0."""
    found, there = predictions.argmax(-1) == 0, labels == 0
    return 2 * (found & there).sum() / max(1, found.sum() + there.sum())
'''


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_videos(tmp_path_factory.mktemp("videos"), per_class=3)


def settled(**values: Any) -> Any:
    return resolve(model="m", data="d", **values)


def test_a_run_is_judged_by_the_score_and_resumed_with_the_same_file_only(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_f1.py").write_text(F1)
    model = write_small_model(tmp_path / "small.keras")
    settings: dict[str, Any] = {**FAST, "epochs": 1, "score": "my_f1:f1", "max_accuracy_drop": 0.5}
    report = refine(model, videos, tmp_path / "run", **settings)
    streams = report.models["refined"].streams
    assert streams.score is not None
    assert streams.score_change is not None
    original = report.models["original"].streams
    assert (original.score.value, original.score_change) == (0.5, None)  # all right of one video, none of the other
    assert report.history[0].judged_by == "score"
    assert report.score is not None
    assert (report.score.name, report.score.against) == ("my_f1:f1", "labels")
    assert report.controls is not None
    assert report.controls.judged_by == "score"
    assert report.controls.quality_of(original) == original.score.value
    worst = [picture for picture in report.pictures if picture.kind == "worst"]
    assert len(worst) == len(streams.worst_answers)
    assert all((tmp_path / "run" / "pictures" / picture.file).is_file() for picture in worst)
    assert report.models["refined"].clips.score is None
    (chosen,) = [point for point in report.front if point.chosen]
    assert chosen.accuracy == pytest.approx(streams.score.value)  # the same videos, spliced
    assert report.kept_budget
    assert load_report(tmp_path / "run") == report
    again, _ = measure_model(
        tmp_path / "run" / "refined.keras", videos, original=model, score="my_f1:f1", task="classification"
    )
    assert again.models["refined"].streams.score == streams.score
    plain, _ = measure_model(tmp_path / "run" / "refined.keras", videos)
    assert plain.models["refined"].streams.score is None
    assert any("judged by the score my_f1:f1, which is not measured here" in said for said in plain.warnings)
    (tmp_path / "my_f1.py").write_text(F1.replace("2 *", "1 *"))
    with pytest.raises(DeltafineError, match=r"The file of the score my_f1:f1 is not the one that the run .* byte for"):
        refine(model, videos, tmp_path / "run", resume=True, **settings)


def test_the_model_is_chosen_by_the_score_and_not_by_accuracy(videos: Path, tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "small.keras")
    report = refine(model, videos, tmp_path / "run", score=f"{OWN}:steadiness", **FAST, epochs=1)
    original = report.models["original"].streams
    assert original.score is not None
    assert original.frame_accuracy is not None
    assert original.frame_accuracy.value < 0.9 < original.score.value  # so that one is not taken for the other
    assert all(point.accuracy > 0.9 and point.judged == point.accuracy for point in report.front)
    (chosen,) = [point for point in report.front if point.chosen]
    assert chosen.accuracy >= original.score.value - 0.01


def test_maps_are_judged_by_their_mean_iou_with_the_originals(videos: Path, tmp_path: Path) -> None:
    of_maps("softmax").save(tmp_path / "maps.keras")
    settings: dict[str, Any] = {**FAST, "epochs": 0, "task": "distill", "clip_output": "per-frame"}
    report = refine(tmp_path / "maps.keras", videos, tmp_path / "run", score="mean-iou", **settings)
    original, calibrated = (report.models[name].streams.score for name in ("original", "calibrated"))
    assert original is not None
    assert original.value == 1
    assert calibrated is not None
    assert 0 < calibrated.value < 1
    assert report.score is not None
    assert (report.score.against, report.score.sha256) == ("original", "")


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("mean-iou", r"is for maps, and the model gives \(2,\)"),
        (f"{OWN}:empty", r"gives nan for the video \w+/\w+.avi"),
        (f"{OWN}:failing", "KeyError"),
        ("broken_score:f1", r"The module of the score broken_score:f1 cannot be imported: SyntaxError"),
    ],
)
def test_a_score_that_cannot_be_is_refused_and_leaves_nothing_behind(
    score: str, said: str, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_score.py").write_text("def f1(:\n")
    model = write_small_model(tmp_path / "small.keras")
    with pytest.raises(DeltafineError, match=said):
        refine(model, videos, tmp_path / "run", score=score, **FAST, epochs=1)
    assert not (tmp_path / "run" / "refined.keras").exists()


def test_without_labels_measuring_needs_the_original(tmp_path: Path, videos: Path) -> None:
    model = write_small_model(tmp_path / "small.keras")
    refine(model, videos, tmp_path / "run", task="distill", epochs=0, **FAST)
    refined = tmp_path / "run" / "refined.keras"
    with pytest.raises(DeltafineError, match="give --original MODEL"):
        measure_model(refined, videos, score=f"{OWN}:nearness")
    report, _ = measure_model(refined, videos, original=model, score=f"{OWN}:nearness")
    score = report.models["refined"].streams.score
    assert score is not None
    assert 0 < score.value < 1


def test_a_score_is_given_as_a_function_or_as_the_same_text() -> None:
    assert settled(score=balanced).score == f"{OWN}:balanced"
    assert settled(score="mean-iou").score == "mean-iou"
    assert settled().hash() == settled(score=None).hash()
    assert settled().hash() != settled(score="mean-iou").hash()


@pytest.mark.parametrize("score", ["iou", ":f1", "module:", 3, "module:f1(x=2)", lambda predictions, labels: 1.0])
def test_what_is_no_score_is_refused_by_the_name_of_the_setting(score: Any) -> None:
    with pytest.raises(DeltafineError, match=r"The setting 'score' is .*must be mean-iou, or module:function"):
        settled(score=score)


def test_a_recipe_alone_imports_no_score(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'score = "{OWN}:balanced"\n', "utf-8")
    with pytest.raises(DeltafineError, match=r"asks for score, which imports Python modules: .*give --score as well"):
        settled(recipe=recipe)
    recipe.write_text('score = "mean-iou"\n', "utf-8")
    assert settled(recipe=recipe).score == "mean-iou"
