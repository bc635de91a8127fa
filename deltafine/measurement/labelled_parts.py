"""Labels for the outputs of a model that has several: columns of the list of frames that are called as outputs are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.measurement.output import Output
from deltafine.measurement.parts import OutputPart, PartLabels, listed
from deltafine.video import Dataset
from deltafine.video.catalogue import FrameColumns
from deltafine.video.examination import count_of
from deltafine.video.labels import numbers_of
from deltafine.video.layouts.common import MOST_CLASSES, number_classes, some, whole_number
from deltafine.video.layouts.tables import plain


def columns_for(parts: Sequence[OutputPart], *measured: Dataset) -> list[str]:
    """The outputs for which any of the data sets has a column with anything in it."""
    found = []
    for part in parts:
        name = plain(part.name)
        if any(any(columns.cells(name)) for columns in _tables(measured) if name in columns.names):
            found.append(part.name)
    return found


def read_columns(output: Output, data: Dataset, streams: Dataset, *, as_numbers: bool) -> Output:
    """How the answers of several outputs are read, with the labels of those that have some.

    The data sets then have these labels: each is a row, see ``Output.truth``.

    Args:
        output: with the parts of the model.
        data: what is trained and validated on.
        streams: what is measured on; the same, or other videos, whose rows come after those of the data.
        as_numbers: whether labels 0 and 1 of a single number are numbers, and no classes.

    Raises:
        DeltafineError: the labels of an output are none that it could give.
    """
    sets = [data] if streams is data else [data, streams]
    tables = _tables(sets)
    count = sum(len(table.rows) for table in tables)
    labelled = set(columns_for(output.parts, *sets))
    parts, truth = [], np.full((count, len(output.parts)), math.nan)
    for place, part in enumerate(output.parts):
        if part.name not in labelled:
            parts.append(part)
            continue
        name = plain(part.name)
        cells = [cell for table in tables for cell in (table.cells(name) if name in table.names else _nothing(table))]
        of_part, truth[:, place] = _read(part, cells, tables[0].listing, as_numbers)
        parts.append(replace(part, labels=of_part))
    first = 0
    for one in sets:
        one.label_outputs(_outputs_of(output.parts, labelled, one.columns), first, count)
        first += 0 if one.columns is None else len(one.columns.rows)
        _refuse_two_labels(one, truth)
    return replace(output, parts=tuple(parts), truth=truth)


def _refuse_two_labels(data: Dataset, truth: np.ndarray) -> None:
    """Raise where a list has the same pictures twice, with other labels."""
    seen: dict[object, int] = {}
    for video in data.videos:
        if video.label is not None and video.frame_labels is None:
            extent = (video.start, video.end, video.start_frame, video.end_frame)
            before = seen.setdefault((video.source, extent), video.label)
            if not np.array_equal(truth[before], truth[video.label], equal_nan=True):
                raise DeltafineError(
                    f"The labels of {data.path} have {video.name} twice, with other labels of an output: correct them."
                )


def labels_found(parts: Sequence[OutputPart]) -> str:
    """One sentence: which outputs have labels, and of which kind; empty where none has."""
    kinds = []
    for part in parts:
        if part.labels is not None:
            classes = part.labels.classes
            kinds.append(f"'{part.name}' ({count_of(classes, 'class', 'classes') if classes else 'numbers'})")
    return f"Outputs with labels: {', '.join(kinds)}." if kinds else ""


def say_columns(output: Output, *measured: Dataset) -> list[str]:
    """What the user should know: which outputs have no labels, and which columns are not used."""
    labelled, said = output.truth is not None, []
    others = [part for part in output.parts if part.labels is None] if labelled else []
    if others:
        verb = "has" if len(others) == 1 else "have"
        said.append(f"{listed(others)} {verb} no labels, and the answers of the original are followed instead.")
    for data in measured:
        table, further = data.columns, data.further
        if table is None or not (labelled or (further is not None and not further.constant)):
            continue
        used = {plain(part.name) for part in output.parts} if labelled else {table.names[-1]}
        used |= set() if further is None else {plain(one.column) for one in further.wanted}
        unused = [name for name in table.names if name and name not in used]
        if unused:
            what, verb = ("column", "is") if len(unused) == 1 else ("columns", "are")
            named = some([f"'{name}'" for name in unused], most=8)
            said.append(f"{table.listing} has the {what} {named}, which {verb} not used.")
    return list(dict.fromkeys(said))


def _outputs_of(parts: Sequence[OutputPart], labelled: set[str], columns: FrameColumns | None) -> tuple[str, ...]:
    names = () if columns is None else columns.names
    return tuple(part.name for part in parts if part.name in labelled and plain(part.name) in names)


def _tables(measured: Sequence[Dataset]) -> list[FrameColumns]:
    return [data.columns for data in measured if data.columns is not None]


def _nothing(table: FrameColumns) -> list[str]:
    return [""] * len(table.rows)


def _read(part: OutputPart, cells: Sequence[str], listing: str, as_numbers: bool) -> tuple[PartLabels, np.ndarray]:
    """What the labels of an output are, and (cells,) float64 what each stands for, NaN where there is none."""
    there = number_classes(cell for cell in cells if cell)
    where = f"The column '{plain(part.name)}' of {listing}"
    if len(part.shape) != 1:
        raise DeltafineError(
            f"{where} has one label per frame, and the output '{part.name}' gives {part.shape}: call the column "
            "otherwise, or use --task distill."
        )
    size, numbers = part.size, numbers_of(there)
    if numbers and not all(map(math.isfinite, numbers)):
        raise DeltafineError(f"{where} has numbers that are not finite: correct them.")
    if size == 1 and numbers:
        both = set(numbers) <= {0.0, 1.0} and not as_numbers
        return PartLabels(2, certain=False) if both else PartLabels(), _valued(
            cells, dict(zip(there, numbers, strict=True))
        )
    if as_numbers:
        raise DeltafineError(
            f"{where} is no number for an output '{part.name}' of {count_of(size, 'number')}: leave --task out if it "
            "has classes, or use --task distill."
        )
    count = 2 if size == 1 else size
    whole = [whole_number(name, MOST_CLASSES) for name in there]
    if all(number is not None for number in whole):
        classes = {name: float(number) for name, number in zip(there, whole, strict=True) if number is not None}
        fits = max(classes.values()) < count
    else:
        classes = {name: float(number) for number, name in enumerate(there)}
        fits = not numbers and len(there) == count
    if not fits:
        raise DeltafineError(
            f"{where} has the labels {some(there, most=5)}, and the output '{part.name}' gives "
            f"{count_of(size, 'score')}: write the numbers of the classes, from 0 to {count - 1}, or use --task "
            "distill."
        )
    return PartLabels(count), _valued(cells, classes)


def _valued(cells: Sequence[str], values: dict[str, float]) -> np.ndarray:
    return np.array([values.get(cell, math.nan) for cell in cells], np.float64)
