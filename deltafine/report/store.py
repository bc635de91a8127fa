"""Reading and writing run directories. Files appear by rename, so a reader never meets half a report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from deltafine import __version__
from deltafine.errors import DeltafineError
from deltafine.report.document import DOCUMENT_VERSION, Report
from deltafine.report.text import clean

REPORT_FILE = "report.json"
HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
PICTURES_FOLDER = "pictures"

_MODEL_SUFFIXES = {".keras", ".h5", ".hdf5"}


def load_report(path: str | os.PathLike[str]) -> Report:
    """Read a report from a run directory or from a report.json.

    Raises DeltafineError where there is none, where it is not JSON, where it is of another version, or where a
    field is missing or wrong.
    """
    file = report_file(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DeltafineError(f"{clean(file)} cannot be read: {error.strerror or error}.") from error
    try:
        document = from_json(content)
    except ValueError as error:
        reason = clean(error)
        raise DeltafineError(
            f"{clean(file)} is not valid JSON ({reason}): it is damaged or no report, so measure again."
        ) from error
    return _validated(document, file)


def report_file(path: str | os.PathLike[str]) -> Path:
    """The report.json that `path` names, itself or the run directory that holds it."""
    place = Path(path)
    if place.is_dir():
        file = place / REPORT_FILE
        if not file.exists():
            raise DeltafineError(
                f"{clean(place)} holds no {REPORT_FILE}: give the directory of a finished run, or a report.json."
            )
        return file
    if not place.exists():
        raise DeltafineError(f"There is no report at {clean(place)}: give a run directory or a report.json.")
    if place.suffix.lower() in _MODEL_SUFFIXES:
        raise DeltafineError(f"{clean(place)} is a model, not a report: give --data VIDEOS to measure it.")
    return place


def _validated(document: Any, file: Path) -> Report:
    if not isinstance(document, dict) or "version" not in document:
        raise DeltafineError(f"{clean(file)} is JSON but not a deltafine report: it states no report version.")
    version = document["version"]
    if version != DOCUMENT_VERSION or isinstance(version, bool):
        advice = (
            "update deltafine to read it"
            if isinstance(version, int) and version > DOCUMENT_VERSION
            else "measure again to write a new one"
        )
        raise DeltafineError(
            f"{clean(file)} is a report of version {clean(version)} and this deltafine reads version "
            f"{DOCUMENT_VERSION}: {advice}."
        )
    try:
        report = Report.model_validate(document)
    except ValidationError as error:
        # The first complaint is enough to find the place; the rest is counted.
        first, *others = error.errors(include_url=False)
        place = ".".join(str(step) for step in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        raise DeltafineError(
            f"{clean(file)} does not fit the report schema at {clean(place)}: {clean(first['msg'])}{more}; "
            f"{_advice(document)}."
        ) from error
    if not report.models:
        raise DeltafineError(f"{clean(file)} holds no measured model: measure again to write a new one.")
    return report


def _advice(document: dict[str, Any]) -> str:
    versions = document.get("versions")
    writer = versions.get("deltafine") if isinstance(versions, dict) else None
    if isinstance(writer, str) and writer != __version__:
        return f"deltafine {clean(writer)} wrote it and this is {__version__}, so use that version or measure again"
    return "measure again to write a new one"


def load_pictures(path: str | os.PathLike[str], report: Report) -> dict[str, bytes]:
    """The PNG files of a report that still lie beside it; a report.json that was moved alone has none."""
    folder = report_file(path).parent / PICTURES_FOLDER
    files = {picture.file: folder / picture.file for picture in report.pictures}
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()}


def write_report(
    report: Report, directory: str | os.PathLike[str], pictures: Mapping[str, bytes] | None = None
) -> None:
    """Write report.json, report.html and report.md into `directory`, made if need be.

    `pictures` holds the PNG data of `report.pictures` by file name; they are written under `pictures/` and put into
    the page. Everything is rendered before the first file is touched, and report.json is written last. Raises
    DeltafineError where the directory cannot be written, ValueError where a picture has no data.
    """
    from deltafine.report import html, markdown

    pictures = pictures or {}
    if missing := [picture.file for picture in report.pictures if picture.file not in pictures]:
        raise ValueError(f"no data was given for the pictures {missing}")
    files = {f"{PICTURES_FOLDER}/{picture.file}": pictures[picture.file] for picture in report.pictures}
    files[HTML_FILE] = html.render(report, pictures).encode("utf-8")
    files[MARKDOWN_FILE] = markdown.render(report).encode("utf-8")
    files[REPORT_FILE] = json_text(report).encode("utf-8")
    place = Path(directory)
    try:
        (place / PICTURES_FOLDER if report.pictures else place).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(place / name, content)
    except OSError as error:
        raise DeltafineError(f"The report cannot be written to {clean(place)}: {error.strerror or error}.") from error


def json_text(report: Report) -> str:
    """The document as it stands in report.json."""
    return report.model_dump_json(indent=1) + "\n"


def write_atomically(file: Path, content: bytes) -> None:
    """Write `content` beside `file`, force it to the disk and rename it into place."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private; a report is as readable as any other file of the run.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
