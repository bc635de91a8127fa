"""The published JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from deltafine.document.schema import schema_text
from deltafine.report.store import json_text
from tests.report.builders import make_report

FILE = Path(__file__).parents[2] / "docs" / "report.schema.json"


def test_the_published_schema_is_current() -> None:
    advice = "run: python -m deltafine.document.schema > docs/report.schema.json"
    assert FILE.read_text("utf-8") == schema_text(), advice


def test_reports_fit_the_published_schema() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(FILE.read_text("utf-8")))
    validator.validate(json.loads(json_text(make_report())) | {"of_a_newer_version": 1})
    for report in (make_report(), make_report(models=("original",), history=[], front=[])):
        validator.validate(json.loads(json_text(report)))


@pytest.mark.parametrize(("field", "value"), [("seconds", "soon"), ("version", 3), ("models", [])])
def test_what_is_no_report_does_not_fit_the_schema(field: str, value: object) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(FILE.read_text("utf-8")))
    document = json.loads(json_text(make_report())) | {field: value}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)
