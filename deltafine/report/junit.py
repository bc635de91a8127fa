"""The gate as JUnit XML, which every CI service can show."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from deltafine.document.report import Report
from deltafine.report.gate import Check
from deltafine.report.text import clean


def render(report: Report, checks: Sequence[Check]) -> str:
    """One test suite, one test case per limit."""
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
