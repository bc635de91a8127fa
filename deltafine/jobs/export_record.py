"""What was exported from a run, and how it was checked: kept beside the files, and listed."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.storage import run_files
from deltafine.storage.files import CannotWrite, make_folder, read_small, write_atomically

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Record:
    """One file that was exported.

    Attributes:
        file: its name in the folder of exports, or its whole path where it lies elsewhere.
        format, form: of it; form is "" for a format that has none.
        checked: how it agrees with the model, or why that was not looked at.
        sha256: of the file.
    """

    file: str
    format: str
    form: str
    checked: str
    sha256: str


def keep(folder: Path, file: Path, *, format: str, form: str, checked: str) -> None:
    """Note in the folder of exports what was written; what was noted of the same file before is replaced."""
    name = file.name if file.resolve().parent == folder.resolve() else str(file.resolve())
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    others = [record for record in records(folder) if record.file != name]
    made = [*others, Record(name, format, form, checked, digest)]
    text = json.dumps([asdict(record) for record in made], indent=1)
    try:
        make_folder(folder)
        write_atomically(folder / run_files.EXPORTS, (text + "\n").encode())
    except CannotWrite as error:  # the file itself is there
        warnings.warn(f"{file} is written, but --list will not show it: {error}", DeltafineWarning, stacklevel=2)


def records(folder: Path) -> list[Record]:
    """What was noted in a folder of exports; what cannot be read counts as not there, as nothing else needs it."""
    try:
        found = json.loads(read_small(folder / run_files.EXPORTS, _MOST_BYTES))
        return [Record(**{name: str(value) for name, value in entry.items()}) for entry in found]
    except (OSError, DeltafineError, ValueError, TypeError, AttributeError, RecursionError):
        return []


def listing(run: Path) -> str:
    """Forms and formats, what each is for, and what was written and checked of a run.

    Raises:
        DeltafineError: there is no run.
    """
    from deltafine.exporting import FORMATS
    from deltafine.exporting.export_format import FORMS

    model = run / run_files.REFINED if run.is_dir() else run
    if not model.is_file():
        raise DeltafineError(f"There is no model at {model}: give a run directory or a model file.")
    folder = model.parent / run_files.EXPORT
    lines = ["Forms", *(f"  {name:<11}{purpose}" for name, purpose in FORMS.items()), "", "Formats"]
    for format in FORMATS:
        lines.append(f"  {format.name:<11}{format.purpose}")
        if format.forms:
            lines.append(f"  {'':<11}{', '.join(format.forms)}")
    found = records(folder)
    lines += ["", f"Written{'' if found else ': nothing yet'}"]
    for record in found:
        kind = f"{record.format}, {record.form}" if record.form else record.format
        lines += [f"  {record.file} ({kind})", f"    {_state(folder / record.file, record)}"]
    return "\n".join(lines)


def _state(file: Path, record: Record) -> str:
    """An absolute path takes the place of the folder's."""
    if not file.is_file():
        return "the file is gone"
    with file.open("rb") as opened:
        same = hashlib.file_digest(opened, "sha256").hexdigest() == record.sha256
    return (record.checked or "read back") if same else "the file is another than the one that was checked"
