"""What a layout is: one class that finds the videos at a path, their labels and their splits.

``deltafine.video.layouts.LAYOUTS`` holds those that there are, in the order in which they are tried. CONTRIBUTING.md
has a worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from deltafine.video.catalogue import Found


@dataclass(frozen=True)
class LayoutOptions:
    """How a path is to be read.

    Attributes:
        split: which of several divisions into training and validation to use, from 1.
        allow_outside: let lists name files outside the data folder.
        classes: those that the user has named, so that a folder called like a split can be one; None if none.
    """

    split: int = 1
    allow_outside: bool = False
    classes: tuple[str, ...] | None = None


class Layout(ABC):
    """A way in which a data set lies on disk."""

    name: ClassVar[str]
    """As it is chosen, such as ``ucf101``."""
    of_files: ClassVar[bool] = False
    """Whether the path may be a file; else it is a folder."""

    @abstractmethod
    def find(self, path: Path, options: LayoutOptions) -> Found | None:
        """The videos at a path; nothing is decoded.

        Returns:
            None where the path does not have this layout, so that the next one is tried.

        Raises:
            DeltafineError: it has this layout, and something is wrong in it, such as a list of videos that are missing.
        """
