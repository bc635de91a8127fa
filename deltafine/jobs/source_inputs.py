"""What a model with further inputs is given with the frames of sources that are played."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.runtime.given_values import wanted_by
from deltafine.runtime.plan import Plan
from deltafine.video.further_values import FurtherValues, Wanted, by_input, given_values, values_for

if TYPE_CHECKING:
    from deltafine.video.catalogue import Found, Video
    from deltafine.video.named_source import NamedSource

Inputs = Callable[[int], Mapping[str, np.ndarray]]
"""From the number of a frame in its source to what comes with it, by the names of the inputs."""


def nothing_beside(number: int) -> Mapping[str, np.ndarray]:
    """For models that take frames alone."""
    return {}


def inputs_of_sources(plan: Plan, sources: Sequence[NamedSource], given: Sequence[str]) -> dict[str, Inputs]:
    """What comes with the frames of each source, by its label.

    Values stand in a ``labels.csv`` or a manifest in the folder of a video, or in the one around it.

    Args:
        plan: of the model.
        sources: what is played.
        given: constants of the user, as ``name=value``.

    Raises:
        DeltafineError: an input has neither a constant nor a column for a source.
    """
    wanted = wanted_by(plan)
    constants = given_values(given, wanted)
    if not wanted:
        return {}
    missing = next((one for one in wanted if one.input not in constants), None)
    if missing is None:
        of_all = values_for(wanted, None, constants, "")
        assert of_all is not None
        same = by_input(wanted, of_all.rows[0])
        return {source.label: lambda number: same for source in sources}
    lists: dict[Path, Found | None] = {}
    return {source.label: _from_list(source, wanted, missing, constants, lists) for source in sources}


def _from_list(
    source: NamedSource,
    wanted: Sequence[Wanted],
    missing: Wanted,
    constants: Mapping[str, Sequence[float]],
    lists: dict[Path, Found | None],
) -> Inputs:
    needed = f"The model takes '{missing.input}' beside its frames, and"
    if source.kind not in ("file", "images"):
        raise DeltafineError(
            f"{needed} no list says what it is for {source.label}: give --input {missing.input}=VALUE."
        )
    path = Path(source.text).resolve()
    for folder in (path.parent, path.parent.parent):
        if folder not in lists:
            lists[folder] = _list_in(folder)
        found = lists[folder]
        rows = [] if found is None else [video for video in found.videos if video.path.resolve() == path]
        if found is not None and rows:
            values = values_for(wanted, found.columns, constants, str(found.lists[0]))
            assert values is not None
            return _at_frames(values, rows, wanted)
    raise DeltafineError(
        f"{needed} there is no labels.csv or manifest.csv with {source.label} in its folder or the one around it: give "
        f"--input {missing.input}=VALUE."
    )


def _list_in(folder: Path) -> Found | None:
    from deltafine.video.layouts.labelled_streams import find_streams
    from deltafine.video.layouts.manifest import find_manifest

    return find_streams(folder) or find_manifest(folder)


def _at_frames(values: FurtherValues, rows: Sequence[Video], wanted: Sequence[Wanted]) -> Inputs:
    """Of a whole file, of which a list may have several segments in frames."""
    if len(rows) > 1 and any(row.start is not None or row.end is not None for row in rows):
        raise DeltafineError(
            f"{values.listing} has several segments of {rows[0].path.name} in seconds, so it is not known which frames "
            f"they are: give --input {wanted[0].input}=VALUE, or segments in frames."
        )

    def at(number: int) -> Mapping[str, np.ndarray]:
        own = next((row for row in rows if _is_in(row, number)), rows[0]) if len(rows) > 1 else rows[0]
        return by_input(wanted, values.at(own, np.array([number]))[0])

    return at


def _is_in(row: Video, number: int) -> bool:
    return (row.start_frame or 0) <= number and (row.end_frame is None or number < row.end_frame)
