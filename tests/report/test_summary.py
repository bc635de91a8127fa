"""The headline and what a reader is warned of."""

from __future__ import annotations

import pytest

from deltafine.report.document import MODEL_NAMES, Estimate, Figures, Operations, Report
from deltafine.report.quantities import QUANTITIES, columns, subject
from deltafine.report.summary import cautions, headline, layers_by_name, listed, rows, saving
from tests.report.builders import data_info, estimate, make_report


def streams(report: Report, model: str = "refined") -> Figures:
    return report.models[model].streams


def test_every_total_of_the_document_is_among_the_quantities() -> None:
    shown = {quantity.key for quantity in QUANTITIES}
    assert {f"operations.{name}" for name in Operations.model_fields} <= shown
    assert set(Figures.model_fields) - {"operations", "layers", "deltas"} <= shown
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
    streams(report).deltas[2].silent_channels = 1.0
    streams(report).videos = 3
    found = " ".join(cautions(report))
    assert "20.0% of the model's MACs are in layers that are not measured: gate." in found
    assert "never fired after the first frame: block1_pointwise_delta." in found
    assert "Only 3 videos" in found


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
