"""The models of ``keras.applications``, small, without downloads, and what the default choice makes of them.

``python -m tests.model.applications`` writes the snapshots anew; read the difference before keeping it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.model import find_activations

SNAPSHOTS = Path(__file__).parent / "snapshots"
SIZES = (32, 71, 75, 96, 224, 331)
EVERY = tuple(name for name in dir(keras.applications) if name[0].isupper())
FAMILIES = (
    "ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2", "InceptionV3",
    "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2", "VGG16", "Xception",
)  # fmt: skip


def build(name: str) -> Any:
    """The model at the smallest size it allows, scores before the softmax, its normalisations made uneven."""
    # Names such as activation_3 count on from model to model.
    keras.utils.clear_session()
    constructor = getattr(keras.applications, name)
    for size in SIZES:
        try:
            model = constructor(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)
        except ValueError:
            continue
        generator = np.random.default_rng(0)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                for weight in layer.weights:
                    weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        return model
    raise AssertionError(f"{name} takes none of the sizes {SIZES}")


cached = cache(build)


def default_choice(model: Any) -> str:
    """One line per site: plus or minus, name, kind, and the reason if skipped."""
    lines = [
        f"{'+' if site.selected else '-'} {site.name} {site.kind}" + (f" ({site.reason})" if site.reason else "")
        for site in find_activations(model)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for family in FAMILIES:
        (SNAPSHOTS / f"{family}.txt").write_text(default_choice(build(family)))
