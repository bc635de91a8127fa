"""Several devices of a machine at one training step; their number changes nothing but the time that it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.refinement.replicated import SETTINGS, SIZES

QUICK = ("everything", "outputs")


@cache
def trained(devices: int, *names: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.refinement.replicated", str(devices), *names]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", QUICK)
def test_two_devices_train_as_one(name: str) -> None:
    assert_the_same(name, trained(1, *QUICK)[name], trained(2, *QUICK)[name])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_losses_and_weights_are_those_of_a_single_device(name: str, devices: int) -> None:
    assert_the_same(name, trained(1, *SETTINGS)[name], trained(devices, *SETTINGS)[name])


def assert_the_same(name: str, alone: dict[str, Any], together: dict[str, Any]) -> None:
    # In 16 bits, the sums of a batch are rounded as it is cut.
    near = {"rtol": 0.02, "atol": 0.02} if name == "half" else {"rtol": 1e-5, "atol": 1e-5}
    assert len(alone["figures"]) == len(SIZES)
    np.testing.assert_allclose(together["figures"], alone["figures"], **near)
    assert len(alone["weights"]) == len(together["weights"])
    for one, other in zip(alone["weights"], together["weights"], strict=True):
        np.testing.assert_allclose(other, one, **near)
