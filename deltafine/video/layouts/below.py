"""Which video of a data folder a list means, wherever below the folder it lies."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import Split
from deltafine.video.finding import find_videos, is_video, relative_name
from deltafine.video.layouts.common import relative_to, some
from deltafine.video.layouts.naming import is_container, split_of


class Below:
    """The videos below a data folder, found by what lists call them.

    A name stands for a video when it is its path from the data folder, from the list's folder, or from any folder in
    between (``walk/a.mp4`` for ``videos/walk/a.mp4``). With folders before it that are not there (``/elsewhere/a.mp4``)
    it stands for one that lies in no folder of its own, but in those of videos or splits. It may lack the ending, as
    ids do.
    """

    def __init__(self, root: Path, *, allow_outside: bool = False) -> None:
        self.root = root
        self._allow_outside = allow_outside

    @cached_property
    def videos(self) -> list[Path]:
        """All of them."""
        return find_videos(self.root)

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[tuple[str, ...], Path]]]:
        """Components of the path of every video, by its name and by its name without the ending."""
        found: dict[str, list[tuple[tuple[str, ...], Path]]] = defaultdict(list)
        for path in self.videos:
            components = PurePosixPath(relative_name(path, self.root)).parts
            found[path.name].append((components, path))
            if is_video(path):
                found[path.stem].append(((*components[:-1], path.stem), path))
        return found

    def has(self, name: str) -> bool:
        """Whether a name stands for one or several videos, or for an allowed one elsewhere."""
        return bool(self.all(name)) or (self._allow_outside and self.lies_outside(name, self.root / "list"))

    def find(self, name: str, listed_in: Path, split: Split | None) -> Path | None:
        """The video that a name stands for; None when there is none.

        Raises:
            DeltafineError: It may be any of several, or lies outside the data folder.
        """
        found = self.all(name)
        if len(found) > 1:
            near = [path for path in found if path.is_relative_to(listed_in.parent)]
            near = near if 0 < len(near) < len(found) else found
            of_split = [path for path in near if split in map(split_of, path.relative_to(self.root).parts[:-1])]
            found = of_split or near
        if len(found) > 1:
            names = some(relative_name(path, self.root) for path in found)
            raise DeltafineError(
                f"{listed_in} names '{some([name])}', which may be any of {names}: write their folders too."
            )
        if not found and self.is_outside(name):
            if not self._allow_outside:
                raise DeltafineError(
                    f"{listed_in} names '{some([name])}', which is outside the data folder {self.root}: "
                    "list only files below it, or allow paths outside."
                )
            path = listed_in.parent / name
            return path if path.exists() else None
        return found[0] if found else None

    def lies_outside(self, name: str, listed_in: Path) -> bool:
        """Whether there is something elsewhere that a name stands for."""
        try:
            return self.is_outside(name) and (listed_in.parent / name).exists()
        except OSError:  # a name that no file can have
            return False

    def is_outside(self, name: str) -> bool:
        """Whether a name is an absolute path or climbs with ".."."""
        pure = PurePosixPath(name.replace("\\", "/"))
        absolute = pure.is_absolute() or re.match(r"[A-Za-z]:", name) is not None
        return (absolute and relative_to(self.root, name) is None) or ".." in pure.parts

    def all(self, name: str) -> list[Path]:
        """The videos that a name may stand for."""
        pure = relative_to(self.root, name) or PurePosixPath(name.replace("\\", "/"))
        components = tuple(one for one in pure.parts if one not in ("/", "."))
        if not components or ".." in components:
            return []
        best: list[Path] = []
        longest = 0
        for have, path in self._by_name.get(components[-1], ()):
            common = _common(components, have)
            if common < len(components) and not all(
                is_container(one) or split_of(one) for one in have[: len(have) - common]
            ):
                continue
            if common > longest:
                best, longest = [], common
            if common == longest:
                best.append(path)
        return best


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many components two paths have in common at their ends."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count
