"""Scores of the user's own: of each video, from labels or from the original's predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltafine.document.figures import Estimate
from deltafine.errors import DeltafineError
from deltafine.measurement.interval import mean_with_interval
from deltafine.measurement.metric import Answered, Shown, Subject
from deltafine.measurement.output import Output
from deltafine.measurement.score import Score
from deltafine.measurement.scoring import Scoring, mean_iou, scoring_of

OWN = "tests.own_scores"
TWO = np.eye(2)


def counted(
    scoring: Scoring,
    videos: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    *,
    labelled: bool = True,
    pieces: int = 2,
    output: Output | None = None,
    original: bool = False,
) -> Score:
    """The score of (predictions, labels, the original's predictions) of some videos, in pieces of so many frames."""
    metric = Score(scoring, labelled)
    metric.begin(Subject(None, output or Output(), is_original=original))  # type: ignore[arg-type]
    for number, (predictions, labels, of_original) in enumerate(videos):
        for start in range(0, len(labels), pieces):
            of = slice(start, start + pieces)
            answers = Answered(
                predictions[None, of],
                labels[None, of],
                np.array([number]),
                number,
                None if of_original is None else of_original[None, of],
                name=f"video{number}.avi",
            )
            held = predictions if of_original is None else of_original
            control = Answered(np.repeat(held[None, :1], len(labels[of]), axis=1), labels[None, of], np.array([number]))
            metric.update(Shown(None, answers, control))  # type: ignore[arg-type]
    return metric


def figures(metric: Score) -> dict[str, float | None]:
    found = metric.result(None).figures  # type: ignore[arg-type]
    return {name: one.value if isinstance(one, Estimate) else None for name, one in found.items()}


RISING = np.array([0, 0, 1, 1])
LATE = np.array([0, 0, 0, 1])


def test_a_score_is_the_mean_over_whole_videos_beside_the_originals_and_the_held_first_answer() -> None:
    videos = [(TWO[LATE], RISING, TWO[RISING]), (TWO[RISING], RISING, TWO[RISING])]
    found = figures(counted(scoring_of(f"{OWN}:balanced"), videos))
    # The first video: class 0 right twice, class 1 once of twice.
    assert found == {"score": (0.75 + 1) / 2, "score_change": -0.125, "frozen_score": 0.5}


def test_the_original_has_a_score_and_no_change() -> None:
    found = figures(counted(scoring_of(f"{OWN}:balanced"), [(TWO[LATE], RISING, TWO[LATE])], original=True))
    assert found == {"score": 0.75, "frozen_score": 0.5}


@given(st.integers(1, 7))
def test_it_does_not_matter_in_which_pieces_a_video_came(pieces: int) -> None:
    random = np.random.default_rng(0)
    video = (random.random((7, 2)), random.integers(0, 2, 7), random.random((7, 2)))
    scoring = scoring_of(f"{OWN}:steadiness")
    assert figures(counted(scoring, [video], pieces=pieces)) == figures(counted(scoring, [video], pieces=7))


def test_without_labels_the_truth_is_what_the_original_predicts() -> None:
    nothing = np.full(4, -1)
    video = (TWO[LATE] * 0.5, nothing, TWO[RISING] * 0.5)
    found = figures(counted(scoring_of(f"{OWN}:nearness"), [video], labelled=False))
    assert found["score"] == 1 - 0.5 / 4
    assert found["score_change"] == -0.5 / 4


def test_frames_without_a_label_are_left_out_and_so_are_videos_without_any() -> None:
    labels = np.array([-1, 0, 1, -1])
    videos = [(TWO[LATE], labels, TWO[LATE]), (TWO[LATE], np.full(4, -1), TWO[LATE])]
    assert figures(counted(scoring_of(f"{OWN}:balanced"), videos))["score"] == 0.5
    assert figures(counted(scoring_of(f"{OWN}:balanced"), videos[1:]))["score"] is None


def test_labels_that_are_numbers_are_given_as_numbers() -> None:
    output = Output("numbers", values=(-1.0, 0.5))
    video = (np.zeros((4, 1)), RISING, np.zeros((4, 1)))
    assert figures(counted(scoring_of(f"{OWN}:minus_error"), [video], output=output))["score"] == -0.75


def test_several_that_count_some_of_the_videos_each_come_to_the_same() -> None:
    scoring = scoring_of(f"{OWN}:balanced")
    videos = [(TWO[LATE], RISING, TWO[RISING]), (TWO[RISING], RISING, TWO[RISING])]
    together = counted(scoring, videos)
    first, second = counted(scoring, videos[:1]), counted(scoring, videos[1:])
    record = second.record()
    record["video"] = record["video"] + 1
    first.add(record)
    assert first.result(None).figures == together.result(None).figures  # type: ignore[arg-type]


def test_clips_have_no_score() -> None:
    metric = Score(scoring_of(f"{OWN}:failing"), True)
    metric.begin(Subject(None, as_clips=True))  # type: ignore[arg-type]
    metric.update(Shown(None, Answered(TWO[None, LATE], RISING[None], np.array([0]))))  # type: ignore[arg-type]
    assert figures(metric) == {"score": None, "score_change": None, "frozen_score": None}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty", "gives nan for the video video0.avi: it must return one finite number"),
        ("words", r"gives a value of type str \('good'\) for the video video0.avi"),
        ("per_frame", r"gives an array of shape \(4,\)"),
        ("failing", r"fails on the video video0.avi: KeyError: 'boxes'. It was given predictions \(4, 2\) and labels"),
        ("changing", "fails on the video video0.avi: ValueError: assignment destination is read-only"),
    ],
)
def test_a_function_that_gives_no_number_is_refused_in_one_sentence(name: str, said: str) -> None:
    with pytest.raises(DeltafineError, match=rf"^The score {OWN}:{name} {said}"):
        figures(counted(scoring_of(f"{OWN}:{name}"), [(TWO[LATE], RISING, None)]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no_such_module:f1", "The module of the score no_such_module:f1 cannot be imported"),
        (f"{OWN}:f1", f"Module {OWN} has no 'f1'"),
        (f"{OWN}:Scorer", "is a class, Scorer: name a function of predictions and labels"),
        (f"{OWN}:number", "is a value of type int: name a function"),
    ],
)
def test_what_cannot_be_a_score_is_refused_before_anything_is_done(text: str, said: str) -> None:
    with pytest.raises(DeltafineError, match=said):
        scoring_of(text)


