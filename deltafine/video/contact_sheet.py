"""A picture of what a dataset holds: a few videos of every class, a few frames of each."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deltafine.errors import DeltafineError
from deltafine.storage.files import write_atomically
from deltafine.video.catalogue import Video
from deltafine.video.conversion import Converter
from deltafine.video.finding import as_text
from deltafine.video.frames import UnreadableVideo, read_frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deltafine.video.dataset import Dataset

FRAMES = 6
HEIGHT, WIDTH = 72, 96
MOST_ROWS = 60
ROWS_PER_CLASS = 2
UNLABELLED_ROWS = 12

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ data.path.name }}: contact sheet</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem auto; max-width: 60rem; padding: 0 1rem }
img { max-width: 100%; height: auto } td, th { text-align: left; padding: .2rem 1rem .2rem 0 }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } }
</style>
<h1>{{ data.path.name }}</h1><p>{{ data.summary() }}</p>
<img src="data:image/png;base64,{{ picture }}" alt="A row of frames for each of {{ rows }} videos, named on the left">
{% if data.problems %}<h2>Not used</h2><table><tr><th>video</th><th>reason</th></tr>
{% for problem in data.problems %}<tr><td>{{ problem.video }}</td><td>{{ problem.reason }}</td></tr>
{% endfor %}</table>{% endif %}
</html>
"""


def write_contact_sheet(data: Dataset, path: Path) -> None:
    """Write a contact sheet as a picture (.png) or a page that needs no other file (.html).

    Args:
        data: The dataset.
        path: What to write, replaced when it is there.

    Raises:
        DeltafineError: The suffix is another, the file cannot be written, or no video can be used.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", ".html"):
        raise DeltafineError(f"A contact sheet cannot be written as '{path.name}': end it in .png or .html.")
    rows = _rows(data)
    if not rows:
        raise DeltafineError(f"No video in {data.path} can be used, so there is nothing to put on a contact sheet.")
    buffer = BytesIO()
    title = None if suffix == ".html" else data.summary()  # the page says it above the picture
    _draw(data, rows, title).savefig(buffer, format="png", metadata={"Software": None})
    content = buffer.getvalue()
    if suffix == ".html":
        import jinja2

        page = jinja2.Environment(autoescape=True).from_string(_PAGE)
        picture = base64.b64encode(content).decode()
        content = page.render(data=data, picture=picture, rows=len(rows)).encode("utf-8", "replace")
    write_atomically(path, content)


def _rows(data: Dataset) -> list[tuple[Video, np.ndarray]]:
    """Videos with the frames (up to FRAMES, HEIGHT, WIDTH, 3) that are shown of them, in their own proportions."""
    chosen: list[Video] = []
    for label in [*range(len(data.classes)), None]:
        usable = [v for v in data.videos if v.label == label and data.index(v) is not None]
        most = min(ROWS_PER_CLASS if label is not None else UNLABELLED_ROWS, len(usable))
        places = np.unique(np.linspace(0, len(usable) - 1, most).round().astype(int))
        chosen += [usable[place] for place in places]
    rows = []
    for video in chosen[:MOST_ROWS]:
        numbers = data.examination.frame_numbers(video)
        if not len(numbers):
            continue
        shown = np.unique(numbers[np.linspace(0, len(numbers) - 1, FRAMES).round().astype(int)])
        source, index = data.examination.source(video)
        share = min(HEIGHT / index.height, WIDTH / index.width)
        size = (max(1, round(share * index.height)), max(1, round(share * index.width)))
        try:
            frames = read_frames(
                source, index, shown.tolist(), Converter(size, 3, data.examination.depth), data.examination.limits
            )
        except UnreadableVideo as error:
            data.examination.note_problem(video, str(error))
            continue
        (above, below), (left, right) = ((free // 2, free - free // 2) for free in (HEIGHT - size[0], WIDTH - size[1]))
        frames = np.pad(frames, ((0, 0), (above, below), (left, right), (0, 0)), constant_values=255)
        rows.append((video, frames))
    return rows


def _draw(data: Dataset, rows: list[tuple[Video, np.ndarray]], title: str | None) -> Figure:
    from matplotlib.figure import Figure  # takes a second to load, and nothing else here needs it

    above = 0.5 if title else 0.1
    figure = Figure(figsize=(10, 0.95 * len(rows) + above), dpi=110)
    if title:
        figure.suptitle(title, fontsize=9, parse_math=False)
    left, top, bottom = 0.28, 1 - above / figure.get_figheight(), 0.02
    height = (top - bottom) / len(rows)
    for row, (video, frames) in enumerate(rows):
        base = top - (row + 1) * height
        strip = np.concatenate([np.pad(frame, ((0, 0), (0, 2), (0, 0)), constant_values=255) for frame in frames], 1)
        share = len(frames) / FRAMES
        axes = figure.add_axes((left, base + 0.06 * height, (0.98 - left) * share, 0.88 * height))
        axes.imshow(strip, aspect="auto")
        axes.axis("off")
        name = as_text(data.classes[video.label]) if video.label is not None else ""
        label = f"{name}\n{_shortened(video.name)}\n{video.split}".strip()
        figure.text(0.01, base + height / 2, label, fontsize=7, va="center", parse_math=False)
    return figure


def _shortened(name: str, most: int = 40) -> str:
    clean = as_text(name)
    return clean if len(clean) <= most else "…" + clean[1 - most :]
