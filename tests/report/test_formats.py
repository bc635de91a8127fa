"""The contract of a report format, and figures of metrics that deltafine does not know."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from deltafine.document.figures import Estimate, NamedFigure
from deltafine.document.report import Report
from deltafine.errors import DeltafineError
from deltafine.report import load_report, render
from deltafine.report.compare import compare
from deltafine.report.formats import FORMATS, ReportFormat
from deltafine.report.formats.table import TerminalTable
from deltafine.report.gate import Gate, check
from tests.report.builders import make_report

MEANING = "frames whose answer differs from that of the frame before"


def with_named(value: float) -> Report:
    report = make_report()
    for measurement in report.models.values():
        for figures in (measurement.streams, measurement.clips):
            figures.named = [
                NamedFigure(name="answer_jumps", value=value, unit="share", meaning=MEANING, better="lower"),
                NamedFigure(
                    name="grip",
                    value=Estimate(value=2.5, low=2, high=3),
                    unit="number",
                    meaning="how firmly it holds\x1b[31m",
                ),
            ]
    return report


class Shout(ReportFormat):
    name = "shout"
    suffix = ".txt"

    def render(self, document, comparisons=(), checks=(), pictures=None):
        return document.title.upper().encode()


def test_a_format_of_ones_own_is_taken_as_an_instance_or_by_its_name():
    report = make_report()
    assert render(report, Shout()) == report.title.upper().encode()
    with pytest.raises(DeltafineError, match=r"no report format 'shout': choose .*\."):
        render(report, "shout")
    with pytest.raises(DeltafineError, match="choose markdown"):
        render(report, "markdwn")
    FORMATS.register(Shout())
    try:
        assert render(report, "shout") == render(report, Shout())
        with pytest.raises(ValueError, match="already"):
            FORMATS.register(Shout())
    finally:
        FORMATS.remove("shout")


@pytest.mark.parametrize("name", FORMATS.names)
def test_every_format_has_its_name_and_shows_the_same_by_one_signature(name):
    format = FORMATS.get(name)
    assert format.name == name
    assert type(format).__module__ == f"deltafine.report.formats.{name}"
    assert format.suffix is None or re.fullmatch(r"\.[a-z]+", format.suffix)
    report, baseline = make_report(title="after"), make_report(title="before")
    compared = [compare(report, baseline, "before")]
    checks = check(report, Gate({"min-sparsity": 0.5}))
    shown = format.render(report, compared, checks, {})
    assert shown == render(report, name, comparisons=compared, checks=checks)
    if name != "junit":
        assert format.render(report) != shown


def test_a_gate_format_without_a_gate_says_so():
    with pytest.raises(DeltafineError, match="--format junit shows a gate"):
        render(make_report(), "junit")


def test_figures_of_other_metrics_are_in_every_format():
    report = with_named(0.125)
    page = render(report, "html")
    assert "Other metrics" in page
    assert MEANING in page
    for shown in (render(report, TerminalTable(Console(width=100))), render(report, "markdown"), page):
        assert "\x1b[31m" not in shown
        assert "Answer jumps" in shown
        assert "12.5%" in shown
        assert "Grip" in shown
        assert "2.50" in shown
    lines = [line for line in csv.DictReader(io.StringIO(render(report, "csv"))) if line["figure"] == "answer_jumps"]
    assert {line["value"] for line in lines} == {"0.125"}
    assert len(lines) == 2 * len(report.models)
    named = json.loads(render(report, "json"))["models"]["refined"]["streams"]["named"]
    assert named[0] == {
        "name": "answer_jumps",
        "value": 0.125,
        "unit": "share",
        "meaning": MEANING,
        "better": "lower",
    }
    assert Report.model_validate_json(render(report, "json")) == report


def test_figures_of_other_metrics_are_compared_and_one_side_may_lack_them():
    found = compare(with_named(0.1), with_named(0.2), "before")
    (jumps,) = [one for one in found.of("streams") if one.quantity.key == "named.answer_jumps"]
    assert (jumps.before, jumps.after, jumps.verdict) == (0.2, 0.1, "better")
    (jumps,) = [
        one
        for one in compare(with_named(0.1), make_report(), "before").of("streams")
        if one.quantity.key == "named.answer_jumps"
    ]
    assert (jumps.before, jumps.after, jumps.verdict) == (None, 0.1, "")


def test_a_report_without_such_figures_opens_as_before(tmp_path):
    document = json.loads(render(make_report(), "json"))
    for measurement in document["models"].values():
        for figures in measurement.values():
            assert figures.pop("named") == []
    (tmp_path / "report.json").write_text(json.dumps(document))
    assert load_report(tmp_path) == make_report()


def test_to_name_the_formats_loads_nothing_and_to_show_a_report_loads_no_keras(tmp_path):
    (tmp_path / "report.json").write_text(render(make_report(), "json"))
    code = (
        "import sys\n"
        "from deltafine.report.formats import FORMATS\n"
        "print(sorted({'pydantic', 'jinja2', 'rich'} & sys.modules.keys()), len(FORMATS.names))\n"
        "from deltafine.report import load_report, render\n"
        f"report = load_report({str(tmp_path)!r})\n"
        "for name in FORMATS.names[:-1]: render(report, name)\n"
        "import pkgutil, importlib, deltafine.report\n"
        "for one in pkgutil.walk_packages(deltafine.report.__path__, 'deltafine.report.'):\n"
        "    importlib.import_module(one.name)\n"
        "print(sorted({'tensorflow', 'keras'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == [f"[] {len(FORMATS.names)}", "[]"], done.stderr
