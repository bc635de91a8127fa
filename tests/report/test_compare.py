"""Two reports against each other."""

from __future__ import annotations

import pytest

from deltafine.document.report import Report
from deltafine.errors import DeltafineError
from deltafine.report.compare import Comparison, compare, obstacles, relative
from tests.report.builders import data_info, make_report


def cheaper(factor: float = 0.5, **changes: object) -> Report:
    """A report whose refined model needs `factor` of the usual effective MACs in its first layer and in total."""
    report = make_report(**changes)
    figures = report.models["refined"].streams
    layer = figures.layers[0]
    saved = layer.effective_macs_delta * (1 - factor)
    layer.effective_macs_delta *= factor
    layer.mac_density *= factor
    figures.operations.effective_macs_delta -= saved
    figures.operations.mac_density -= saved / figures.operations.dense_macs
    return report


def difference(comparison: Comparison, key: str) -> object:
    return next(one for one in comparison.of("streams") if one.quantity.key == key)


def test_a_report_compared_with_itself_has_no_difference() -> None:
    comparison = compare(make_report(), make_report(), "old")
    assert comparison.differences
    assert {one.change for one in comparison.differences} == {0}
    assert {one.verdict for one in comparison.differences} == {"same", ""}
    assert {layer.shown_change for layer in comparison.layers} == {"0.0%"}


def test_fewer_macs_are_better_and_more_are_worse() -> None:
    key = "operations.mac_density"
    assert difference(compare(cheaper(), make_report(), "old"), key).verdict == "better"  # type: ignore[attr-defined]
    assert difference(compare(make_report(), cheaper(), "old"), key).verdict == "worse"  # type: ignore[attr-defined]


def test_layers_are_compared_by_name_and_the_changed_one_stands_out() -> None:
    layers = compare(cheaper(0.5), make_report(), "old").layers
    assert [layer.shown_change for layer in layers] == ["-50.0%", *["0.0%"] * 5]


def test_a_layer_called_twice_is_compared_call_by_call() -> None:
    names = ["shared", "a", "shared", "b", "c", "d"]
    comparison = compare(make_report(layer_names=names), make_report(layer_names=names), "old")
    assert [layer.name for layer in comparison.layers] == names
    assert all(layer.macs_before == layer.macs_after for layer in comparison.layers)


def test_layers_of_one_side_only_are_shown_without_a_change() -> None:
    comparison = compare(make_report(layer_names=list("abcdef")), make_report(layer_names=list("abcdeg")), "old")
    assert {layer.name: layer.shown_change for layer in comparison.layers}["f"] == "-"
    assert {layer.name: layer.shown_change for layer in comparison.layers}["g"] == "-"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"definitions": 0}, "defined differently"),
        ({"data": data_info(fingerprint="sha256:0")}, "different videos"),
        ({"stream_data": data_info(fingerprint="sha256:1")}, "streams come from different videos"),
    ],
)
def test_reports_of_other_data_or_definitions_are_refused_unless_forced(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(DeltafineError, match=reason) as error:
        compare(make_report(), make_report(**changes), "old")
    assert "--force" in str(error.value)
    forced = compare(make_report(), make_report(**changes), "old", force=True)
    assert reason in forced.obstacles[0]


def test_clips_of_other_videos_are_refused_even_when_the_streams_agree() -> None:
    streams = data_info(path="streams", fingerprint="sha256:7")
    old = make_report(stream_data=streams, data=data_info(fingerprint="sha256:0"))
    assert "clips come from different videos" in obstacles(make_report(stream_data=streams), old)[0]


def test_reports_of_more_or_fewer_frames_are_refused() -> None:
    old = make_report()
    old.models["refined"].streams.frames = 100
    assert "numbers of frames" in obstacles(make_report(), old)[0]


def test_a_measurement_of_another_model_is_compared_by_its_subject() -> None:
    comparison = compare(make_report(), make_report(models=("original",)), "old")
    assert (comparison.model_before, comparison.model_after) == ("original", "refined")


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [(2, 1, "-50.0%"), (1, 2, "+100.0%"), (0, 0, "0.0%"), (0, 1, "from 0"), (None, 1, "-"), (1, None, "-")],
)
def test_relative_changes_never_divide_by_zero(before: float | None, after: float | None, shown: str) -> None:
    assert relative(before, after) == shown


def test_the_same_frames_in_other_streams_are_not_compared() -> None:
    before, now = make_report(), make_report()
    for one in now.models.values():
        one.streams.videos += 1
    with pytest.raises(DeltafineError, match="the same frames were measured as"):
        compare(now, before, "earlier")
