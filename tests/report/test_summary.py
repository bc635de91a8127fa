"""The headline and what a reader is warned of."""

from __future__ import annotations

import pytest

from deltafine.document.report import (
    MODEL_NAMES,
    Activity,
    Estimate,
    Figures,
    FrontPoint,
    Operations,
    Report,
    ScoreInfo,
)
from deltafine.report.quantities import QUANTITIES, columns, subject
from deltafine.report.summary import cautions, headline, layers_by_name, listed, rows, saving
from tests.report.builders import data_info, estimate, make_report


def streams(report: Report, model: str = "refined") -> Figures:
    return report.models[model].streams


def test_every_total_of_the_document_is_among_the_quantities() -> None:
    shown = {quantity.key for quantity in QUANTITIES}
    assert {f"operations.{name}" for name in Operations.model_fields} <= shown
    lists = {"operations", "layers", "deltas", "by_video", "by_class", "confused", "named", "outputs"}
    lists |= {"worst_answers", "timelines"}
    assert set(Figures.model_fields) - lists <= shown
    assert len(shown) == len(QUANTITIES)


@pytest.mark.parametrize(
    ("density", "words"),
    [
        (0.12, "8.3x fewer MACs"),
        (1.0, "no fewer MACs"),
        (0.0, "no MACs after the first frame"),
        (0.999, "1.0x fewer MACs"),
    ],
)
def test_a_density_is_said_as_a_saving(density: float, words: str) -> None:
    assert saving(density) == words


def test_the_subject_is_the_last_model_of_the_way() -> None:
    for count in (1, 2, 3):
        assert subject(make_report(models=MODEL_NAMES[:count])) == MODEL_NAMES[count - 1]
    assert columns(make_report(models=("refined", "original"))) == ("original", "refined")


def test_without_labels_the_headline_speaks_of_fidelity() -> None:
    report = make_report()
    figures = streams(report)
    figures.frame_accuracy = figures.clip_accuracy = figures.accuracy_change = figures.frozen_accuracy = None
    assert headline(report).sentence == "9.1x fewer MACs, 91.3% of frames predicted as by the original"
    assert headline(report).control == ""


def test_where_the_original_is_what_is_left_the_first_line_says_so_and_why() -> None:
    left = FrontPoint(epoch=0, penalty=0, accuracy=1, mac_density=0.6, pixel_density=1, divergence=0, chosen=True)
    moving = Activity(moved=0.72, noisy=0.2, answers=0.05, numbers=False)
    said = headline(make_report(front=[left], activity=moving))
    assert said.sentence == (
        "Nothing within the budget saves anything: most of the picture moves, as with a moving camera (from one frame "
        "to the next, 72% of the pixels change by more than 2% of their range, 20% by less, and the original's class "
        "changes in 5% of the frames)"
    )
    assert said.doubtful
    assert not said.told
    assert headline(make_report(front=[left.model_copy(update={"divergence": 0.01})])).told


def without_accuracy(**figures: float | Estimate) -> Report:
    """A report in which all streams have these figures, and nothing else that is said of predictions."""
    report = make_report(data=data_info(problems=[]))
    nothing = dict.fromkeys(
        ("frame_accuracy", "clip_accuracy", "window_accuracy", "accuracy_change", "frozen_accuracy", "fidelity")
    )
    for measurement in report.models.values():
        measurement.streams = measurement.streams.model_copy(update={**nothing, **figures})
    return report


def test_an_original_alone_is_not_said_to_be_like_itself() -> None:
    report = make_report(models=("original",))
    report.models["original"].streams.fidelity = 1.0
    assert headline(report).fidelity == ""


def test_numbers_are_judged_by_their_error_and_its_control() -> None:
    report = without_accuracy(relative_error=0.0, frozen_error=1.2)
    streams(report).relative_error = 0.1
    assert headline(report).sentence == "9.1x fewer MACs, error 10.0% of the spread of the original's predictions"
    assert headline(report).control == "an error of 120.0% for a network that never updates"
    assert not headline(report).doubtful
    streams(report).relative_error = 0.9
    (found,) = [caution for caution in cautions(report) if "nearer" in caution]
    assert "refined model's error on streams (90.0%)" in found
    assert headline(report).doubtful


def test_without_labels_the_control_is_that_of_fidelity() -> None:
    report = without_accuracy(fidelity=0.9, frozen_fidelity=0.7)
    assert cautions(report) == []
    streams(report).fidelity = 0.75
    assert any("refined model's fidelity on streams (75.0%) is nearer" in caution for caution in cautions(report))
    (found,) = cautions(without_accuracy(fidelity=1.0, frozen_fidelity=0.99))
    assert "predicts on 99.0% of the frames what it predicts on the first" in found


def test_what_is_counted_by_the_clip_is_said_so_and_judged_by_its_windows() -> None:
    report = without_accuracy(window_accuracy=estimate(0.7), frozen_accuracy=estimate(0.4))
    report.model.window = 16
    assert "takes clips of 16 frames" in cautions(report)[0]
    assert headline(report).accuracy.startswith("accuracy 70.0%")


