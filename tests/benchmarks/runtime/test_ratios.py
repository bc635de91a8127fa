"""The benchmark's ratios, held to what must not be lost. Run with ``-m slow -s``."""

from __future__ import annotations

import pytest

from deltafine.runtime.comparison import fastest_dense
from tests.benchmarks.runtime.__main__ import MODELS, compare, show


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("MobileNetV1", {"1%": 5.0, "5%": 4.0, "10%": 2.5})])
def test_changes_of_few_pixels_are_computed_much_faster_than_densely(name: str, least: dict[str, float]) -> None:
    times, shares = compare(MODELS[name](), threads=1, rounds=40)
    show(name, times, shares)
    dense = {key: taken for key, taken in times.items() if key not in shares and not key.startswith("no deltas")}
    best = dense[fastest_dense(dense)].processor_median
    for density, ratio in least.items():
        assert best / times[density].processor_median >= ratio, density
