"""The JSON Schema of report.json, for readers in other languages: `python -m deltafine.document.schema` prints it."""

from __future__ import annotations

import json
import sys
from typing import Any

from deltafine.document.report import DOCUMENT_VERSION, Report


def schema_text() -> str:
    """What docs/report.schema.json holds."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"deltafine report, version {DOCUMENT_VERSION}",
        **{key: value for key, value in Report.model_json_schema().items() if key != "title"},
    }
    _allow_more(schema)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _allow_more(schema: Any) -> None:
    """Newer versions may have optional fields that this one does not know."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _allow_more(part)
    if isinstance(schema, dict) and schema.get("additionalProperties") is False:
        del schema["additionalProperties"]


if __name__ == "__main__":
    sys.stdout.write(schema_text())
