"""`deltafine data`: what a path holds, as deltafine would use it. Never loads TensorFlow."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.options import takes_settings
from deltafine.errors import DeltafineError

if TYPE_CHECKING:
    from rich.console import Console

    from deltafine.video import Dataset


@takes_settings("data", without_default=["max_bad_videos"])
def data(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder of videos, a list, HDF5, or a video.")],
    sheet: Annotated[
        list[Path] | None, typer.Option("--sheet", metavar="FILE", help="Write a contact sheet, .png or .html.")
    ] = None,
    **settings: Any,
) -> None:
    """Show what was found: layout, classes, counts, durations, sizes and problems."""
    from rich.console import Console

    from deltafine.cli.console import Talk
    from deltafine.jobs.opened_videos import how_to_open
    from deltafine.settings import checked
    from deltafine.video import open_dataset

    if any(path.suffix.lower() not in (".png", ".html") for path in sheet or ()):
        raise DeltafineError("A contact sheet is written as .png or .html: name the file so.")
    given = checked(**settings)
    found = open_dataset(data, **how_to_open(given))
    console = Console()
    with Talk(aside=True) as talk:
        read = functools.partial(talk.progress, "reading through the videos")
        found.scan(progress=read, within=read)
    _show(found, console)
    if sheet:
        from deltafine.video.contact_sheet import write_contact_sheet

        for path in sheet:
            write_contact_sheet(found, path)
            console.print(f"Contact sheet: {path}", markup=False, highlight=False, soft_wrap=True)
    if (tolerated := given.get("max_bad_videos")) is not None:
        found.check(tolerated)


def _show(found: Dataset, console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from deltafine.report.folding import add_figures, add_names, print_table, table
    from deltafine.video.catalogue import SPLITS
    from deltafine.video.dataset_overview import overview
    from deltafine.video.finding import as_text

    whole = not console.is_terminal  # whoever searches the output finds a file's name and reason in one line
    console.print(Text(found.summary()), soft_wrap=whole)
    for note in found.notes:
        console.print(Text(as_text(note)), soft_wrap=whole)
    facts = overview(found)
    splits = [split for split in SPLITS if split != "test" or found.select(split)]
    if facts.classes:
        made = table(console)
        add_names(made, "class")
        add_figures(made, *splits, "frames", "seconds")
        for row in facts.classes:
            numbers = (*(getattr(row, split) for split in splits), row.frames, f"{row.seconds:.1f}")
            made.add_row(Text(as_text(row.name)), *map(str, numbers))
        console.print()
        print_table(made, console)
    console.print()
    for line in facts.lines:
        console.print(Text(line), soft_wrap=whole)
    for title, wanted in (("Not used", False), ("Used in part", True)):
        problems = [problem for problem in found.problems if (problem.kind == "cut") == wanted]
        if problems:
            console.print(Text(f"\n{title}: {len(problems)}"))
        for problem in problems:
            reason = Text(f"{as_text(problem.video)} {problem.reason}")
            console.print(Text("  ") + reason if whole else Padding(reason, (0, 0, 0, 2)), soft_wrap=whole)
