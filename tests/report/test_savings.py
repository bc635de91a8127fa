"""What is saved against more than a dense inference, in the headline of every format."""

from __future__ import annotations

import pytest
from rich.console import Console

from deltafine.document.report import Report
from deltafine.report import render
from deltafine.report.savings import savings
from deltafine.report.summary import headline
from deltafine.report.terminal import show
from tests.report.builders import estimate, make_report


def report_of(*models: str) -> Report:
    report = make_report(models=models)
    report.models[models[-1]].streams.operations = report.models[models[-1]].streams.operations.model_copy(
        update={
            "dense_macs": 1000,
            "effective_macs_delta": 50.0,
            "mac_density": 0.05,
            "density_with_overhead": 0.08,
            "energy_dense": 36e-9,
            "energy_delta": 10e-9,
        }
    )
    original = report.models[models[0]].streams
    original.operations = original.operations.model_copy(update={"effective_macs_spatial": 450.0})
    if len(models) > 1:
        original.operations = original.operations.model_copy(update={"effective_macs_delta": 550.0})
    return report


def test_a_saving_is_told_against_zero_skipping_lossless_deltas_overhead_and_in_energy_too() -> None:
    report = report_of("original", "refined")
    assert [one.value for one in savings(report)] == pytest.approx([20, 9, 11, 12.5, 3.6])
    said = (
        "20.0x against dense, 9.0x against the original that skips zeros, 11.0x against the original with lossless "
        "deltas, 12.5x with overhead, 3.6x in energy (estimated)"
    )
    assert headline(report).factors == said
    console = Console(width=300, record=True)
    show(report, console)
    assert f"{said}." in console.export_text()
    assert "11.0x against the original with lossless deltas" in render(report, "markdown").split("##")[0]
    page = render(report, "html").split("<main>")[0]
    for one in ("9.0x against the original that skips zeros", "3.6x in energy (estimated)"):
        assert one in page


def test_a_model_that_was_measured_alone_has_the_factors_that_need_no_original() -> None:
    assert [one.name for one in savings(report_of("refined"))] == [
        "against dense",
        "with overhead",
        "in energy (estimated)",
    ]


def test_a_figure_that_an_old_report_lacks_or_that_is_0_gives_no_factor() -> None:
    report = report_of("original", "refined")
    operations = report.models["refined"].streams.operations
    operations.density_with_overhead = operations.energy_dense = None
    operations.effective_macs_delta = 0.0
    assert savings(report) == []
    assert headline(report).factors == ""


def test_no_factor_is_named_where_no_saving_can_be_told() -> None:
    report = report_of("original", "refined")
    report.models["refined"].streams.frozen_accuracy = estimate(0.751)
    assert not headline(report).told
    for text in (render(report, "html"), render(report, "markdown")):
        assert "lossless deltas" not in text
