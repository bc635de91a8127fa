"""What a plain smaller network and 8 bits would reach instead: accuracy on streams beside MACs.

    python -m tests.benchmarks.method.smaller_network model.keras videos/ streams/ --width 0.25 --seeds 2

The smaller network has a share of the filters of each convolution. It is trained from scratch on the training clips, on
the probabilities that the model gives and on the labels, half each. The model in 8 bits is quantised after its training
by ONNX Runtime, on training frames. Both run on every frame. The model must be a chain of layers that ends in softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import typer

from deltafine import open_dataset
from deltafine.jobs.int8_runtimes import int8_runtimes
from deltafine.model import load
from deltafine.model.macs import mac_layers

FRAMES, BATCH, LEARNING_RATE = 8, 128, 2e-3


def main(
    model: Path,
    data: Path,
    streams: Path,
    width: Annotated[float, typer.Option(help="Share of the filters.")] = 0.25,
    epochs: Annotated[int, typer.Option()] = 20,
    seeds: Annotated[int, typer.Option()] = 2,
) -> None:
    """Print a line for the model, for the model in 8 bits, and for each smaller network."""
    original = load(model)
    height, width_, channels = original.input_shape[1:]
    how: dict[str, Any] = {"size": (height, width_), "channels": channels}
    opened = open_dataset(data)
    clips = list(opened.clips("train", frames=FRAMES, **how))
    frames = np.concatenate([clip.frames.reshape(-1, height, width_, channels) for clip in clips])
    labels = np.concatenate([np.repeat(clip.labels, FRAMES) for clip in clips])
    streamed = list(_streams(open_dataset(streams, validation=1.0, classes=list(opened.classes)), how))

    def shown(name: str, answers: Callable[[np.ndarray], np.ndarray], macs: int) -> None:
        right = [(answers(pictures).argmax(-1) == known)[known >= 0] for pictures, known in streamed]
        accuracy = float(np.concatenate(right).mean())
        print(f"{name}: {accuracy:.1%} at {macs / dense:.4f} of the MACs", flush=True)

    dense = _macs(original)
    shown("original", _predicting(original), dense)
    found, missing = int8_runtimes(original, 1, [frame.astype(np.float32) for frame in frames[:: len(frames) // 256]])
    for name, run in found.items():
        shown(name, lambda pictures, run=run: np.stack([run(one.astype(np.float32)) for one in pictures]), dense)  # type: ignore[misc]
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    targets = (_predicting(original)(frames) + np.eye(len(opened.classes))[labels]) / 2
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        small = keras.models.clone_model(original, clone_function=lambda layer: _narrower(layer, width))
        schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * -(-len(frames) // BATCH))
        small.compile(keras.optimizers.Adam(schedule), "categorical_crossentropy")
        small.fit(frames, targets, batch_size=BATCH, epochs=epochs, verbose=0)
        shown(f"{width:g} of the width, seed {seed}", _predicting(small), _macs(small))


def _streams(data: Any, how: dict[str, Any]) -> Any:
    for _, pieces in data.streams("validation", chunk=32, **how):
        given = list(pieces)
        yield np.concatenate([pictures for pictures, _ in given]), np.concatenate([known for _, known in given])


def _predicting(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pictures: model.predict(pictures, batch_size=BATCH, verbose=0)  # type: ignore[no-any-return]


def _macs(model: keras.Model) -> int:
    return sum(entry.dense_macs or 0 for entry in mac_layers(model))


def _narrower(layer: keras.layers.Layer, width: float) -> keras.layers.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.Conv2D):
        config["filters"] = max(1, round(config["filters"] * width))
    return type(layer).from_config(config)


if __name__ == "__main__":
    typer.run(main)
