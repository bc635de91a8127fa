"""Kernels that are compiled before the tests: NumPy would answer meanwhile, equal up to rounding only."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    from deltafine.runtime.first_start import compile_kernels

    compile_kernels("float32")
