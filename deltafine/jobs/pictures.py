"""Pictures of where events happen: frames of a few clips, and below them a heat map of layer after layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from deltafine.document.report import Picture
from deltafine.report.text import clean, share

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from deltafine.measurement.event_maps import EventMap
    from deltafine.video import Dataset

CLIPS = 4
FRAMES_SHOWN = 3
LAYERS_SHOWN = 6
TILE = 1.25  # inches, the width of a frame
MARGIN, HEADER, GAP = 1.75, 0.36, 0.15
DOTS_PER_INCH = 96
COLOURS = 128
"""In the palette of a picture: more are hard to tell apart and make it twice as large."""
GREY = "#7d8590"
"""Of the writing: legible on the light and on the dark page; a picture has no background of its own."""


def draw_pictures(models: Mapping[str, keras.Model], data: Dataset, *, frames: int) -> list[tuple[Picture, bytes]]:
    """Pictures of a few validation clips, spread over the data.

    Args:
        models: clip models by name, side by side in each picture; the layers are those of the last.
        data: their validation videos.
        frames: length of the clips, at least 2.

    Returns:
        Each picture with its PNG; none where no layer's input has height and width.
    """
    from deltafine.measurement.event_maps import event_maps
    from deltafine.model.further_inputs import picture_shape

    found: list[tuple[Picture, bytes]] = []
    shape = picture_shape(next(iter(models.values())))
    for video, clip in _clips(data, shape, frames):
        maps = {name: event_maps(model, clip) for name, model in models.items()}
        if not all(maps.values()):
            return []
        picture = Picture(
            file=f"events-{len(found) + 1}.png",
            video=clean(video),
            caption=(
                f"Frames of one clip ({', '.join(clean(name) for name in maps)}), and below where the inputs of layers "
                "changed since the frame before: the brighter, the more channels. In percent: positions that changed."
            ),
        )
        found.append((picture, draw(clip[:, : shape[0]], maps)))  # without the lines of further values
    return found


def _clips(data: Dataset, shape: tuple[int, ...], frames: int) -> Iterator[tuple[str, np.ndarray]]:
    """The middle clip of a few videos: names and frames (time, height, width, channels)."""
    height, width, channels = shape
    settings: dict[str, Any] = {
        "frames": frames,
        "size": (height, width),
        "channels": channels,
        "batch": 1,
        "clips_per_video": 1,
    }
    total = len(data.clips("validation", **settings))
    for number in sorted({round(place) for place in np.linspace(0, total - 1, min(CLIPS, total))}):
        batch = next(iter(data.clips("validation", start_batch=number, **settings)), None)
        if batch is None:
            continue  # it became unreadable, which the data has noted
        yield data.videos[int(batch.videos[0])].name, batch.frames[0]


def draw(frames: np.ndarray, maps: Mapping[str, Sequence[EventMap]]) -> bytes:
    """One picture as PNG.

    Args:
        frames: (time, height, width, 1 or 3), 0 to 255.
        maps: the event maps of each model on these frames.
    """
    from PIL import Image  # comes with matplotlib

    buffer = BytesIO()
    figure = _figure(frames, maps)
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, transparent=True)
    with Image.open(buffer) as drawn:
        small = BytesIO()
        drawn.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(small, "png", optimize=True)
    return small.getvalue()


def _figure(frames: np.ndarray, maps: Mapping[str, Sequence[EventMap]]) -> Figure:
    from matplotlib.figure import Figure  # takes a second to load

    time, height, width, _ = frames.shape
    shown = sorted({round(place) for place in np.linspace(1, time - 1, FRAMES_SHOWN)})
    layers = _chosen([of_layer.layer for of_layer in list(maps.values())[-1]])
    tile_height = TILE * height / width
    block = len(shown) * TILE
    size = (MARGIN + len(maps) * (block + GAP), HEADER + (1 + len(layers)) * (tile_height + 0.06))
    figure = Figure(figsize=size)
    inches = figure.add_axes((0, 0, 1, 1))  # one for all tiles: each takes longer to make than its tile to draw
    inches.set(xlim=(0, size[0]), ylim=(0, size[1]))
    inches.axis("off")

    def place(column: float, row: int, picture: np.ndarray) -> None:
        bottom = size[1] - HEADER - (row + 1) * (tile_height + 0.06)
        extent = (column, column + TILE - 0.04, bottom, bottom + tile_height)
        inches.imshow(picture, interpolation="nearest", aspect="auto", extent=extent)

    def write(x: float, row: float, text: str, **style: Any) -> None:
        y = size[1] - HEADER - row * (tile_height + 0.06)
        figure.text(x / size[0], y / size[1], text, color=GREY, parse_math=False, va="center", **style)

    for index, (model, of_model) in enumerate(maps.items()):
        left = MARGIN + index * (block + GAP)
        write(left, -HEADER / 2 / (tile_height + 0.06), model, fontsize=12, fontweight="bold")
        by_layer = {of_layer.layer: of_layer for of_layer in of_model}
        for column, frame in enumerate(shown):
            across = left + column * TILE
            place(across, 0, np.repeat(frames[frame], 3 // frames.shape[-1], axis=-1))
            for row, layer in enumerate(layers, start=1):
                if layer in by_layer:
                    place(across, row, _blended(frames[frame], by_layer[layer].share[frame]))
    write(0.02, 0.5, "frames", fontsize=11)
    for row, layer in enumerate(layers, start=1):
        write(0.02, row + 0.36, _shortened(layer), fontsize=11)
        of_models = [one.share for of_model in maps.values() for one in of_model if one.layer == layer]
        changed = " → ".join(share(float((changed[shown] > 0).mean())) for changed in of_models)
        write(0.02, row + 0.68, changed, fontsize=10)
    return figure


def _chosen(layers: Sequence[str]) -> list[str]:
    """A few of the layers, from the first to the last."""
    places = np.linspace(0, len(layers) - 1, min(LAYERS_SHOWN, len(layers)))
    return list(dict.fromkeys(layers[round(place)] for place in places))


def _blended(frame: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """The heat map over a dim grey frame, (height, width, 3) from 0 to 1; ``changed`` is of any size."""
    from matplotlib import colormaps

    rows = np.arange(frame.shape[0]) * changed.shape[0] // frame.shape[0]
    columns = np.arange(frame.shape[1]) * changed.shape[1] // frame.shape[1]
    heat = np.sqrt(changed[rows][:, columns])[..., None]  # a few channels of many are to be seen as well
    grey = 0.3 * frame.mean(axis=-1, keepdims=True) / 255
    hot = colormaps["inferno"](0.45 + 0.5 * heat[..., 0])[..., :3]
    visible = np.where(heat > 0, 0.35 + 0.65 * heat, 0)
    blended: np.ndarray = grey * (1 - visible) + hot * visible
    return blended


def _shortened(name: str, most: int = 22) -> str:
    name = clean(name)
    return name if len(name) <= most else "…" + name[1 - most :]
