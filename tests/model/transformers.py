"""Vision transformers: what the default choice covers of them, as a table for docs/results.md.

Run as ``python -m tests.model.transformers``; rows of KerasHub are there where it is installed.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from deltafine.model import coverage, find_activations, preview_insertion, select_sites


def plain(
    depth: int = 4,
    width: int = 64,
    heads: int = 4,
    dropout: float = 0.0,
    size: tuple[int, int] = (48, 64),
    patch: int = 8,
    mlp: int = 2,
) -> Any:
    """Of plain Keras layers, for frames of 48x64 in patches of 8x8; 10 classes."""
    inputs = keras.Input((*size, 3))
    tokens = size[0] // patch * (size[1] // patch)
    x = layers.Conv2D(width, patch, strides=patch, name="patches")(layers.Rescaling(1 / 255)(inputs))
    x = layers.Reshape((tokens, width))(x)
    x = x + layers.Embedding(tokens, width, name="positions")(np.arange(tokens)[None])
    for number in range(depth):
        y = layers.LayerNormalization(name=f"norm_{number}a")(x)
        attention = layers.MultiHeadAttention(heads, width // heads, dropout=dropout, name=f"attention_{number}")
        x = layers.Add(name=f"sum_{number}a")([x, attention(y, y)])
        y = layers.LayerNormalization(name=f"norm_{number}b")(x)
        y = layers.Dense(mlp * width, activation="gelu", name=f"wide_{number}")(y)
        x = layers.Add(name=f"sum_{number}b")([x, layers.Dense(width, name=f"narrow_{number}")(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="last")(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x))


def of_keras_hub() -> dict[str, Any]:
    """Small ones for frames of 64x64."""
    try:
        from keras_hub import models
    except ImportError:
        return {}
    size = {"image_shape": (64, 64, 3), "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 64}
    return {
        "KerasHub's ViT": models.ViTBackbone(mlp_dim=128, **size),
        "KerasHub's DeiT": models.DeiTBackbone(intermediate_dim=128, **size),
        "KerasHub's MiT": models.MiTBackbone(
            layerwise_depths=[1, 1, 1, 1], num_layers=4, layerwise_num_heads=[1, 2, 2, 4],
            layerwise_sr_ratios=[8, 4, 2, 1], max_drop_path_rate=0.1, layerwise_patch_sizes=[7, 3, 3, 3],
            layerwise_strides=[4, 2, 2, 2], image_shape=(64, 64, 3), hidden_dims=[16, 32, 40, 64],
        ),
    }  # fmt: skip


def main() -> None:
    """Print the table."""
    print("| model | outside of layers | delta layers | values | default | delta layers | values | as a whole |")
    print("|---|---|---|---|---|---|---|---|")
    for name, model in {"plain layers": plain(), "with dropout": plain(dropout=0.1), **of_keras_hub()}.items():
        sites = find_activations(model)
        chosen = [site.name for site in sites if site.selected]
        before = select_sites(sites, at=[one for one in chosen if not sites[0].plan.is_inside(one)])
        columns = []
        for choice in (before, sites):
            totals = preview_insertion(model, choice)["totals"]
            columns += [f"{coverage(choice):.1%}", str(totals["selected"]), f"{totals['comparisons']:,}"]
        whole = sum(entry["dense_macs"] for entry in preview_insertion(model, sites)["counted_whole"])
        print(f"| {' | '.join([name, *columns, f'{whole / sites[0].plan.dense_macs:.1%}'])} |")


if __name__ == "__main__":
    main()
