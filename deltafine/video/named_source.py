"""What a text on the command line names: a file, a folder, a camera, an address, or standard input."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deltafine.errors import DeltafineError
from deltafine.video.finding import is_image_folder, is_video, natural_key

STANDARD_INPUT = "-"

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^/@:]*):[^/]*@")
SCHEMES = ("rtsp", "rtsps", "http", "https", "rtp", "udp", "tcp", "srt", "rtmp", "rtmps")


@dataclass(frozen=True)
class NamedSource:
    """Where frames come from.

    Attributes:
        text: as it was given.
        kind: what it is.
        label: how it is shown: an address without its password, and one of its own for each source.
    """

    text: str
    kind: Literal["file", "images", "camera", "address", "input"]
    label: str


def named_sources(texts: list[str] | tuple[str, ...]) -> list[NamedSource]:
    """The sources that some texts name; a folder of video files stands for each of them.

    Raises:
        DeltafineError: there is nothing of the name, or standard input is given twice.
    """
    found: list[NamedSource] = []
    for text in texts:
        found += _named(text)
    if sum(source.kind == "input" for source in found) > 1:
        raise DeltafineError("Standard input (-) is given twice: give it once.")
    labels: dict[str, int] = {}
    for place, source in enumerate(found):
        count = labels[source.label] = labels.get(source.label, 0) + 1
        if count > 1:
            found[place] = NamedSource(source.text, source.kind, f"{source.label} ({count})")
    return found


def _named(text: str) -> list[NamedSource]:
    if text == STANDARD_INPUT:
        return [NamedSource(text, "input", text)]
    if scheme := _ADDRESS.match(text):
        shown = _PASSWORD.sub(r"\1:***@", text)
        if scheme[1].lower() not in SCHEMES:
            raise DeltafineError(f"Addresses of {scheme[1]}:// are not read: give one of {', '.join(SCHEMES)}.")
        return [NamedSource(text, "address", shown)]
    path = Path(text)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return _in_folder(path, text)
    except OSError as error:
        if text.isdigit():
            return [NamedSource(text, "camera", text)]
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise DeltafineError(
                f"There is no video at {text}: give a file, a folder, a camera (0), an address (rtsp://...), or - for "
                "raw frames on standard input."
            ) from error
        raise DeltafineError(f"{text} cannot be read: {error.strerror}.") from error
    return [NamedSource(text, "camera" if stat.S_ISCHR(status.st_mode) else "file", text)]


def _in_folder(folder: Path, text: str) -> list[NamedSource]:
    videos = [entry for entry in folder.iterdir() if is_video(entry) and entry.is_file()]
    if not videos or is_image_folder(folder, given=True):
        return [NamedSource(text, "images", text)]
    videos.sort(key=lambda entry: natural_key(entry.name))
    return [NamedSource(str(video), "file", str(video)) for video in videos]
