"""Whom it hurts: quality and cost by recording, by video and by class, and which classes are taken for which."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deltafine.document.report import ClassFigures, Figures, Report, VideoFigures
from deltafine.report.figure_table import FigureTable
from deltafine.report.quantities import figures_of, subject
from deltafine.report.text import ABSENT, counted, points, share

Judged = Literal["accuracy", "error", "fidelity"]

FEW_VIDEOS = 10
"""Below this a bootstrap over recordings says little."""
HURT = 0.05
"""A part that loses so much accuracy more than all together is named in a warning."""
FEWEST = 30
"""Labelled frames of which a part must have more."""
SHORT = 100
"""Frames of a short video."""


@dataclass(frozen=True)
class Part:
    """A recording, a video or a class: the subject model beside the original, which may not have been measured.

    Attributes:
        weight: frames, or answers with a label.
    """

    name: str
    weight: int
    before: float | None
    after: float | None
    mac_density: float | None = None

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before


def judged_by(report: Report) -> Judged | None:
    """What videos are judged by; None where their figures were not measured, or nothing can be judged."""
    by_video = figures_of(report, subject(report), "streams").by_video
    if any(one.accuracy is not None for one in by_video):
        return "accuracy"
    if any(one.error is not None for one in by_video):
        return "error"
    alone = subject(report) == "original"
    return "fidelity" if not alone and any(one.fidelity is not None for one in by_video) else None


def videos(report: Report) -> list[Part]:
    """Each video, the one that loses most first."""
    judged = judged_by(report)
    if judged is None:
        return []
    beside = _original(report)
    original = {} if beside is None else {one.video: one for one in beside.by_video}
    found = [
        Part(
            one.video,
            one.labelled or one.frames,
            getattr(original[one.video], judged) if one.video in original else None,
            getattr(one, judged),
            one.mac_density,
        )
        for one in figures_of(report, subject(report), "streams").by_video
    ]
    return _worst_first(found, judged)


def recordings(report: Report) -> list[Part]:
    """Each recording, the one that loses most first; empty where every video is one, or all are one."""
    judged = judged_by(report)
    by_recording = _grouped(figures_of(report, subject(report), "streams").by_video)
    if judged is None or not 1 < len(by_recording) < sum(map(len, by_recording.values())):
        return []
    beside = _original(report)
    original = {} if beside is None else _grouped(beside.by_video)
    found = [
        Part(
            name,
            sum(one.labelled or one.frames for one in own),
            _mean(original.get(name, ()), judged),
            _mean(own, judged),
            _mean(own, "mac_density"),
        )
        for name, own in by_recording.items()
    ]
    return _worst_first(found, judged)


def classes(report: Report) -> list[Part]:
    """Each class that has labels, in the order of the labels: the share of what is of it that is answered right."""
    beside = _original(report)
    original = {} if beside is None else {one.label: one for one in beside.by_class}
    return [
        Part(class_name(report, one.label), one.labelled, _right(original.get(one.label)), _right(one))
        for one in figures_of(report, subject(report), "streams").by_class
        if one.labelled
    ]


def class_name(report: Report, label: int) -> str:
    """Of a label, or an answer."""
    data = report.stream_data if report.stream_data and not report.data.classes else report.data
    return data.classes[label] if label < len(data.classes) else f"class {label}"


def listings(report: Report, most: int) -> list[FigureTable]:
    """The tables; with no more lines than asked for, the worst. Of outputs, all are shown."""
    judged = judged_by(report)
    found = [_outputs(report)]
    if judged is not None:
        for parts, things in ((recordings(report), "recordings"), (videos(report), "videos")):
            of = f"The {most} worst of {len(parts)} {things}" if len(parts) > most else f"All {len(parts)} {things}"
            found.append(_listing(f"{of} (streams)", things[:-1], parts[:most], judged, report))
    frequent = sorted(classes(report), key=lambda part: -part.weight)
    if len(frequent) > most:
        frequent = _worst_first(frequent, "accuracy")[:most]
    found.append(_listing("By class: answered right of what is of it (streams)", "class", frequent, "right", report))
    found.append(_confused(report, most))
    return [one for one in found if one.lines]


def cautions_of_parts(report: Report) -> Iterator[str]:
    """Whom the mean hides, and what so few or such short videos cannot tell."""
    figures = figures_of(report, subject(report), "streams")
    yield from _doubtful_intervals(figures)
    change = figures.accuracy_change
    if change is not None:
        by_recording = recordings(report) or (videos(report) if figures.recordings != 1 else [])
        for thing, parts in (("recording", by_recording), ("class", _worst_first(classes(report), "accuracy"))):
            for part in parts[:1]:
                if part.change is not None and _is_hurt(part, part.change, change.value):
                    yield (
                        f"The {thing} '{part.name}' loses {points(-part.change).lstrip('+')} points of accuracy "
                        f"({share(part.before or 0)} to {share(part.after or 0)}), all together {points(change.value)}."
                    )
    lengths = [one.frames for one in figures.by_video if one.labelled]
    if lengths and not any(one.label_changes for one in figures.by_video) and statistics.median(lengths) < SHORT:
        pieces = ""
        if figures.recordings is not None and figures.recordings < figures.videos:
            pieces = f", which are pieces of {counted(figures.recordings, 'recording')},"
        yield (
            f"Short videos{pieces} are measured as streams of their own: half have at most "
            f"{statistics.median(lengths):.0f} frames, and the label never changes in one. Each begins with a full "
            "update, which flatters; --streams measures on whole recordings."
        )


def _doubtful_intervals(figures: Figures) -> Iterator[str]:
    pieces = figures.recordings is not None and figures.recordings < figures.videos
    if figures.recordings == 1:
        what = f"All {figures.videos} videos are of one recording" if pieces else "Only 1 video measured"
        yield f"{what}: nothing tells how it is on others, and no intervals are given."
    elif pieces and figures.recordings is not None and figures.recordings < FEW_VIDEOS:
        yield (
            f"The {figures.videos} videos are of {figures.recordings} recordings only, over which intervals are "
            "drawn: these are rough."
        )
    elif figures.videos < FEW_VIDEOS:
        yield f"Only {counted(figures.videos, 'video')} measured: the intervals are rough."


def _is_hurt(part: Part, change: float, all_together: float) -> bool:
    return part.weight > FEWEST and change <= -HURT and change <= all_together - HURT


def _original(report: Report) -> Figures | None:
    """Of the original beside the subject; None where the subject is alone."""
    measured = "original" in report.models and subject(report) != "original"
    return report.models["original"].streams if measured else None


def _worst_first(parts: Sequence[Part], judged: str) -> list[Part]:
    sign = -1 if judged == "error" else 1

    def worst(part: Part) -> tuple[bool, float]:
        figure = part.after if part.change is None or judged == "fidelity" else part.change
        return (True, 0.0) if figure is None or math.isnan(figure) else (False, sign * figure)

    return sorted(parts, key=worst)


def _grouped(by_video: Sequence[VideoFigures]) -> Mapping[str, list[VideoFigures]]:
    found: dict[str, list[VideoFigures]] = {}
    for one in by_video:
        found.setdefault(one.recording, []).append(one)
    return found


def _mean(of: Sequence[VideoFigures], figure: str) -> float | None:
    """Over answers; of errors the root mean square."""
    pairs = [
        (value, one.labelled if figure == "accuracy" or one.labelled else one.frames)
        for one in of
        if (value := getattr(one, figure)) is not None
    ]
    weight = sum(of_video for _, of_video in pairs)
    if not weight:
        return None
    if figure == "error":
        return math.sqrt(sum(value * value * of_video for value, of_video in pairs) / weight)
    return sum(value * of_video for value, of_video in pairs) / weight


def _right(one: ClassFigures | None) -> float | None:
    return one.right / one.labelled if one is not None and one.labelled else None


def _listing(title: str, thing: str, parts: Sequence[Part], what: str, report: Report) -> FigureTable:
    """The columns that have anything in them, but for the name and the frames."""
    model = subject(report)
    in_points = what != "error"
    columns: list[tuple[str, Callable[[Part], float | None], Callable[[float], str]]] = [
        ("original", lambda part: part.before, share),
        (model, lambda part: part.after, share),
        ("points" if in_points else "change", lambda part: part.change, points if in_points else _signed),
        ("MACs", lambda part: part.mac_density, share),
    ]
    if what == "fidelity":  # that of the original to itself says nothing
        columns = [columns[1], columns[3]]
    columns = [one for one in columns if any(one[1](part) is not None for part in parts)]
    lines, values = [], []
    for part in parts:
        read = [read(part) for _, read, _ in columns]
        cells = (ABSENT if value is None else shown(value) for value, (_, _, shown) in zip(read, columns, strict=True))
        lines.append((part.name, str(part.weight), *cells))
        values.append((float(part.weight), *read))
    title = title if what == "right" else f"{title}: {what}"
    return FigureTable(title, (thing, "frames", *(heading for heading, _, _ in columns)), lines, 1, values)


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{share(abs(value))}"


OF_OUTPUTS = (
    ("error", "relative_error", False),
    ("same class", "fidelity", False),
    ("error to labels", "label_error", True),
    ("right class", "accuracy", True),
)
"""Figures of an output: what they are called, and whether they say anything of the original."""


def _outputs(report: Report) -> FigureTable:
    """Of a model with several outputs: how far each is from the original's, in every model that has an original; and
    from its labels, where it has some."""
    given = {name: {one.name: one for one in measured.streams.outputs} for name, measured in report.models.items()}
    measured = [outputs for name, outputs in given.items() if outputs and name != "original"]
    weighted = any(one.weight != 1 for outputs in measured for one in outputs.values())
    columns = [
        (f"{model}: {what}", name, outputs)
        for what, name, of_original in OF_OUTPUTS
        for model, outputs in given.items()
        if (of_original or model != "original") and any(getattr(one, name) is not None for one in outputs.values())
    ]
    if all(name == "relative_error" for _, name, _ in columns):
        columns = [(heading.partition(":")[0], name, outputs) for heading, name, outputs in columns]
    lines, values = [], []
    for output in measured[0].values() if measured else ():
        read = [getattr(outputs[output.name], name) for _, name, outputs in columns]
        weight = (f"{output.weight:g}",) if weighted else ()
        shape = "x".join(map(str, output.shape))
        lines.append((output.name, shape, *weight, *(ABSENT if value is None else share(value) for value in read)))
        values.append((float(math.prod(output.shape)), *([output.weight] if weighted else []), *read))
    headings = [heading for heading, _, _ in columns]
    title = "By output: error in units of its own spread (streams)"
    return FigureTable(title, ("output", "shape", *(["weight"] if weighted else []), *headings), lines, 1, values)


def _confused(report: Report, most: int) -> FigureTable:
    figures, original = figures_of(report, subject(report), "streams"), _original(report)
    labelled = {one.label: one.labelled for one in figures.by_class}
    before = {(one.label, one.answer): one.count for one in original.confused} if original else {}
    lines, values = [], []
    for one in figures.confused[:most]:
        part = one.count / labelled[one.label] if labelled.get(one.label) else None
        first: list[int] = [before.get((one.label, one.answer), 0)] if original else []
        names = (class_name(report, one.label), class_name(report, one.answer))
        lines.append((*names, *map(str, first), str(one.count), ABSENT if part is None else share(part)))
        values.append((*map(float, first), float(one.count), part))
    headings = ("class", "taken for", *(["original"] if original else []), subject(report), "of the class")
    return FigureTable("Which classes are taken for which (streams)", headings, lines, 2, values)
