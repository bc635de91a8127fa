"""Pictures of where events happen."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from deltafine.jobs.pictures import draw
from deltafine.measurement.event_maps import EventMap


def pixels(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGBA")).astype(int)


def maps(changed: float, name: str = "conv") -> list[EventMap]:
    share = np.zeros((8, 12, 16), np.float32)
    share[:, 3:6, 4:8] = changed
    return [EventMap(name, share)]


FRAMES = np.full((8, 48, 64, 3), 100, np.uint8)


def test_what_changed_glows_and_what_did_not_is_grey() -> None:
    def glowing(png: bytes) -> int:
        red, _, blue, alpha = np.moveaxis(pixels(png), -1, 0)
        return int(((red - blue > 60) & (alpha > 200)).sum())

    quiet, busy = draw(FRAMES, {"original": maps(0)}), draw(FRAMES, {"original": maps(0.3)})
    assert glowing(quiet) == 0
    assert glowing(busy) > 500


def test_each_model_has_its_columns_and_each_layer_its_row() -> None:
    one = pixels(draw(FRAMES, {"original": maps(1)}))
    two = pixels(draw(FRAMES, {"original": maps(1), "refined": maps(0.1)}))
    tall = pixels(draw(FRAMES, {"original": [*maps(1), *maps(1, "other")]}))
    assert two.shape[1] > 1.5 * one.shape[1]
    assert tall.shape[0] > 1.3 * one.shape[0]


def test_a_picture_of_a_deep_model_shows_some_layers_and_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 224, 224, 3)).astype(np.uint8)
    layers = [EventMap(f"block{n}/{'long_name' * 4}", np.random.default_rng(n).random((8, 56, 56))) for n in range(53)]
    png = draw(noise, {"original": layers, "refined": layers})
    assert len(png) < 500_000
    assert pixels(png).shape[0] < 1200


def test_grey_frames_and_short_clips_can_be_drawn() -> None:
    share = np.ones((2, 4, 4), np.float32)
    assert pixels(draw(FRAMES[:2, ..., :1], {"original": [EventMap("$x^2$ \x1b", share)]})).size
