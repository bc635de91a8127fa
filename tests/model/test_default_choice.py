"""By default a delta layer stands wherever a layer with MACs would see a change that none has sent, if worth it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from deltafine.measurement import Probe
from deltafine.model import (
    DeltaSettings,
    coverage,
    delta_layers,
    find_activations,
    insert_deltas,
    preview_insertion,
    select_sites,
)  # fmt: skip
from deltafine.model.default_choice import COSTS_MORE, GATE
from tests.model import small_models
from tests.model.comparing import assert_frames_identical

FRAME = (12, 10, 3)


def _ended(inputs: Any, x: Any) -> Any:
    x = layers.GlobalAveragePooling2D(name="average")(x) if len(x.shape) == 4 else x
    return small_models.randomise(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def inverted_residuals() -> Any:
    """As in MobileNetV2: blocks that end without an activation, one of them with a residual sum."""
    inputs = keras.Input(FRAME)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6", name="stem")(inputs)
    for number in range(3):
        y = layers.Conv2D(16, 1, activation="relu6", name=f"expand{number}")(x)
        y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name=f"depthwise{number}")(y)
        y = layers.BatchNormalization(name=f"linear{number}")(layers.Conv2D(8, 1, name=f"project{number}")(y))
        x = layers.Add(name=f"sum{number}")([x, y]) if number == 1 else y
    return _ended(inputs, layers.Conv2D(12, 1, activation="relu6", name="last")(x))


def gated_residuals() -> Any:
    """As in EfficientNet: a squeeze-and-excite block before each projection."""
    inputs = keras.Input(FRAME)
    x = layers.Conv2D(8, 3, padding="same", activation="silu", name="stem")(inputs)
    for number in range(2):
        y = layers.Conv2D(16, 1, activation="silu", name=f"expand{number}")(x)
        y = layers.DepthwiseConv2D(3, padding="same", activation="silu", name=f"depthwise{number}")(y)
        s = layers.GlobalAveragePooling2D(keepdims=True, name=f"squeeze{number}")(y)
        s = layers.Conv2D(4, 1, activation="silu", name=f"reduce{number}")(s)
        s = layers.Conv2D(16, 1, activation="sigmoid", name=f"excite{number}")(s)
        y = layers.Multiply(name=f"product{number}")([y, s])
        x = layers.Add(name=f"sum{number}")([x, layers.Conv2D(8, 1, name=f"project{number}")(y)])
    return _ended(inputs, layers.Conv2D(12, 1, activation="silu", name="last")(x))


def normalised_blocks() -> Any:
    """As in ConvNeXt: normalised over channels, the residual sum without activation."""
    inputs = keras.Input(FRAME)
    x = layers.LayerNormalization(name="first")(layers.Conv2D(8, 2, strides=2, name="stem")(inputs))
    for number in range(2):
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{number}")(x)
        y = layers.LayerNormalization(name=f"norm{number}")(y)
        y = layers.Dense(24, activation="gelu", name=f"wide{number}")(y)
        x = layers.Add(name=f"sum{number}")([x, layers.Dense(8, name=f"narrow{number}")(y)])
    return _ended(inputs, layers.LayerNormalization(name="top")(x))


def transformer() -> Any:
    """A vision transformer of plain Keras layers; positions are added as constants."""
    inputs = keras.Input(FRAME)
    x = layers.Reshape((30, 8), name="tokens")(layers.Conv2D(8, 2, strides=2, name="patches")(inputs))
    x = x + np.linspace(-1, 1, 240, dtype="float32").reshape(30, 8)
    for number in range(2):
        y = layers.LayerNormalization(name=f"before_attention{number}")(x)
        x = layers.Add(name=f"attended{number}")([x, layers.MultiHeadAttention(2, 4, name=f"attention{number}")(y, y)])
        y = layers.LayerNormalization(name=f"before_dense{number}")(x)
        y = layers.Dense(8, name=f"out{number}")(layers.Dense(16, activation="gelu", name=f"into{number}")(y))
        x = layers.Add(name=f"sum{number}")([x, y])
    return _ended(inputs, layers.GlobalAveragePooling1D(name="pooled")(layers.LayerNormalization(name="top")(x)))


def joined_branches() -> Any:
    """As in a U-Net: of what is joined, one part is an activation and the other one is not; one part is upsampled."""
    inputs = keras.Input(FRAME)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(4, 3, strides=2, padding="same", name="down")(x)
    joined = layers.Concatenate(name="joined")([x, layers.UpSampling2D(name="up")(y)])
    return _ended(inputs, layers.Conv2D(8, 3, padding="same", activation="relu", name="last")(joined))


INSIDE = ("query", "key", "value", "dotproductattention")
OF_BLOCKS = [
    name
    for number in (0, 1)
    for name in (f"before_attention{number}", *(f"attention{number}/{part}" for part in INSIDE),
                 f"before_dense{number}", f"into{number}")
]  # fmt: skip
KINDS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "linear bottlenecks and residual sums": (
        inverted_residuals,
        ["input", "stem", "expand0", "depthwise0", "linear0", "expand1", "depthwise1", "sum1", "expand2", "depthwise2",
         "linear2", "last"],
    ),
    "products with gates": (
        gated_residuals,
        ["input", "stem", "expand0", "product0", "sum0", "expand1", "product1", "sum1", "last"],
    ),
    "layer normalisation": (
        normalised_blocks,
        ["input", "first", "norm0", "wide0", "sum0", "norm1", "wide1"],
    ),
    "a transformer": (
        transformer,
        ["input", *OF_BLOCKS],
    ),
    "parts of a concatenation": (joined_branches, ["input", "stem", "down", "last"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_delta_layers_stand_behind(kind: str) -> None:
    make, expected = KINDS[kind]
    sites = find_activations(make())
    assert [site.name for site in sites if site.selected] == expected
    assert coverage(sites) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_with_thresholds_that_nothing_reaches_every_layer_with_macs_stands_still(kind: str) -> None:
    """But for those in gates, and heads behind a normalisation, which have hardly any MACs."""
    model = KINDS[kind][0]()
    never = insert_deltas(model, find_activations(model), DeltaSettings(initial_threshold=1e9), clip_output="per-frame")
    probe = Probe(never)
    counts = probe.run(small_models.clips((1, 4, *FRAME))).counts
    macs = {place.name: place.dense_macs for place in probe.layers}
    moving = {name for name, found in zip(macs, counts[: len(macs)], strict=True) if found.macs_delta[:, 1:].any()}
    assert moving <= {"reduce0", "excite0", "reduce1", "excite1", "head"}
    assert sum(macs[name] for name in moving) < 0.02 * sum(macs.values())


@pytest.mark.parametrize("kind", KINDS)
def test_insertion_changes_no_bit(kind: str) -> None:
    model = KINDS[kind][0]()
    clips = insert_deltas(model, find_activations(model), DeltaSettings(rule="identity"), clip_output="per-frame")
    assert_frames_identical(model, clips, small_models.clips())


def test_what_costs_more_than_it_saves_is_left_out_and_said() -> None:
    reasons = {site.name: site.reason for site in find_activations(gated_residuals())}
    assert reasons["depthwise0"] == COSTS_MORE
    assert reasons["reduce0"] == GATE


def test_a_gate_with_many_macs_gets_delta_layers_of_its_own() -> None:
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="stem")(inputs)
    s = layers.Dense(32, activation="relu", name="reduce")(layers.GlobalAveragePooling2D(name="squeeze")(x))
    s = layers.Dense(32, activation="sigmoid", name="excite")(s)
    y = layers.Multiply(name="product")([x, layers.Reshape((1, 1, 32))(s)])
    sites = find_activations(_ended(inputs, layers.Conv2D(8, 1, activation="relu", name="project")(y)))
    assert [site.name for site in sites if site.selected] == ["input", "squeeze", "reduce", "product", "project"]


def test_plain_networks_have_the_sites_that_they_always_had() -> None:
    for make in (small_models.plain, small_models.sequential, small_models.nested, small_models.shared_layer):
        sites = find_activations(make())
        before = select_sites(sites, at=["activations-only"])
        assert sites == before


def test_the_plan_says_what_the_delta_layers_cost_and_save() -> None:
    model = inverted_residuals()
    sites = find_activations(model)
    plan = preview_insertion(model, sites)
    compared = sum(np.prod(site.shape) for site in sites if site.selected)
    assert plan["totals"]["comparisons"] == compared
    assert len(delta_layers(insert_deltas(model, sites))) == plan["totals"]["selected"]


def test_a_head_behind_a_normalisation_costs_few_values_and_saves_too_little() -> None:
    reasons = {site.name: site.reason for site in find_activations(transformer())}
    assert reasons["pooled"] == COSTS_MORE


def test_a_chain_longer_than_python_nests_calls_is_followed() -> None:
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for _ in range(600):
        x = layers.Rescaling(1.0)(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))
    assert [site.name for site in find_activations(model) if site.selected]