def test_mean_iou_is_the_mean_over_the_classes_that_occur() -> None:
    ours, theirs = np.array([[0, 0, 1], [1, 1, 2]]), np.array([[0, 1, 1], [1, 1, 2]])
    assert mean_iou(ours, theirs) == pytest.approx((1 / 2 + 3 / 4 + 1) / 3)
    assert mean_iou(theirs, theirs) == 1


@pytest.mark.parametrize(("classes", "shape"), [(3, (4, 5, 6, 3)), (1, (4, 5, 6, 1))])
def test_mean_iou_of_a_model_of_maps_is_that_of_their_classes(classes: int, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    ours, theirs = random.random(shape), random.random(shape)
    nothing = np.full(4, -1)
    found = figures(counted(scoring_of("mean-iou"), [(ours, nothing, theirs)], labelled=False, pieces=3))

    def as_classes(scores: np.ndarray) -> np.ndarray:
        return scores.argmax(-1) if classes > 1 else scores[..., 0] > 0.5

    assert found["score"] == pytest.approx(mean_iou(as_classes(ours), as_classes(theirs)))


def test_mean_iou_is_refused_for_what_is_no_map_or_has_labels() -> None:
    scoring = scoring_of("mean-iou")
    with pytest.raises(DeltafineError, match=r"is for maps, and the model gives \(10,\) per answer"):
        scoring.check((10,), labelled=False)
    with pytest.raises(DeltafineError, match="give --task distill"):
        scoring.check((4, 4, 3), labelled=True)
    with pytest.raises(DeltafineError, match="needs probabilities"):
        scoring.kept(np.full((2, 4, 4, 1), 3.0))


def test_the_interval_of_a_mean_lies_around_it_and_closes_where_all_are_equal() -> None:
    found = mean_with_interval([0.2, 0.8, 0.5, 0.9])
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(0.6)
    alike = mean_with_interval([0.25] * 5)
    assert alike.low == alike.value == alike.high == 0.25
