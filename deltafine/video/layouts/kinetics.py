"""Kinetics' layout: ``train.csv``, ``val.csv`` and ``test.csv`` with label, youtube_id, time_start, time_end.

Kay et al., "The Kinetics Human Action Video Dataset", arXiv 1705.06950. The files are called
``<youtube_id>_<start>_<end>.mp4`` with six digits each, or just by the id.
"""

from __future__ import annotations

from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Found, Problem, Split, Video
from deltafine.video.finding import find_videos, relative_name
from deltafine.video.layouts.common import number_classes, some
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.naming import SPLIT_NAMES, split_of_list
from deltafine.video.layouts.tables import has_columns, read_table

COLUMNS = {"label", "youtube_id", "time_start", "time_end"}


def find_kinetics(root: Path, *, lists_in: Path | None = None) -> Found | None:
    """Read all lists right in ``root`` (or in ``lists_in``) or in ``annotations`` there; classes are sorted by name.

    Videos that are listed but missing are problems and not errors, because every copy of Kinetics lacks
    some that have left the web.

    Raises:
        DeltafineError: A row is broken, or all listed files are missing.
    """
    lists = [
        path
        for folder in (lists_in or root, (lists_in or root) / "annotations")
        if folder.is_dir()
        for path in sorted(folder.glob("*.csv"))
        if has_columns(path, COLUMNS)
    ]
    if not lists:
        return None
    by_name = {path.stem: path for path in find_videos(root)}
    rows: list[tuple[Path, str, Split]] = []
    problems: list[Problem] = []
    for listing in lists:
        for line, row in read_table(listing)[1]:
            split = SPLIT_NAMES.get(row["split"].lower()) if "split" in row else split_of_list(listing.stem)
            if split is None or not set(row) >= COLUMNS:
                raise DeltafineError(f"{listing}, line {line}, needs {', '.join(sorted(COLUMNS))} and a split.")
            full = _full_name(row, f"{listing}, line {line},")
            path = by_name.get(full) or by_name.get(row["youtube_id"])
            if path is None:
                problems.append(Problem(full, f"is listed in {listing.name} but not there", "missing"))
            else:
                rows.append((path, row["label"], split))
    if not rows:
        raise DeltafineError(
            f"None of the {len(problems)} videos that {lists[0]} lists are below {root} "
            f"({some(problem.video for problem in problems)})."
        )
    classes = number_classes(label for _, label, _ in rows)
    videos = [Video(path, relative_name(path, root), classes.index(label), split) for path, label, split in rows]
    return Found("Kinetics layout", videos, classes, has_splits=True, problems=problems, lists=lists)


def _full_name(row: dict[str, str], where: str) -> str:
    try:
        start, end = round(float(row["time_start"])), round(float(row["time_end"]))
    except (ValueError, OverflowError) as error:
        raise DeltafineError(f"{where} needs numbers for time_start and time_end.") from error
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"


class Kinetics(Layout):
    """Kinetics, with its tables."""

    name = "kinetics"

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        return find_kinetics(path)
