"""The JSON Schema of report.json, for readers in other languages: `python -m deltafine.document.schema` prints it."""

from __future__ import annotations

import json
import sys

from deltafine.document.report import DOCUMENT_VERSION, Report


def schema_text() -> str:
    """What docs/report.schema.json holds."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"deltafine report, version {DOCUMENT_VERSION}",
        **{key: value for key, value in Report.model_json_schema().items() if key != "title"},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
