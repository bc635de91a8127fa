"""Lists of videos as the collections and libraries of others have them: see ``listed`` for what one may look like.

``metadata.csv`` of Hugging Face's VideoFolder, ``train.csv`` and ``test.csv`` of Keras' tutorial, of SlowFast and
PyTorchVideo, mmaction2's ``*_train_list_videos.txt``, Something-Something's and Jester's lists, and others like them.
A list counts when it names videos that are there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.video.catalogue import SPLITS, Found, Problem, Split, Video
from deltafine.video.finding import is_image_folder, relative_name
from deltafine.video.layouts.below import Below
from deltafine.video.layouts.common import expected, list_name, note_missing, some
from deltafine.video.layouts.folders import find_class_folders
from deltafine.video.layouts.layout import Layout, LayoutOptions
from deltafine.video.layouts.leftover import looks_like_classes, sounds_like_list
from deltafine.video.layouts.listed import (
    SUFFIXES,
    Entry,
    Listing,
    NotAListError,
    files_of_lists,
    read_classes,
    read_listing,
)
from deltafine.video.layouts.naming import split_of
from deltafine.video.layouts.numbering import Labelled, number_rows
from deltafine.video.layouts.tables import say_unknown

SEVERAL = "it gives a video several labels"


@dataclass(frozen=True)
class _Used:
    """A list that is used, with what it names: the videos, and what is wrong with those that are not there."""

    listing: Listing
    there: list[tuple[Entry, Path]]
    problems: list[Problem]


class Lists:
    """The lists in a data folder or in the one around it, or one that is given itself.

    Args:
        path: The data folder, or a list in it.
        split: Which of several divisions to use.
        allow_outside: Let lists name files outside the data folder.
        lists_in: The folder that the lists lie in, where it is not the data folder.

    Attributes:
        why_not: Of files that may be lists and are not used, why; complete after :meth:`find`.
    """

    def __init__(
        self, path: Path, *, split: int = 1, allow_outside: bool = False, lists_in: Path | None = None
    ) -> None:
        self._path = path
        self._lists_in = lists_in
        self._root = path if path.is_dir() else path.parent
        self._split = split
        self._below = Below(self._root, allow_outside=allow_outside)
        self.why_not: dict[Path, str] = {}
        self._known: list[Path] = []  # read, or lists of other divisions

    def find(self) -> Found | None:
        """The videos that the lists name; classes are numbered by their numbers, by a class list, or sorted by name.

        Raises:
            DeltafineError: A list gives a video several labels, names videos that are not there, or two lists
                contradict each other.
        """
        if self._path.is_dir() and is_image_folder(self._path):
            return None
        listings = [listing for path in self._candidates() if (listing := self._read(path))]
        if self._path in self.why_not:
            raise DeltafineError(f"{self._path} cannot be used because {self.why_not[self._path]}.")
        chosen = self._choose(listings)
        if not chosen:
            return None
        if any(listing.several for listing in chosen):
            chosen = [
                replace(one, several=True, entries=[replace(entry, label=None, target=None) for entry in one.entries])
                for one in chosen
            ]
        used = [self._look_up(listing) for listing in chosen]
        return self._found(used, self._labels_from(listings, chosen))

    @cached_property
    def candidates(self) -> list[Path]:
        """Files that may be lists."""
        if self._lists_in is None:
            return files_of_lists(self._root)
        return [path for path in files_of_lists(self._lists_in, only_usual=True) if sounds_like_list(path)]

    def not_a_list(self, path: Path) -> str | None:
        """Why a file is no list of videos; None when it is one, or may be."""
        try:
            read_listing(path, self._below.has)
        except NotAListError as error:
            return str(error)
        return None

    def _candidates(self) -> list[Path]:
        if self._path.is_dir():
            return self.candidates
        return [self._path] if self._path.suffix.lower() in SUFFIXES and self._path.is_file() else []

    def _read(self, path: Path) -> Listing | None:
        """A list that names videos which are there."""
        try:
            listing = read_listing(path, self._below.has)
        except NotAListError as error:
            self.why_not[path] = str(error)
            return None
        there = [entry for entry in listing.entries if self._below.has(entry.name)]
        if not there:
            outside = any(self._below.lies_outside(entry.name, path) for entry in listing.entries)
            self.why_not[path] = (
                "the files that it names are outside the data folder" if outside else "no video that it names is there"
            )
            return None
        several = [entry for entry in there if entry.several]
        if several and (len(several) * 2 >= len(there) or not sounds_like_list(path)):
            entries = [replace(entry, label=None, target=None) for entry in listing.entries]
            listing = replace(listing, entries=entries, several=True)
        elif several:
            raise DeltafineError(
                f"{several[0].where} gives {several[0].name} several labels where most videos have one: "
                "give every video one label."
            )
        if listing.split is None and not listing.has_splits:
            splits = [self._folder_split(entry) for entry in there]
            if all(splits) and len(set(splits)) > 1:
                entries = [replace(entry, split=self._folder_split(entry) or "train") for entry in listing.entries]
                listing = replace(listing, entries=entries)
        return listing

    def _folder_split(self, entry: Entry) -> Split | None:
        """The split that the video of an entry lies in, where folders are called after splits."""
        folders = {Path(relative_name(path, self._root)).parts[:-1][:2] for path in self._below.all(entry.name)}
        splits = {next((split for split in map(split_of, of_one) if split), None) for of_one in folders}
        return splits.pop() if len(splits) == 1 else None

    def _choose(self, listings: list[Listing]) -> list[Listing]:
        """One list for every split, or else the only one with labels."""
        divided = self._numbered([listing for listing in listings if listing.has_splits])
        by_split: dict[Split | None, list[Listing]] = defaultdict(list)
        for listing in divided:
            by_split[listing.split].append(listing)
        if by_split[None] and len(by_split) == 1:
            return self._one(by_split[None])
        of_splits = [self._one(by_split[split])[0] for split in SPLITS if by_split[split]]
        if len(of_splits) > 1:
            self._leave(by_split[None], of_splits)
            return of_splits
        for listing in of_splits:  # a list of the training videos alone: what validates is drawn from it
            listings = [replace(one, split=None) if one is listing else one for one in listings]
        labelled = [listing for listing in listings if not listing.has_splits and listing.labelled]
        for listing in listings:
            if not listing.has_splits and not listing.labelled:
                self.why_not[listing.path] = SEVERAL if listing.several else "it gives neither labels nor splits"
        return self._one(self._without_folders(labelled), refuse=True)

    def _without_folders(self, labelled: list[Listing]) -> list[Listing]:
        """Lists of everything, but for those that may be anything where class folders give the labels.

        Only Hugging Face's list goes before class folders, as it does there.
        """
        if self._path.is_file() or not labelled:
            return labelled
        try:
            folders = find_class_folders(self._root)
        except DeltafineError:  # of folders called like splits
            return labelled
        in_classes = folders is not None and len(folders.classes) > 1
        kept = []
        for listing in labelled:
            if listing.path.stem == "metadata" or not (in_classes or self._is_aside(listing)):
                kept.append(listing)
            else:
                first = "the class folders go first" if in_classes else "it is called like no list of labels"
                self.why_not[listing.path] = f"{first}: give its path to use it"
        return kept

    def _is_aside(self, listing: Listing) -> bool:
        """Whether a list lies in another folder and is called like something else, such as what a model predicts."""
        return listing.path.parent.resolve() != self._root.resolve() and not sounds_like_list(listing.path)

    def _numbered(self, listings: list[Listing]) -> list[Listing]:
        """Those of the division that was chosen, where lists say which they are of."""
        numbers = sorted({listing.number for listing in listings if listing.number is not None})
        if len(numbers) < 2 and self._split == 1:
            return listings
        if numbers and self._split not in numbers:
            raise DeltafineError(
                f"{self._root} has no lists for split {self._split}: choose one of {', '.join(map(str, numbers))}."
            )
        for listing in listings:
            if listing.number not in (None, self._split):
                self.why_not[listing.path] = f"it is of another split than {self._split} (--split {listing.number})"
        return [listing for listing in listings if listing.number in (None, self._split)]

    def _one(self, listings: list[Listing], *, refuse: bool = False) -> list[Listing]:
        """The list to use of several: the one of videos that names most of those that are there."""
        if len(listings) < 2:
            return listings
        if refuse and not any(listing.path.stem == "metadata" for listing in listings):
            raise DeltafineError(
                f"{self._root} has several lists of videos with labels "
                f"({some(list_name(listing.path, self._root) for listing in listings)}): give the path of one."
            )
        ranked = sorted(listings, key=self._rank, reverse=True)
        self._leave(ranked[1:], ranked[:1])
        return ranked[:1]

    def _rank(self, listing: Listing) -> tuple[bool, float, bool]:
        there = sum(self._below.has(entry.name) for entry in listing.entries)
        return listing.labelled, there / len(listing.entries), listing.path.stem == "metadata"

    def _leave(self, listings: list[Listing], used: list[Listing]) -> None:
        for listing in listings:
            self.why_not[listing.path] = f"{some(one.path.name for one in used)} is used"

    def _look_up(self, listing: Listing) -> _Used:
        there: list[tuple[Entry, Path]] = []
        missing: list[Path] = []
        lacking: list[str] = []
        for entry in listing.entries:
            path = self._below.find(entry.name, listing.path, entry.split or listing.split)
            if path is None and not Path(entry.name).suffix:  # ids are of collections of which every copy lacks some
                lacking.append(entry.name)
                continue
            if path is None:
                path = expected(self._root, entry.name)
                missing.append(path)
            there.append((entry, path))
        beside = self._lists_in is not None
        problems = note_missing(missing, len(listing.entries), listing.path, self._root, beside=beside)
        problems += [Problem(name, f"is listed in {listing.path.name} but not there", "missing") for name in lacking]
        return _Used(listing, there, problems)

    def _labels_from(self, listings: list[Listing], chosen: list[Listing]) -> dict[Path, str]:
        """Labels for lists that only divide: those of the only other list, or of the class folders."""
        if any(listing.labelled or listing.several for listing in chosen):
            return {}
        others = [listing for listing in listings if listing.labelled and listing not in chosen]
        if len(others) == 1:
            used = self._look_up(others[0])
            self._known.append(others[0].path)
            return {path: entry.label for entry, path in used.there if entry.label is not None}
        try:
            folders = find_class_folders(self._root)
        except DeltafineError:  # of folders called like splits: only the labels are asked for here
            return {}
        if folders is None:
            return {}
        return {video.path: folders.classes[video.label] for video in folders.videos if video.label is not None}

    def _found(self, used: list[_Used], labels: dict[Path, str]) -> Found:
        rows: list[Labelled] = []
        groups: dict[Path, str] = {}
        seen: dict[Path, tuple[str | None, Split | None, str]] = {}
        for one in used:
            for entry, path in one.there:
                label = entry.label if entry.label is not None else labels.get(path)
                if entry.group is not None:
                    groups[path] = entry.group
                split = entry.split or one.listing.split
                before = seen.setdefault(path, (label, split, entry.where))
                if before[0] != label:
                    raise DeltafineError(
                        f"{entry.where} labels {entry.name} '{label}', which is '{before[0]}' in "
                        f"{before[2].rstrip(',')}: a video has one label."
                    )
                if before[2] != entry.where and before[1] == split:
                    continue  # named a second time
                rows.append(Labelled(path, label, entry.target, split))
        class_list, listed = self._class_list()
        classes, numbers, notes, is_used = number_rows(rows, listed)
        if class_list is not None and is_used:
            self._known.append(class_list)
        videos = [
            Video(
                row.path,
                relative_name(row.path, self._root),
                None if row.label is None else numbers.get(row.label),
                row.split or "train",
                group=groups.get(row.path),
            )
            for row in rows
        ]
        names = [one.listing.path for one in used]
        problems = [problem for one in used for problem in one.problems]
        for one in used:
            notes += say_unknown(one.listing.path, one.listing.unknown)
        if any(one.listing.several for one in used):
            notes.append(
                f"Found labels in {some(path.name for path in names)}, not used because a video has several there: "
                "the splits are used, and the videos are without labels. For segments that have one label each, "
                "write a manifest.csv (path, label, start, end)."
            )
        unlisted = len(set(self._below.videos) - set(seen))
        if unlisted:
            verb = "videos are" if unlisted > 1 else "video is"
            notes.append(f"{unlisted} {verb} in none of the lists ({some(path.name for path in names)}), and not used.")
        return Found(
            f"lists {some(list_name(path, self._root) for path in names)}",
            videos,
            classes,
            has_splits=all(row.split for row in rows),
            problems=problems,
            notes=notes,
            lists=names + self._known,
        )

    def _class_list(self) -> tuple[Path | None, tuple[str, ...]]:
        """The first file that lists class names, and these; None and () where there is none."""
        for path in self.candidates:
            names = read_classes(path) if looks_like_classes(path) and not self._names_videos(path) else None
            if names:
                return path, names
        return None, ()

    def _names_videos(self, path: Path) -> bool:
        try:
            return any(self._below.has(entry.name) for entry in read_listing(path, self._below.has).entries)
        except NotAListError:
            return False


class ListedVideos(Layout):
    """Lists of videos, of many kinds.

    Args:
        lists: those of the path, where somebody wants to know afterwards why some were not used.
    """

    name = "lists"
    of_files = True

    def __init__(self, lists: Lists | None = None) -> None:
        self._lists = lists

    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        lists = self._lists or Lists(path, split=options.split, allow_outside=options.allow_outside)
        return lists.find()
