"""The headline's comparison with the original held, in the same time."""

from __future__ import annotations

from typing import Any

import pytest

from deltafine.document.report import Report
from deltafine.report import render
from deltafine.report.equal_time import IN_FLOAT32, equal_time
from deltafine.report.gate import Gate, check
from deltafine.report.summary import headline
from tests.report.builders import ACCURACY, controls, make_report, timing


def timed(fastest: float, **changes: Any) -> Report:
    """A report in which deltafine takes 2 ms and the fastest dense runtime so many."""
    taken = timing(**{key: value for key, value in changes.items() if key == "threads"})
    taken.runtimes[2].p50 = fastest
    return make_report(controls=controls(), timings=[taken.model_copy(update=changes)])


def test_a_runtime_that_takes_four_times_as_long_may_run_on_every_fourth_frame() -> None:
    found = equal_time(timed(8.0))
    assert found
    assert found.compared.held == pytest.approx(ACCURACY["original"] - 0.04)
    assert found.sentence == (
        "In the same time (2.00 ms per frame), ONNX Runtime 1.32.0 runs the original held for 4 frames: 71.5% "
        "(3.6 points less)"
    )


def test_beside_int8_the_delta_runtime_in_float32_is_compared_and_is_no_dense_one() -> None:
    """The answers of the model were measured in float32, and it does not run the original held."""
    report = timed(8.0)
    (taken,) = report.timings
    ours = taken.runtimes[0]
    both = [ours.model_copy(update={"p50": 1.0}), ours.model_copy(update={"name": IN_FLOAT32}), *taken.runtimes[1:]]
    in_int8 = taken.model_copy(update={"precision": "int8", "runtimes": both})
    plain, found = equal_time(report), equal_time(report.model_copy(update={"timings": [in_int8]}))
    assert plain
    assert found == plain


def test_a_runtime_that_is_faster_than_the_delta_runtime_is_compared_on_every_frame() -> None:
    found = equal_time(timed(1.0))
    assert found
    assert found.sentence == (
        "In 50.0% of the time of deltafine (2.00 ms per frame), ONNX Runtime 1.32.0 runs the original itself: 75.5% "
        "(0.4 points more)"
    )


def test_a_runtime_slower_than_the_largest_k_takes_more_time() -> None:
    found = equal_time(timed(8.39))  # TensorFlow's 8.4 is not the fastest
    assert found
    report = timed(128.0)
    report.timings[0].runtimes[1].p50 = 200.0
    slower = equal_time(report)
    assert slower
    assert slower.sentence.startswith("In 2.0x the time of deltafine (2.00 ms per frame), ONNX Runtime 1.32.0 runs the")


def test_times_of_every_kth_frame_and_reports_without_times_or_held_answers_give_no_line() -> None:
    assert equal_time(timed(8.0, every=4)) is None
    assert equal_time(make_report(controls=controls())) is None
    assert equal_time(make_report(timings=[timing()])) is None
    assert equal_time(make_report(models=("original",), controls=controls(), timings=[timing()])) is None


def test_of_several_timings_the_one_with_the_fewest_threads_counts() -> None:
    many = timed(2.5, threads=8).timings
    report = make_report(controls=controls(), timings=[*many, *timed(8.0).timings, *many])
    found = equal_time(report)
    assert found
    assert found.compared.frames == pytest.approx(4)


@pytest.mark.parametrize("form", ["table", "html", "markdown"])
def test_the_line_is_in_every_format_for_people(form: str) -> None:
    shown = " ".join(str(render(timed(8.0), form)).split())
    assert "runs the original held for 4 frames" in shown
    assert headline(timed(8.0)).in_time


def test_the_gate_on_the_gain_over_holding_must_be_met_in_equal_time_too() -> None:
    gate = Gate({"min-gain-over-hold": 0.02})
    untimed = check(make_report(controls=controls()), gate)
    assert [one.met for one in untimed] == [True]  # far ahead at equal MACs
    at_equal_macs, in_equal_time = check(timed(8.0), gate)
    assert at_equal_macs == untimed[0]
    assert in_equal_time.met
    assert in_equal_time.value == pytest.approx(0.036)
    assert in_equal_time.subject.endswith("held in equal time, by ONNX Runtime 1.32.0")
    assert [one.met for one in check(timed(1.0), gate)] == [True, False]
