"""Reading and writing run directories. Files appear by rename, so a reader never meets half a report."""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from deltafine import __version__
from deltafine.document.figures import LENIENT
from deltafine.document.ranges import out_of_range
from deltafine.document.report import DOCUMENT_VERSION, READABLE_VERSIONS, Report
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.report.text import clean
from deltafine.storage import run_files
from deltafine.storage.files import JsonObject, looks_like_a_model, make_folder, read_small, write_atomically

PNG = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 1 << 28
"""Of a report, or of a picture."""

_OBEYED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_SHOWN = {".html", ".md", ".csv", ".xml"}
_MODEL_SUFFIXES = {".keras", ".h5", ".hdf5", ".onnx"}


def load_report(path: str | os.PathLike[str]) -> Report:
    """Read a report from a run directory or from a report.json.

    Raises DeltafineError where there is none, where it is not JSON, where it is of another version, or where a
    field is missing or wrong.

    Examples:
        >>> report = deltafine.load_report("run/")
        >>> sorted(report.models)
        ['calibrated', 'original', 'refined']
        >>> 0 < report.models["refined"].streams.operations.mac_density < 1
        True
    """
    file = report_file(path)
    try:
        content = read_small(file, MOST_BYTES)
    except OSError as error:
        raise DeltafineError(f"{clean(file)} cannot be read: {error.strerror or error}.") from error
    if not content.strip():
        raise DeltafineError(f"{clean(file)} is empty: look at the command that should have written it.")
    try:
        document = from_json(content)
    except (ValueError, RecursionError) as error:
        reason = clean(error)[:300]
        raise DeltafineError(
            f"{clean(file)} is not valid JSON ({reason}), so it is damaged or no report: give a run directory or a "
            "report.json."
        ) from error
    return _validated(document, file)


def report_file(path: str | os.PathLike[str]) -> Path:
    """The report.json that `path` names, itself or the run directory that holds it."""
    place = Path(path)
    if place.is_dir():
        file = place / run_files.REPORT
        if not file.exists():
            raise DeltafineError(
                f"{clean(place)} holds no {run_files.REPORT}: give the directory of a finished run, or a report.json."
            )
        return file
    if not place.exists():
        raise DeltafineError(f"There is no report at {clean(place)}: give a run directory or a report.json.")
    if place.suffix.lower() in _MODEL_SUFFIXES or (place.is_file() and looks_like_a_model(place)):
        raise DeltafineError(f"{clean(place)} is a model, not a report: give --data VIDEOS to measure it.")
    if place.suffix.lower() in _SHOWN:
        raise DeltafineError(
            f"{clean(place)} is what a report looks like, and cannot be read back: give its run directory or the "
            f"{run_files.REPORT} beside it."
        )
    return place


def _validated(document: Any, file: Path) -> Report:
    if not isinstance(document, dict) or "version" not in document:
        raise DeltafineError(f"{clean(file)} is JSON but not a deltafine report: it states no report version.")
    version = document["version"]
    if version not in READABLE_VERSIONS or isinstance(version, bool):
        advice = (
            "update deltafine to read it"
            if isinstance(version, int) and version > DOCUMENT_VERSION
            else "measure again to write a new one"
        )
        raise DeltafineError(
            f"{clean(file)} is a report of version {clean(version)} and this deltafine reads versions up to "
            f"{DOCUMENT_VERSION}: {advice}."
        )
    try:
        report = Report.model_validate({**document, "version": DOCUMENT_VERSION}, context={LENIENT: True})
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
    if wrong := out_of_range(report):
        raise DeltafineError(f"{clean(file)} is damaged: {clean(wrong)}; {_advice(document)}.")
    return report


def _advice(document: JsonObject) -> str:
    versions = document.get("versions")
    writer = versions.get("deltafine") if isinstance(versions, dict) else None
    if isinstance(writer, str) and writer != __version__:
        return f"deltafine {clean(writer)} wrote it and this is {__version__}, so use that version or measure again"
    return "measure again to write a new one"


def load_pictures(path: str | os.PathLike[str], report: Report) -> dict[str, bytes]:
    """The PNG files of a report that still lie beside it; a report.json that was moved alone has none."""
    folder = report_file(path).parent / run_files.PICTURES
    files = {picture.file: folder / picture.file for picture in report.pictures}
    found: dict[str, bytes] = {}
    for name, file in files.items():
        if not file.exists():
            continue
        content = read_small(file, MOST_BYTES) if file.is_file() else b""
        # What an untrusted run calls a picture may be a link to a file of the reader's, which no page should show.
        if _is_picture(content):
            found[name] = content
        else:
            said = f"A picture is left out: {clean(file)} is no PNG file, or damaged."
            warnings.warn(said, DeltafineWarning, stacklevel=2)
    return found


def _is_picture(content: bytes) -> bool:
    """Whether this is a whole PNG file: a signature, and chunks of length, name, data and checksum up to the last."""
    place = len(PNG)
    while content.startswith(PNG) and place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4])
        if zlib.crc32(content[place + 4 : end - 4]) != int.from_bytes(content[end - 4 : end]):
            return False
        if content[place + 4 : place + 8] == b"IEND":
            return end == len(content)
        place = end
    return False


def write_report(
    report: Report, directory: str | os.PathLike[str], pictures: Mapping[str, bytes] | None = None
) -> None:
    """Write report.json, report.html and report.md into `directory`, made if need be.

    `pictures` holds the PNG data of `report.pictures` by file name; they are written under `pictures/` and put into
    the page. Everything is rendered before the first file is touched, and report.json is written last. Raises
    DeltafineError where the directory cannot be written, ValueError where a picture has no data.
    """
    from deltafine.report.formats.html import Html
    from deltafine.report.formats.markdown import Markdown

    pictures = pictures or {}
    if missing := [picture.file for picture in report.pictures if picture.file not in pictures]:
        raise ValueError(f"no data was given for the pictures {missing}")
    files = {f"{run_files.PICTURES}/{picture.file}": pictures[picture.file] for picture in report.pictures}
    files[run_files.PAGE] = Html().render(report, pictures=pictures).encode("utf-8")
    files[run_files.TEXT] = Markdown().render(report).encode("utf-8")
    files[run_files.REPORT] = json_text(report).encode("utf-8")
    place = Path(directory)
    make_folder(place / run_files.PICTURES if report.pictures else place)
    for name, content in files.items():
        write_atomically(place / name, content)


def json_text(report: Report) -> str:
    """The document as it stands in report.json; JSON leaves some characters as they are that terminals obey."""
    text = report.model_dump_json(indent=1)
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
