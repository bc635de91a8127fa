"""Labels of single outputs: what they are, how far the outputs are from them, and what training makes of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deltafine.document.figures import OutputFigures
from deltafine.errors import DeltafineError
from deltafine.measurement.by_output import ByOutput
from deltafine.measurement.judging import Judge
from deltafine.measurement.label_error import LabelError
from deltafine.measurement.labelled_parts import columns_for, labels_found, read_columns, say_columns
from deltafine.measurement.metric import Answered, Shown, Subject
from deltafine.measurement.original_error import OriginalError
from deltafine.measurement.output import Output
from deltafine.measurement.parts import OutputPart, PartLabels
from deltafine.measurement.relative_error import RelativeError
from deltafine.refinement.training.losses import RegressionLoss
from deltafine.video import Dataset, open_dataset
from tests.video.painted import write_video

STEERING, COLLISION, GEAR = OutputPart("Steering", (1,)), OutputPart("collision", (1,)), OutputPart("gear", (3,))
MAP = OutputPart("map", (2, 2, 1))
NAN = math.nan


def data_of(folder: Path, *rows: str) -> Dataset:
    for name in ("a.avi", "b.avi"):
        write_video(folder / name, 3, first=3 * (name == "b.avi"))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return open_dataset(folder)


def read(data: Dataset, *parts: OutputPart, streams: Dataset | None = None, as_numbers: bool = False) -> Output:
    output = Output("numbers", False, parts=parts)
    return read_columns(output, data, data if streams is None else streams, as_numbers=as_numbers)


def test_columns_are_labels_of_the_outputs_that_are_called_so(tmp_path: Path) -> None:
    data = data_of(
        tmp_path, "video,frame,steering,collision,gear,fuel", "a.avi,0,0.5,1,2,9", "a.avi,1,-1,,0,9", "b.avi,2,,0,,9"
    )
    assert columns_for((STEERING, MAP), data) == ["Steering"]
    output = read(data, STEERING, COLLISION, GEAR, MAP)
    assert [part.labels for part in output.parts] == [PartLabels(), PartLabels(2, certain=False), PartLabels(3), None]
    assert output.truth is not None
    np.testing.assert_array_equal(output.truth, [[0.5, 1, 2, NAN], [-1, NAN, 0, NAN], [NAN, 0, NAN, NAN]])
    np.testing.assert_array_equal(
        output.targets(np.array([0, 2])),
        [[0.5, 1, 0, 0, 1, NAN, NAN, NAN, NAN], [NAN, 0, NAN, NAN, NAN, NAN, NAN, NAN, NAN]],
    )
    assert [video.labels_at(np.arange(3)).tolist() for video in data.videos] == [[0, 1, -1], [-1, -1, 2]]
    assert "2 videos, labels of 'Steering', 'collision', 'gear', " in data.summary()
    assert labels_found(output.parts) == (
        "Outputs with labels: 'Steering' (numbers), 'collision' (2 classes), 'gear' (3 classes)."
    )
    assert say_columns(output, data) == [
        "'map' has no labels, and the answers of the original are followed instead.",
        "labels.csv has the column 'fuel', which is not used.",
    ]


def test_names_are_classes_in_their_order_and_one_number_may_be_asked_for(tmp_path: Path) -> None:
    rows = ("video,frame,gear,collision", "a.avi,0,low,1", "a.avi,1,high,0", "b.avi,0,off,0")
    output = read(data_of(tmp_path, *rows), GEAR)
    assert output.truth is not None
    assert output.truth[:, 0].tolist() == [1, 0, 2]  # high, low, off
    output = read(data_of(tmp_path, *rows), COLLISION, as_numbers=True)
    assert output.parts[0].labels == PartLabels()


def test_streams_of_other_videos_have_labels_of_their_own(tmp_path: Path) -> None:
    data = data_of(tmp_path / "one", "video,frame,gear", "a.avi,0,low", "b.avi,0,high")
    streams = data_of(tmp_path / "two", "video,frame,gear,steering", "a.avi,1,off,0.5", "b.avi,1,low,0.25")
    output = read(data, STEERING, GEAR, streams=streams)
    assert output.truth is not None
    np.testing.assert_array_equal(output.truth, [[NAN, 1], [NAN, 0], [0.5, 2], [0.25, 1]])
    assert [video.labels_at(np.arange(2)).tolist() for video in streams.videos] == [[-1, 2], [-1, 3]]
    assert (data.outputs, streams.outputs) == (("gear",), ("Steering", "gear"))


def test_a_manifest_has_labels_of_whole_videos_and_of_segments(tmp_path: Path) -> None:
    for name in ("a.avi", "b.avi"):
        write_video(tmp_path / name, 6, first=6 * (name == "b.avi"))
    rows = [
        "path,label,split,start_frame,end_frame,gear,Steering",
        "a.avi,x,train,0,3,low,0.5",
        "a.avi,x,train,3,6,off,",
        "b.avi,x,validation,,,high,-1",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    data = open_dataset(tmp_path)
    assert data.notes == ("manifest.csv has the columns 'gear', 'steering', which are not used.",)
    output = read(data, GEAR, STEERING)
    assert output.truth is not None
    np.testing.assert_array_equal(output.truth, [[1, 0.5], [2, NAN], [0, -1]])
    assert data.notes == ()
    (batch,) = data.clips("train", size=(16, 16), frames=3)
    assert output.truth[batch.targets, 0].tolist() == [1, 2]
    ((_, pieces),) = data.streams("train", size=(16, 16), whole=True)  # the segments as the one stream that they are
    labels = np.concatenate([labels for _, labels in pieces])
    assert output.truth[labels, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_pictures_with_two_labels_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 3)
    (tmp_path / "manifest.csv").write_text("path,steering,note\na.avi,1,x\na.avi,1,y\n")
    assert read(open_dataset(tmp_path), STEERING).truth is not None
    (tmp_path / "manifest.csv").write_text("path,steering,note\na.avi,1,x\na.avi,2,x\n")
    with pytest.raises(DeltafineError, match=r"have a\.avi twice"):
        read(open_dataset(tmp_path), STEERING)


@pytest.mark.parametrize(
    ("part", "cells", "reason"),
    [
        (MAP, "0,1", r"one label per frame, and the output 'map' gives \(2, 2, 1\)"),
        (GEAR, "0,3", r"has the labels 0, 3, and the output 'gear' gives 3 scores: .* from 0 to 2"),
        (GEAR, "low,high", "has the labels high, low, and the output 'gear' gives 3 scores"),
        (GEAR, "0.5,1.5", "has the labels 0.5, 1.5, and the output 'gear' gives 3 scores"),
        (COLLISION, "yes,no,maybe", "gives 1 score: .* from 0 to 1"),
        (COLLISION, "0.5,nan", "not finite"),
    ],
)
def test_labels_that_an_output_could_not_give_are_refused(
    part: OutputPart, cells: str, reason: str, tmp_path: Path
) -> None:
    rows = [f"a.avi,{frame},{cell}" for frame, cell in enumerate(cells.split(","))]
    with pytest.raises(DeltafineError, match=reason):
        read(data_of(tmp_path, f"video,frame,{part.name}", *rows), part)


def test_answers_tell_whether_a_score_of_0_and_1_is_a_probability() -> None:
    parts = (
        OutputPart("sigmoid", (1,), labels=PartLabels(2, certain=False)),
        OutputPart("linear", (1,), labels=PartLabels(2, certain=False)),
        OutputPart("logit", (1,), labels=PartLabels(2)),
        OutputPart("logits", (3,), labels=PartLabels(3)),
    )
    answers = np.array([[0.2, -0.1, -2.0, 1.0, 2.0, 3.0], [0.9, 1.1, 3.0, 0.0, 0.0, 5.0]])
    output = Output("numbers", parts=parts, truth=np.zeros((1, 4))).read_parts(answers)
    assert [part.labels for part in output.parts] == [
        PartLabels(2, certain=False),
        PartLabels(),
        PartLabels(2, probabilities=False),
        PartLabels(3, probabilities=False),
    ]
    assert output.read_parts(answers).parts == output.parts
    scores = output.scores(answers)
    np.testing.assert_array_equal(scores[:, :2], answers[:, :2])
    np.testing.assert_allclose(scores[:, 2], 1 / (1 + np.exp(-answers[:, 2])))
    np.testing.assert_allclose(scores[:, 3:].sum(-1), 1)
    assert scores[0, 4] / scores[0, 3] == pytest.approx(math.e)


LABELLED = (
    OutputPart("steering", (1,), labels=PartLabels()),
    OutputPart("gear", (3,), 2.0, labels=PartLabels(3)),
    OutputPart("map", (2, 2, 1)),
)
TRUTH = np.array([[0.5, 2, NAN], [-1.5, 0, NAN], [2.5, NAN, NAN], [0.5, 2, NAN]])


def answers(seed: int, frames: int = 4) -> np.ndarray:
    generator = np.random.default_rng(seed)
    gear = generator.dirichlet(np.ones(3), frames)
    return np.concatenate([generator.normal(size=(frames, 1)), gear, generator.normal(size=(frames, 4))], -1)


def errors_by_hand(predictions: np.ndarray) -> tuple[float, float]:
    """Of the steering in units of its spread, and of the gears in units of that of all of them together."""
    steering, gear = TRUTH[:, 0], np.eye(3)[[2, 0, 2]]
    of_gear = ((predictions[[0, 1, 3], 1:4] - gear) ** 2).sum(-1).mean() / gear.var(0).sum()
    return float(np.sqrt(((predictions[:, 0] - steering) ** 2).mean()) / steering.std()), float(np.sqrt(of_gear))


def test_each_output_with_labels_has_an_error_and_of_classes_an_accuracy() -> None:
    output = Output("numbers", parts=LABELLED, truth=TRUTH)
    ours, original = answers(1), answers(2)
    metrics = [OriginalError(), LabelError(), ByOutput()]
    shared = [OriginalError(), LabelError(), ByOutput()]
    for metric, other in zip(metrics, shared, strict=True):
        for one in (metric, other):
            one.begin(Subject(None, output))  # type: ignore[arg-type]
        for piece, counting in ((slice(0, 3), metric), (slice(3, 4), other)):
            labels, video = np.arange(4)[None, piece], np.array([0])
            shown = Answered(ours[None, piece], labels, video, original=original[None, piece])
            counting.update(Shown(None, shown))  # type: ignore[arg-type]
        metric.add(other.record())

    class Beside:
        def metric(self, kind: type) -> object:
            return next(metric for metric in metrics if isinstance(metric, kind))

    found = metrics[2].result(Beside()).figures["outputs"]  # type: ignore[arg-type]
    steering, gear, of_map = found  # type: ignore[misc]
    assert isinstance(gear, OutputFigures)
    expected = errors_by_hand(ours)
    assert (steering.label_error, gear.label_error) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert of_map.label_error is None
    assert gear.accuracy == np.mean(ours[[0, 1, 3], 1:4].argmax(-1) == [2, 0, 2])
    assert steering.accuracy is None
    whole = metrics[1].result(Beside()).figures["label_error"]  # type: ignore[arg-type]
    assert whole == pytest.approx(np.sqrt((expected[0] ** 2 + 2 * expected[1] ** 2) / 3))


def test_a_class_that_is_rare_is_no_scale_of_its_own() -> None:
    parts = (OutputPart("gear", (3,), labels=PartLabels(3)),)
    error = RelativeError(parts, to_labels=True)
    targets = np.eye(3)[[0, 1] * 50]  # the third never comes
    error.update(np.tile([0.5, 0.49, 0.01], (100, 1)), targets)
    assert error.result() == pytest.approx(1, abs=0.01)  # as good as a constant


def test_simple_ways_to_save_are_judged_by_the_same_labels() -> None:
    output = Output("numbers", parts=LABELLED, truth=TRUTH)
    ours = answers(1)
    judge = Judge(output, labelled=True, ways=2)
    for piece in (slice(0, 3), slice(3, 4)):
        answered = Answered(ours[None, piece], np.arange(4)[None, piece], np.array([0]))
        truth = judge.truth(answered)
        assert truth is not None
        judge.expect(truth, 0)
        scores = judge.scores(judge.answers(ours[piece]), truth).sum(0)
        judge.add_scores(np.stack([scores, 0 * scores]), 0)
    expected = errors_by_hand(ours)
    found = judge.results()
    assert found == [pytest.approx(np.sqrt((expected[0] ** 2 + 2 * expected[1] ** 2) / 3)), 0]


@pytest.mark.parametrize("distill", [0.0, 0.25, 1.0])
def test_training_follows_labels_where_there_are_some_and_the_original_elsewhere(distill: float) -> None:
    original, ours = answers(2, 8), answers(1, 8)
    loss = RegressionLoss(original, distill, parts=LABELLED, truth=TRUTH)
    labels = np.array([[0, 1, -1, 2], [3, -1, -1, 1]])
    found = float(loss(ours.reshape(2, 4, 8), original.reshape(2, 4, 8), labels))
    squares = ((ours - original) / original.std(0)) ** 2 / 2
    squares[:, 4:] = (ours[:, 4:] - original[:, 4:]) ** 2 / original[:, 4:].var() / 2
    to_original = np.stack([squares[:, 0], squares[:, 1:4].mean(-1), squares[:, 4:].mean(-1)], -1)
    expected = 0.0
    for frame, label in enumerate(labels.ravel()):
        truth = TRUTH[label] if label >= 0 else np.full(3, NAN)
        steering, gear, of_map = to_original[frame]
        if not np.isnan(truth[0]):
            to_label = ((ours[frame, 0] - truth[0]) / original[:, 0].std()) ** 2 / 2
            steering = distill * steering + (1 - distill) * to_label
        if not np.isnan(truth[1]):
            gear = distill * gear - (1 - distill) * np.log(ours[frame, 1 + int(truth[1])])
        expected += (steering + 2 * gear + of_map) / 4 / 8
    assert found == pytest.approx(expected, rel=1e-4)


def test_without_the_original_only_labels_count() -> None:
    parts = (OutputPart("steering", (1,), labels=PartLabels()), OutputPart("other", (1,), labels=PartLabels()))
    truth = np.array([[1.0, NAN], [NAN, NAN]])
    loss = RegressionLoss(np.array([[0.0, 0.0], [2.0, 2.0]]), 0.0, parts=parts, truth=truth)
    predictions = np.array([[[4.0, 9.0], [9.0, 9.0], [9.0, 9.0]]])
    assert float(loss(predictions, None, np.array([[0, 1, -1]]))) == pytest.approx(0.5 * 9 / 2 / 2)
