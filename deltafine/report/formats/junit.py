"""The gate as JUnit XML, which every CI service can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from deltafine.document.report import Report
from deltafine.errors import DeltafineError
from deltafine.report.compare import Comparison
from deltafine.report.formats.report_format import ReportFormat
from deltafine.report.gate import Check
from deltafine.report.text import clean


class JUnit(ReportFormat):
    """One test suite, one test case per limit."""

    name = "junit"
    suffix = ".xml"

    def render(
        self,
        document: Report,
        comparisons: Sequence[Comparison] = (),
        checks: Sequence[Check] = (),
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        if not checks:
            raise DeltafineError("--format junit shows a gate, and none is set: give limits, or a file with --gate.")
        return _suite(document, checks)


def _suite(report: Report, checks: Sequence[Check]) -> str:
    failures = str(sum(not check.met for check in checks))
    root = ElementTree.Element("testsuites", tests=str(len(checks)), failures=failures, errors="0")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=f"deltafine: {clean(report.title)}",
        tests=str(len(checks)),
        failures=failures,
        errors="0",
        skipped="0",
        time="0",
        timestamp=clean(report.created),
    )
    for check in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname="deltafine.gate", name=f"{check.name}: {check.subject}", time="0"
        )
        if not check.met:
            failure = ElementTree.SubElement(case, "failure", type=check.name, message=check.sentence)
            failure.text = check.sentence
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