def test_a_good_report_has_no_cautions() -> None:
    assert cautions(make_report(data=data_info(problems=[]))) == []


def test_accuracy_nearer_to_the_control_than_to_the_original_is_said_in_words() -> None:
    report = make_report()
    streams(report).frame_accuracy = estimate(0.5)
    (found,) = [caution for caution in cautions(report) if "nearer" in caution]
    assert "refined model's accuracy on streams (50.0%)" in found
    assert headline(report).doubtful
    streams(report).frame_accuracy = estimate(0.6)
    assert not [caution for caution in cautions(report) if "nearer" in caution]
    assert not headline(report).doubtful


def test_videos_that_a_frozen_network_solves_are_called_out() -> None:
    report = make_report()
    streams(report, "original").frozen_accuracy = estimate(0.75)
    assert any("cannot show" in caution for caution in cautions(report))


def test_training_that_did_not_pay_is_said() -> None:
    report = make_report()
    report.models["refined"] = report.models["calibrated"].model_copy(deep=True)
    assert any("did not pay" in caution for caution in cautions(report))
    streams(report).frame_accuracy = estimate(0.72)
    assert not any("did not pay" in caution for caution in cautions(report))


def test_uncovered_layers_silent_layers_and_few_videos_are_named() -> None:
    report = make_report()
    report.model.coverage = 0.8
    report.model.uncovered[0].dense_macs = None
    streams(report).deltas[2].silent_channels = 1.0
    streams(report).videos = 3
    found = " ".join(cautions(report))
    assert "20.0% of the model's MACs are in layers that are not measured: gate." in found
    assert "Nobody knows the MACs of gate: no figure here has anything of them." in found
    assert "never fired after the first frame: block1_pointwise_delta." in found
    assert "Only 3 videos" in found


def test_layers_that_count_as_a_whole_are_named() -> None:
    report = make_report()
    report.model.counted_whole = ["cells"]
    assert "All MACs of cells count wherever their input changes: fewer may be needed." in cautions(report)


def test_the_runs_own_warnings_come_first_and_nothing_twice() -> None:
    found = cautions(make_report(warnings=["first", "first"]))
    assert found[0] == "first"
    assert len(found) == len(set(found))


def test_figures_that_no_model_has_make_no_row() -> None:
    labels = [row.quantity.label for row in rows(make_report(), "clips")]
    assert "Frozen control" not in labels
    assert "Window accuracy" in labels


def test_a_layer_that_only_one_model_has_stands_in_its_column_alone() -> None:
    report = make_report()
    streams(report).layers.append(streams(report).layers[0].model_copy(update={"name": "extra"}))
    assert list(dict(layers_by_name(report, "streams"))["extra"]) == ["refined"]


def test_long_lists_are_cut_with_a_count() -> None:
    assert listed("abcdef") == "a, b, c, d and 2 more"
    assert listed("ab") == "a, b"


def test_an_interval_stands_beside_every_estimate() -> None:
    row = next(row for row in rows(make_report(), "streams") if row.quantity.key == "accuracy_change")
    assert row.intervals == ("-", "[-5.2, -3.5]", "[-1.2, +0.5]")
    assert isinstance(row.quantity.read(streams(make_report())), Estimate)


def test_a_score_takes_the_place_of_accuracy_in_the_headline_and_in_what_is_warned_of() -> None:
    report = make_report(data=data_info(problems=[]), score=ScoreInfo(name="my:f1", against="original", sha256=""))
    for model in MODEL_NAMES:
        streams(report, model).score, streams(report, model).frozen_score = estimate(0.9), estimate(0.2, 0.01)
    streams(report).score, streams(report).score_change = estimate(0.873), estimate(-0.027, 0.01)
    found = headline(report)
    assert found.sentence == "9.1x fewer MACs, score 0.873 by my:f1, -0.027 [-0.037, -0.017] against the original"
    assert found.control == "a score of 0.200 for a network that never updates"
    assert cautions(report) == cautions(make_report(data=data_info(problems=[])))
    assert headline(report.model_copy(update={"models": {"original": report.models["original"]}})).accuracy == (
        "score 0.900 [0.877, 0.923] by my:f1"
    )
    for model in MODEL_NAMES:
        streams(report, model).frozen_score = estimate(0.9, 0.01)
    assert headline(report).saving == "These videos cannot tell what is saved"
    assert "the original model has a score of 0.900, hardly more" in " ".join(cautions(report)).lower()


def test_the_headline_of_numbers_has_the_error_of_the_original_too() -> None:
    report = make_report()
    for model, error in zip(MODEL_NAMES, (0.659, 0.67, 0.684), strict=True):
        figures = streams(report, model)
        figures.frame_accuracy = figures.clip_accuracy = figures.accuracy_change = None
        figures.frozen_accuracy = figures.gain_over_frozen = None
        figures.label_error, figures.frozen_error = error, 1.14
    assert headline(report).accuracy == "error 68.4% of the labels' spread, 65.9% for the original"
    alone = report.model_copy(update={"models": {"original": report.models["original"]}})
    assert headline(alone).accuracy == "error 65.9% of the labels' spread"
