"""The report as one long table."""

from __future__ import annotations

import csv as standard_csv
import io

from deltafine.report import render
from deltafine.report.compare import compare
from tests.report.builders import LAYERS, make_report


def read(text: str) -> list[dict[str, str]]:
    return list(standard_csv.DictReader(io.StringIO(text)))


def test_every_figure_of_every_model_has_a_line_with_its_exact_value() -> None:
    report = make_report()
    lines = read(render(report, "csv"))
    for model, measurement in report.models.items():
        for feeding, figures in (("streams", measurement.streams), ("clips", measurement.clips)):
            for name, value in figures.operations:
                (line,) = [
                    one
                    for one in lines
                    if (one["model"], one["feeding"], one["scope"], one["figure"]) == (model, feeding, "model", name)
                ]
                assert float(line["value"]) == value


def test_estimates_carry_their_interval() -> None:
    (line,) = [
        one
        for one in read(render(make_report(), "csv"))
        if (one["model"], one["feeding"], one["figure"]) == ("refined", "streams", "accuracy_change")
    ]
    assert [round(float(line[end]), 6) for end in ("low", "value", "high")] == [-0.012, -0.004, 0.005]


def test_layers_of_one_name_are_told_apart_by_position() -> None:
    lines = read(render(make_report(layer_names=["same"] * 6), "csv"))
    positions = [
        one["position"]
        for one in lines
        if (one["model"], one["feeding"], one["scope"], one["figure"]) == ("refined", "streams", "layer", "mac_density")
    ]
    assert positions == [str(index) for index in range(len(LAYERS))]


def test_names_with_commas_and_quotes_come_back_whole_and_those_with_line_breaks_on_one_line() -> None:
    names = ["a,b", 'say "x"', "two\nlines", "=1+1", "é", ""]
    shown = {name.replace("\n", "\\n") for name in names}
    assert {one["name"] for one in read(render(make_report(layer_names=names), "csv"))} >= shown


def test_a_comparison_gives_both_sides_and_the_change() -> None:
    old, new = make_report(), make_report()
    new.models["refined"].streams.operations.mac_density = 0.05
    lines = read(render(new, "csv", comparisons=[compare(new, old, "old")]))
    (line,) = [
        one for one in lines if (one["feeding"], one["scope"], one["figure"]) == ("streams", "model", "mac_density")
    ]
    assert float(line["before"]) + float(line["change"]) == float(line["after"]) == 0.05
