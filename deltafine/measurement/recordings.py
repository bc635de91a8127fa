"""Which videos are of one recording: frames of a recording are alike, so an interval is drawn over recordings."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_PARTS = (
    r"(f|h|u|l)_(cm|nm)_np\d_(ba|fr|le|ri)_(bad|med|goo)_\d+",  # HMDB51
    r"\d{6}_\d{6}",  # Kinetics: from which second to which
    r"(c|clip|part|piece|seg|segment|chunk|crop|cut|tile|shot|scene|window)[-_. ]?\d+",
    r"(full|whole|left|right|middle|center|centre|top|bottom|upper|lower|crop|flipped|mirrored)",
)
_PART = re.compile(rf"(?<=[^-_. ])[-_. ]+(?P<part>{'|'.join(_PARTS)})$", re.IGNORECASE)
_RANGE = re.compile(r" \[[^\]]*\]$")
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


@dataclass(frozen=True)
class Known:
    """What is known of a video that is measured.

    Attributes:
        name: its name in the data.
        recording: the same for all videos of one recording.
    """

    name: str
    recording: str


def recording_of(name: str, classes: Collection[str] = (), group: str | None = None) -> str:
    """The recording that a video is of, as far as its name tells.

    Crops and pieces of one recording have names that differ only at the end: ``road_left.avi`` and ``road_right.avi``,
    ``heavy/v_hwy_c06.avi`` and ``light/v_hwy_c11.avi``, ``night.mp4 [frames 0-99]``. Bare numbers at the end do not
    tell: ``drive_12.mp4`` and ``drive_13.mp4`` are two recordings.

    Args:
        name: with forward slashes.
        classes: folders and words of these names say what is shown, and not what it is a part of: pieces of one
            recording may be in several such folders.
        group: what the data itself says; then the name does not matter.
    """
    if group:
        return group
    folder, _, last = _RANGE.sub("", name).rpartition("/")
    whole = last = _ENDING.sub("", last)
    while (found := _PART.search(last)) and found["part"].lower() not in {one.lower() for one in classes}:
        last = last[: found.start()]
    of_a_class = classes if last != whole else ()  # the 1.mp4 of one class is not the 1.mp4 of another
    folders = [part for part in folder.split("/") if part and part not in of_a_class]
    return "/".join([*folders, last])
