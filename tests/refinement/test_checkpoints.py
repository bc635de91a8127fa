"""A checkpoint is there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from deltafine.errors import DeltafineError
from deltafine.refinement.run import checkpoints


def variables(seed: int, shapes: tuple[tuple[int, ...], ...] = ((3, 2), (), (4,))) -> list[keras.Variable]:
    random = np.random.default_rng(seed)
    return [keras.Variable(random.normal(size=shape), dtype="float32") for shape in shapes]


def values(of: list[keras.Variable]) -> list[list[float]]:
    return [np.asarray(variable).tolist() for variable in of]


def test_restoring_gives_every_value_and_the_facts_back(tmp_path: Path) -> None:
    saved, others = variables(0), variables(1)
    integer = keras.Variable(2**40 + 1, dtype="int64")
    more = [np.arange(5.0), np.ones((0, 3), np.float32)]
    facts = {"step": 7, "history": [{"loss": 0.1}]}
    checkpoints.save(tmp_path / "new" / "last.h5", [*saved, integer, *more], facts)
    other_integer = keras.Variable(0, dtype="int64")
    with pytest.raises(DeltafineError, match="belongs to another model"):
        checkpoints.restore(tmp_path / "new" / "last.h5", [*others, other_integer])
    left = checkpoints.restore(tmp_path / "new" / "last.h5", [*others, other_integer], more=True)
    assert values(others) == values(saved)
    assert int(other_integer) == 2**40 + 1
    for restored, value in zip(left, more, strict=True):
        assert restored.dtype == value.dtype
        np.testing.assert_array_equal(restored, value)
    assert checkpoints.read_facts(tmp_path / "new" / "last.h5") == facts


def test_more_variables_than_ten_keep_their_order(tmp_path: Path) -> None:
    saved, others = ([keras.Variable(float(start + n)) for n in range(120)] for start in (0, 500))
    checkpoints.save(tmp_path / "last.h5", saved, {})
    checkpoints.restore(tmp_path / "last.h5", others)
    assert values(others) == values(saved)


def test_another_models_checkpoint_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "last.h5", variables(0), {})
    others = variables(1, ((3, 2), (), (5,)))
    before = values(others)
    with pytest.raises(DeltafineError, match="belongs to another model"):
        checkpoints.restore(tmp_path / "last.h5", others)
    assert values(others) == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused_by_its_path(tmp_path: Path, share: float) -> None:
    file = tmp_path / "last.h5"
    checkpoints.save(file, variables(0, ((200, 200),)), {})
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DeltafineError, match=r"^The checkpoint .*last\.h5 is damaged"):
        checkpoints.restore(file, variables(1, ((200, 200),)))


def test_a_bit_that_changed_is_noticed_wherever_it_matters(tmp_path: Path) -> None:
    file = tmp_path / "last.h5"
    saved, facts = variables(0, ((20, 20), (), (3,))), {"step": 7, "rate": 0.25}
    checkpoints.save(file, saved, facts)
    content = file.read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        others = variables(1, ((20, 20), (), (3,)))
        before = values(others)
        try:
            checkpoints.check(file)
        except checkpoints.Damaged:
            refused += 1
            continue
        checkpoints.restore(file, others)  # the bit was of no meaning
        assert values(others) == values(saved) != before
        assert checkpoints.read_facts(file) == facts
    assert refused > len(content) // 7 // 4


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    saved, others = variables(0), variables(1)
    checkpoints.save(tmp_path / "last.h5", saved, {"step": 7})
    with h5py.File(tmp_path / "last.h5", "r+") as file:
        for name in [name for name in file.attrs if name.startswith("digest")]:
            del file.attrs[name]
    checkpoints.restore(tmp_path / "last.h5", others)
    assert values(others) == values(saved)
    assert checkpoints.read_facts(tmp_path / "last.h5") == {"step": 7}


def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(tmp_path: Path) -> None:
    file = tmp_path / "last.h5"
    checkpoints.save(file, variables(0), {})
    program = f"from deltafine.refinement.run import checkpoints; checkpoints.check({str(file)!r})"
    with h5py.File(file, "r+"):  # which locks it
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "DeltafineError: The checkpoint" in done.stderr
    assert "last.h5 cannot be read" in done.stderr
    checkpoints.check(file)
