"""What becomes of activations, of concatenations, and of groups, in bytes."""

from __future__ import annotations

import numpy as np
import pytest

from deltafine.runtime.activation_functions import ACTIVATIONS, NO_LIMIT
from deltafine.runtime.int8.activation_tables import table_of
from deltafine.runtime.int8.grids import grid_of
from deltafine.runtime.int8.quantise import in_bytes
from deltafine.runtime.plan import Finish, Operation, Plan, Tensor

RANGES = {
    "silu": (-0.28, 6), "hard_silu": (-0.375, 3), "gelu": (-0.17, 20), "sigmoid": (0, 1), "tanh": (-1, 1),
    "hard_sigmoid": (0, 1), "elu": (-1, 4), "softplus": (0, 9), "selu": (-1.75, 5), "mish": (-0.31, 3),
    "relu": (-3, 10), "softsign": (-0.9, 0.9), "exponential": (0, 7), "abs": (0, 2), "clip": (-1, 0.5),
}  # fmt: skip
PARAMETERS = {"elu": (1.0,), "relu": (0.2, NO_LIMIT, 0.0), "clip": (-1.0, 0.5)}


@pytest.mark.parametrize("name", RANGES)
def test_a_table_gives_the_nearest_level_or_the_next(name: str) -> None:
    finish, grid = Finish(activation=name, parameters=PARAMETERS.get(name, ())), grid_of(*RANGES[name])
    found = table_of(finish, grid, 1, 60.0)
    assert found is not None
    given, table = found
    x = np.linspace(-60, 60, 40_001)
    places = np.clip(np.rint(x / given.scale) + given.zero, 0, len(table) - 1).astype(int)
    right = np.asarray(ACTIVATIONS[name](x, *finish.parameters)) / grid.scale + grid.zero
    assert np.abs(table[places] - right.clip(0, 255)).max() <= 1.6  # half a level to the nearest, and one beside it
    assert len(table) in (4096, 16384, 65536)
    assert table.min() < 2
    assert table.max() > 253


def test_a_table_gives_multiples_of_a_threshold_and_what_has_none_says_so() -> None:
    grid = grid_of(-0.3, 5.0)
    found = table_of(Finish(activation="silu"), grid, 7, 30.0)
    assert found is not None
    assert {(int(level) - grid.zero) % 7 for level in found[1]} <= {0, -grid.zero % 7, (255 - grid.zero) % 7}
    for name, parameters in (("softmax", ()), ("hard_shrink", (2.0,)), ("log", ())):
        assert table_of(Finish(activation=name, parameters=parameters), grid, 1, 30.0) is None


def side_by_side() -> tuple[Plan, np.ndarray]:
    """Two tensors of very different sizes, concatenated, and multiplied by one convolution; with their ranges."""
    random = np.random.default_rng(0)
    names = ("input", "small", "large", "both", "last", "end")
    shapes = ((4, 4, 2), (4, 4, 3), (4, 4, 4), (4, 4, 7), (4, 4, 5), (4, 4, 5))
    plan = Plan("p", [Tensor(name, shape, shape) for name, shape in zip(names, shapes, strict=True)], [], (5,))
    plan.arrays = {
        "a": random.normal(0, 0.01, (1, 1, 2, 3)), "b": random.normal(0, 10, (1, 1, 2, 4)),
        "c": np.concatenate([random.normal(0, 100, (3, 3, 3, 5)), random.normal(0, 0.1, (3, 3, 4, 5))], axis=2),
    }  # fmt: skip
    relu = Finish(activation="relu", parameters=(0.0, NO_LIMIT, 0.0))
    plan.operations = [
        Operation("input", "input", (), 0), Operation("conv", "small", (0,), 1, weights="a", finish=relu),
        Operation("conv", "large", (0,), 2, weights="b", finish=relu), Operation("concatenate", "both", (1, 2), 3),
        Operation("conv", "last", (3,), 4, kernel=(3, 3), padding=(1, 1), weights="c", finish=relu),
        Operation("identity", "end", (4,), 5),
    ]  # fmt: skip
    return plan, np.array([(-1, 1), (0, 0.03), (0, 30), (0, 30), (0, 80), (0, 80)], float)


def test_a_concatenation_keeps_the_levels_of_its_parts() -> None:
    found = in_bytes(*side_by_side())
    both = next(one for one in found.operations if one.kind == "concatenate")
    grid, (small, large) = found.grids[both.output], (found.grids[index] for index in both.inputs)
    assert grid is not None
    assert small is not None
    assert large is not None
    np.testing.assert_array_equal(grid.scales(7), np.repeat([float(small.scale), float(large.scale)], [3, 4]))
    last = next(one for one in found.operations if one.name == "last")
    whole, exact = found.arrays[last.weights].astype(float), side_by_side()[0].arrays["c"]
    ratio = whole / (exact * grid.scales(7)[:, None])
    for output in range(5):  # one factor for all weights of an output, but for rounding
        large_ones = np.abs(whole[..., output]) > 20
        assert np.ptp(ratio[..., output][large_ones]) < 0.1 * ratio[..., output][large_ones].mean()
        assert (np.abs(whole[:, :, :3, output]) > 20).any()
        assert (np.abs(whole[:, :, 3:, output]) > 20).any()


@pytest.mark.parametrize(("each", "in_bytes_then"), [(3, False), (2, True), (4, True)])
def test_groups_of_an_odd_number_of_channels_stay_in_floating_point(each: int, in_bytes_then: bool) -> None:
    shapes = ((4, 4, 4 * each), (4, 4, 8), (4, 4, 8))
    plan = Plan("p", [Tensor(str(i), shape, shape) for i, shape in enumerate(shapes)], [], (2,))
    plan.arrays = {"w": np.random.default_rng(0).normal(0, 1, (3, 3, each, 8))}
    plan.operations = [
        Operation("input", "0", (), 0),
        Operation("conv", "1", (0,), 1, kernel=(3, 3), padding=(1, 1), groups=4, weights="w"),
        Operation("identity", "2", (1,), 2),
    ]
    found = in_bytes(plan, np.tile([-1.0, 1.0], (3, 1)))
    convolution = next(one for one in found.operations if one.kind == "conv")
    assert found.on_bytes(convolution) is in_bytes_then
