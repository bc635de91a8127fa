"""The report in the terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from deltafine.document.report import Report
from deltafine.report import render, terminal
from deltafine.report.compare import compare
from deltafine.report.gate import Gate, check
from deltafine.report.quantities import FEEDINGS
from deltafine.report.summary import rows
from tests.report.builders import make_report, sensitivity_curve
from tests.report.test_compare import cheaper

HOSTILE = ["[bold]a[/bold]", "<b>b</b>", "c|`d`", "\x1b[31me\x07", "f" * 120, "g\nh"]


def printed(report: Report, width: int = 80, tty: bool = False) -> str:
    stream = io.StringIO()
    terminal.show(
        report, Console(file=stream, width=width, force_terminal=tty, color_system="truecolor" if tty else None)
    )
    return stream.getvalue()


@pytest.mark.parametrize("tty", [False, True])
def test_every_line_fits_80_columns_and_no_figure_is_cut(tty: bool) -> None:
    out = printed(make_report(), tty=tty)
    plain = Console().render_str(out).plain if not tty else out
    if not tty:
        assert max(len(line) for line in plain.splitlines()) <= 80
    assert "…" not in out


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_delta_layer_keeps_its_name_and_its_threshold(width: int) -> None:
    report = make_report()
    lines = [line.replace(" ", "") for line in printed(report, width).splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("deltalayer"))
    assert lines[start].startswith("deltalayerthreshold")
    assert "…" not in "".join(lines[start:])
    table = "".join(lines[start:])
    for delta in report.models["refined"].streams.deltas:
        assert delta.name[:8] in table


@pytest.mark.parametrize("width", [40, 60, 72])
def test_no_figure_is_cut_or_left_out_on_a_narrow_terminal(width: int) -> None:
    report = make_report()
    shown = printed(report, width)
    assert max(map(len, shown.splitlines())) <= width
    for row in (row for feeding in FEEDINGS for row in rows(report, feeding, brief=feeding == "clips")):
        for cell in (*row.cells, *row.intervals):
            assert cell in shown


def test_piped_output_is_plain_ascii() -> None:
    out = printed(make_report())
    assert "\x1b" not in out
    assert out.isascii()


def test_the_headline_says_saving_and_accuracy_with_its_interval() -> None:
    assert "9.1x fewer MACs, accuracy 75.1%, -0.4 points [-1.2, +0.5] against the original" in printed(make_report())


def test_control_and_fidelity_stand_beside_the_headline() -> None:
    head = printed(make_report())[:400]
    assert "39.0% for a network that never updates" in head
    assert "91.3% of frames predicted as by the original" in head


def test_the_three_models_stand_side_by_side() -> None:
    line = next(line for line in printed(make_report()).splitlines() if line.startswith("MAC density"))
    assert line.split()[-3:] == ["62.4%", "19.7%", "11.0%"]


def test_skipped_activations_and_bad_videos_are_listed_with_reasons() -> None:
    out = printed(make_report())
    assert "the model's output" in out
    assert "5 frames, fewer than a clip of 8" in out


@pytest.mark.parametrize("tty", [False, True])
def test_names_cannot_style_or_control_the_terminal(tty: bool) -> None:
    report = make_report(layer_names=HOSTILE, title="[red]t[/red]\x1b]0;x\x07", warnings=["[blink]w\x1b[2J"])
    out = printed(report, tty=tty)
    assert "\x07" not in out
    assert "\x1b[2J" not in out
    assert "\x1b]" not in out
    joined = out.replace("\n", "")
    assert "[red]t[/red]\\x1b]0;x\\x07" in joined
    assert "[blink]w\\x1b[2J" in joined
    assert "[bold]a[/bold]" in joined


def test_a_name_longer_than_the_line_is_folded_not_lost() -> None:
    out = printed(make_report(layer_names=HOSTILE))
    assert out.count("f") >= 2 * 120
    assert max(len(line) for line in out.splitlines()) <= 80


def test_a_report_of_one_model_shows_one_column() -> None:
    out = printed(make_report(models=("original",), history=[], front=[]))
    assert "refined" not in out
    assert "1.6x fewer MACs, accuracy 75.5% [73.2%, 77.8%]" in out


def test_a_comparison_and_a_gate_fit_80_columns_and_are_plain() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    old, new = cheaper(), make_report(layer_names=HOSTILE)
    comparison = compare(new, old, "/a/very/long/path/to/a/baseline/" * 4)
    terminal.show_comparison(comparison, console)
    terminal.show_checks(check(new, Gate({"max-regression": 0.02}), [comparison]), console)
    out = stream.getvalue()
    assert max(len(line) for line in out.splitlines()) <= 80
    assert out.isascii()
    assert "\x1b" not in out
    assert "NOT MET" in out
    assert "worse" in out


def test_the_curve_against_sensitivity_is_two_lines_in_every_form() -> None:
    report = make_report(sensitivity=sensitivity_curve())
    out = printed(report)
    assert max(len(line) for line in out.splitlines()) <= 80
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "All thresholds times a number (refined model, 256 frames of 8 streams)" in lines
    figures = ["accuracy 75.9% 75.5% 75.1% 74.3% 73.5% 71.9%", "MACs 15.6% 12.7% 11.0% 9.0% 7.8% 6.4%"]
    assert [line for line in figures if line in lines] == figures
    for form in ("markdown", "html"):
        words = " ".join(re.sub(r"<[^>]+>|[|\\]", " ", str(render(report, form))).split())
        assert all(line in words for line in figures)
    table = str(render(report, "csv"))
    assert "refined,streams,sensitivity,,5,quality,0.719" in table
    assert "All thresholds" not in printed(make_report())
