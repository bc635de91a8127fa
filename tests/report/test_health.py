"""Step health: figures and warnings."""

from __future__ import annotations

from typing import Any

import pytest

from deltafine.report.health import health_cautions, movement
from tests.report.builders import make_report


def with_delta(**changes: Any) -> Any:
    report = make_report()
    delta = report.models["refined"].streams.deltas[1]
    report.models["refined"].streams.deltas[1] = delta.model_copy(update=changes)
    return report


def test_healthy_layers_are_not_mentioned() -> None:
    assert health_cautions(make_report()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"silent_channels": 1.0}, "never fired after the first frame: block1_depthwise_delta"),
        ({"silent_channels": 0.6}, "half of the channels never fired in block1_depthwise_delta"),
        ({"saturated_channels": 0.5}, "fired everywhere in every frame in block1_depthwise_delta"),
        (
            {"thresholds_at_floor": 0.1},
            "Thresholds at their floor, so that every change is sent: block1_depthwise_delta",
        ),
        ({"threshold_median": 2.3}, "more than 10 times away from where it started: block1_depthwise_delta"),
        ({"threshold_median": 0.02}, "more than 10 times away from where it started: block1_depthwise_delta"),
    ],
)
def test_an_ill_layer_is_named_in_words(changes: dict[str, float], words: str) -> None:
    (caution,) = health_cautions(with_delta(**changes))
    assert words in caution


def test_a_layer_that_changes_beyond_its_break_even_density_is_named() -> None:
    report = make_report()
    layer = report.models["refined"].streams.layers[3]
    layer.break_even_density = layer.delta_density / 2
    (caution,) = health_cautions(report)
    assert "In 1 layer with 45.3% of the MACs more changes than the break-even density" in caution
    assert caution.endswith("block2_conv.")


def test_movement_is_the_median_step_against_the_one_that_training_started_from() -> None:
    report = with_delta(threshold_median=0.44)
    for delta in report.models["calibrated"].streams.deltas:
        delta.threshold_median = 7.0  # calibration alone may spend something else
    moved = movement(report)
    assert moved["block1_depthwise_delta"] == pytest.approx(2)
    assert moved["stem_delta"] == 1
    assert movement(make_report(models=("original", "calibrated"))) == {}
    assert movement(make_report(start_thresholds={})) == {}


def test_reports_of_older_versions_have_no_such_figures_and_no_such_warnings() -> None:
    report = make_report()
    for entries in (report.models["refined"].streams.deltas, report.models["refined"].streams.layers):
        for entry in entries:
            for field in ("thresholds_at_floor", "break_even_density"):
                if field in type(entry).model_fields:
                    setattr(entry, field, None)
    assert health_cautions(report) == []
