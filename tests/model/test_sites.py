from __future__ import annotations

import keras
import pytest
from keras import layers

from deltafine.errors import DeltafineError
from deltafine.model import coverage, find_activations, mac_layers, select_sites
from deltafine.model.default_choice import COSTS_MORE
from tests.model import small_models


def selected(sites) -> list[str]:
    return [site.name for site in sites if site.selected]


def reasons(sites) -> dict[str, str]:
    return {site.name: site.reason for site in sites if not site.selected}


def test_the_input_and_the_hidden_activations_are_selected_and_the_head_is_not():
    sites = find_activations(small_models.plain())
    assert selected(sites) == ["input", "relu1", "conv2"]
    assert [site.kind for site in sites] == ["input", "relu", "relu", "softmax"]
    assert reasons(sites) == {"head": "head: no layer with MACs follows"}


def test_a_site_knows_its_shape_and_what_reads_it():
    by_name = {site.name: site for site in find_activations(small_models.plain())}
    assert by_name["relu1"].shape == (12, 10, 4)
    assert by_name["relu1"].consumers == ("conv2",)
    assert by_name["relu1"].fan_out_macs == 4 * 3 * 9 * 4 * 6
    assert by_name["conv2"].consumers == ("head",)
    assert by_name["conv2"].fan_out_macs == 6 * 5


def test_the_sites_together_cover_every_mac_of_a_plain_network():
    model = small_models.plain()
    sites = find_activations(model)
    assert coverage(sites) == 1.0
    assert sum(site.fan_out_macs for site in sites) == sum(layer.dense_macs for layer in mac_layers(model))


def test_delta_layers_are_named_after_their_site():
    names = {site.name: site.delta_name for site in find_activations(small_models.nested())}
    assert names["backbone/stem/relu"] == "backbone/stem/relu_delta"
    names = {site.name: site.delta_name for site in find_activations(small_models.shared_layer())}
    assert [names[f"relu{index}"] for index in ("", "#1", "#2")] == ["relu_delta", "relu_delta_1", "relu_delta_2"]


def test_behind_a_gate_the_product_is_sent_and_what_only_feeds_the_gate_is_not():
    sites = find_activations(small_models.gated())
    assert selected(sites) == ["input", "excite", "after_sum", "swish"]
    gate = "gate: its result only scales another tensor"
    assert reasons(sites) == {
        "stem": COSTS_MORE, "reduce": gate, "expand": gate, "swish_gate": gate,
        "head": "head: no layer with MACs follows",
    }  # fmt: skip


def test_a_branching_site_lists_every_consumer():
    sites = select_sites(find_activations(small_models.gated()), at=["activations-only"])
    by_name = {site.name: site for site in sites}
    assert set(by_name["stem"].consumers) == {"reduce", "project"}


def test_a_shared_backbone_has_one_set_of_sites():
    sites = find_activations(small_models.siamese())
    assert selected(sites) == ["input:left", "input:right", "backbone/conv", "backbone/relu"]
    by_name = {site.name: site for site in sites}
    assert by_name["backbone/conv"].consumers == ("backbone/conv2", "backbone#1/conv2")
    assert coverage(sites) == 1.0


def test_two_activations_in_a_row_count_their_changes_once():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.LeakyReLU(name="leaky")(layers.MaxPooling2D(2)(x))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    sites = find_activations(model)
    assert selected(sites) == ["input", "leaky"]
    assert reasons(sites)["conv"] == "another delta layer follows before any layer with MACs"


def test_a_model_that_takes_any_size_needs_a_frame_size():
    inputs = keras.Input((None, None, 3), name="frame")
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(layers.ReLU()(inputs)), name="any")
    with pytest.raises(DeltafineError, match="give the frame size"):
        find_activations(model)
    sites = find_activations(model, frame_shape=(8, 9, 3))
    assert sites[0].shape == (8, 9, 3)
    with pytest.raises(DeltafineError, match="do not fit"):
        find_activations(model, frame_shape=(8, 9, 4))


def test_mac_layers_are_listed_in_call_order_with_repeats_and_nested_paths():
    assert [path for path, _ in mac_layers(small_models.shared_layer())] == ["first", "conv", "conv#1", "head"]
    assert [path for path, _ in mac_layers(small_models.nested())] == [
        "backbone/stem/conv", "backbone/conv", "head",
    ]  # fmt: skip


def test_choosing_by_pattern_takes_exactly_the_named_sites():
    sites = select_sites(find_activations(small_models.plain()), at=["relu*"])
    assert selected(sites) == ["relu1"]
    assert reasons(sites)["input"] == "not named by --at"


def test_the_word_default_adds_to_the_default_choice():
    sites = select_sites(find_activations(small_models.gated()), at=["default", "squeeze"])
    assert selected(sites) == ["input", "squeeze", "excite", "after_sum", "swish"]
    by_name = {site.name: site for site in sites}
    assert (by_name["swish"].kind, by_name["squeeze"].kind) == ("product", "pooling")
    assert by_name["swish"].consumers == ("head",)


def test_a_pattern_means_activations_before_other_layers():
    assert selected(select_sites(find_activations(small_models.plain()), at=["*1"])) == ["relu1"]
    assert selected(select_sites(find_activations(small_models.plain()), at=["norm*"])) == ["norm1"]


def test_a_skipped_site_lets_the_one_before_it_reach_further():
    sites = select_sites(find_activations(small_models.gated()), at=["activations-only"], skip=["after_sum"])
    by_name = {site.name: site for site in sites}
    assert by_name["after_sum"].reason == "named by --skip"
    assert by_name["stem"].consumers == ("reduce", "project", "last")


def test_a_gate_may_be_chosen_by_name():
    assert selected(select_sites(find_activations(small_models.gated()), at=["expand"])) == ["expand"]


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names():
    sites = find_activations(small_models.plain())
    with pytest.raises(DeltafineError, match=r"'relu_1' matches no layer.*'relu1'"):
        select_sites(sites, at=["relu_1"])
    with pytest.raises(DeltafineError, match="--skip 'nothing'"):
        select_sites(sites, skip=["nothing"])


def test_choosing_nothing_is_refused():
    with pytest.raises(DeltafineError, match="No place for a delta layer is left"):
        select_sites(find_activations(small_models.plain()), skip=["*"])
