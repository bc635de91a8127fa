from __future__ import annotations

import keras
import numpy as np
import pytest

from deltafine.model import coverage, find_activations
from tests.model import small_models
from tests.model.applications import EVERY, FAMILIES, SNAPSHOTS, build, cached, default_choice
from tests.model.comparing import assert_identical_also_when_reloaded, with_identity_deltas

LARGE = ("DenseNet121", "InceptionResNetV2", "NASNetMobile")
"""These take as long as all others together."""
OF_EACH = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FAMILIES]


@pytest.mark.parametrize("name", OF_EACH)
def test_the_default_choice_of_each_family_is_as_it_was(name):
    assert default_choice(cached(name)) == (SNAPSHOTS / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", OF_EACH)
def test_the_default_choice_covers_nearly_all_macs_of_each_family(name):
    assert coverage(find_activations(cached(name))) >= 0.95


@pytest.mark.parametrize("name", OF_EACH)
def test_identity_layers_after_every_activation_change_no_bit(name):
    model = cached(name)
    clips = small_models.clips((1, 2, *model.input_shape[1:]))
    found = with_identity_deltas(model)(clips, training=False)
    expected = model(clips[0], training=False)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_constructor_is_identical_also_when_reloaded(name, tmp_path):
    model = build(name)
    assert_identical_also_when_reloaded(model, small_models.clips((1, 2, *model.input_shape[1:])), tmp_path)
    keras.utils.clear_session()
