"""What a site feeds, against brute force: change one element, see which inputs of MAC layers move."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from deltafine.model import coverage, find_activations, graph, select_sites
from deltafine.model.fan_out_counts import fan_out, intermediate_shape, stages
from tests.model import small_models

SHAPE = (8, 6, 3)


def relu(x, name="site"):
    return layers.ReLU(name=name)(x)


def head(x, name="head"):
    return layers.Dense(3, name=name)(layers.Flatten()(x))


def stem(inputs, filters=4, name="stem"):
    return layers.Conv2D(filters, 3, padding="same", name=name)(inputs)


def padded(x):
    return layers.Conv2D(2, 3, strides=2, name="conv")(layers.ZeroPadding2D(1)(x))


def pooled(x):
    return layers.Conv2D(2, 2, name="conv")(layers.MaxPooling2D(3, strides=2)(x))


def normalised(x):
    return layers.Conv2D(2, 3, padding="same", name="conv")(layers.BatchNormalization()(x))


def branched(x):
    left = layers.Conv2D(4, 3, padding="same", strides=2, name="left")(x)
    right = layers.Conv2D(4, 1, name="right")(layers.AveragePooling2D(2)(x))
    return layers.Add()([left, right])


def summed_with_itself(x):
    return layers.Conv2D(2, 3, name="conv")(layers.Add()([x, layers.BatchNormalization()(x)]))


def cropped_and_grown(x):
    return layers.Conv2D(2, 3, name="conv")(layers.UpSampling2D(2)(layers.Cropping2D(2)(x)))


def reshaped(x):
    x = layers.Permute((2, 1, 3))(layers.Reshape((6, 8, 4))(x))
    return layers.Conv2D(2, 3, name="conv")(x)


def split(x):
    first, second = ops.split(x, 2, axis=-1)
    return layers.Conv2D(2, 3, name="conv")(ops.concatenate([second, ops.zeros_like(first)], axis=-1))


def sliced(x):
    return layers.Conv2D(2, 3, name="conv")(x[:, 2:, ::2, 1:])


def pooled_to_one(x):
    return layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D()(x))


def separable(x):
    return layers.SeparableConv2D(3, 3, strides=2, name="separable")(layers.Cropping2D(1)(x))


CASES = [
    padded, pooled, normalised, branched, summed_with_itself, cropped_and_grown, reshaped, sliced, pooled_to_one,
    separable, split,
]  # fmt: skip


def inputs_of_mac_layers(model, site, site_value):
    """Run the model with the site's output replaced; the inputs of the first MAC layers behind it."""
    seen = {}

    def on_call(name, node, args, kwargs):
        outputs = node.operation(*args, **kwargs)
        if name == site:
            return site_value
        if (stages(node.operation) and hasattr(node.operation, "kernel_size")) or name in ("dense", "head"):
            seen[name] = (node.operation, np.asarray(args[0])[0])
        return outputs

    graph.walk(model, [np.zeros((1, *SHAPE), "float32")], on_call)
    return seen


def brute_force(model, site, shape, consumers) -> int:
    """MACs of the consumers whose input moves when elements of the site's output do, one by one."""
    base = np.random.default_rng(0).uniform(1, 2, (1, *shape)).astype("float32")
    rest = inputs_of_mac_layers(model, site.name, base)
    moved = {name: np.zeros(rest[name][1].shape, bool) for name in consumers}
    for index in np.ndindex(*shape):
        changed = base.copy()
        changed[(0, *index)] += 50
        now = inputs_of_mac_layers(model, site.name, changed)
        for name in consumers:
            moved[name] |= now[name][1] != rest[name][1]
    total = 0
    for name in consumers:
        layer, mask = rest[name][0], moved[name]
        for stage in stages(layer):
            fan = fan_out(layer, mask.shape, stage=stage)
            if stage == "pointwise":
                between = intermediate_shape(layer, mask.shape)
                assert mask.all(), "the whole intermediate tensor moves"
                total += int(np.broadcast_to(fan, between).sum())
            else:
                total += int((fan * mask).sum())
    return total


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_macs_of_a_site_equal_brute_force(case):
    inputs = keras.Input(SHAPE)
    x = case(relu(stem(inputs)))
    model = small_models.randomise(keras.Model(inputs, head(x) if len(x.shape) == 4 else x))
    sites = select_sites(find_activations(model), at=["activations-only"])
    site = next(site for site in sites if site.name == "site")
    assert site.selected
    assert site.fan_out_macs == brute_force(model, site, (8, 6, 4), site.consumers)


def test_a_concatenation_shares_its_consumer_out_among_the_sites():
    inputs = keras.Input(SHAPE)
    one, two = relu(stem(inputs, 4), "one"), relu(stem(inputs, 2, "stem2"), "two")
    x = layers.Conv2D(5, 3, name="conv")(layers.Concatenate()([one, two]))
    model = keras.Model(inputs, head(x))
    by_name = {site.name: site for site in find_activations(model)}
    whole = by_name["one"].fan_out_macs + by_name["two"].fan_out_macs
    assert whole == 6 * 4 * 9 * 6 * 5
    assert by_name["one"].fan_out_macs == 2 * by_name["two"].fan_out_macs


def test_coverage_counts_a_mac_that_two_sites_feed_once():
    inputs = keras.Input(SHAPE)
    x = layers.Add()([relu(stem(inputs), "one"), relu(stem(inputs, name="stem2"), "two")])
    model = keras.Model(inputs, head(x))
    sites = find_activations(model)
    assert coverage(sites) == 1.0
    assert sum(site.mac_share for site in sites) > 1.0


def test_the_zero_border_of_a_padding_layer_depends_on_nothing():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, head(padded(relu(stem(inputs)))))
    sites = find_activations(model)
    assert 0.9 < coverage(sites) < 1.0
