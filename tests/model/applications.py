"""The models of ``keras.applications``, small, without downloads, and what the default choice makes of them.

``python -m tests.model.applications`` writes the snapshots anew; read the difference before keeping it.
``python -m tests.model.applications coverage`` prints the table of ``docs/results.md``: the share of the MACs that is
behind a delta layer, with the default choice of earlier versions and with today's.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltafine.model import coverage, find_activations, select_sites

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


def coverage_row(name: str) -> str:
    """Coverage, delta layers and values compared per frame, before and after, at the smallest size."""
    model = build(name)
    sites = find_activations(model)
    cells = [name, str(model.input_shape[1])]
    for choice in (select_sites(sites, at=["activations-only"]), sites):
        selected = [site for site in choice if site.selected]
        cells += [f"{coverage(choice):.1%}", str(len(selected)), f"{sum(math.prod(site.shape) for site in selected):,}"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    for family in sys.argv[2:] or FAMILIES:
        if "coverage" in sys.argv:
            print(coverage_row(family), flush=True)
        else:
            (SNAPSHOTS / f"{family}.txt").write_text(default_choice(build(family)))
