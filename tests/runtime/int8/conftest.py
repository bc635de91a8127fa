"""Kernels of 8-bit integers that are compiled before the tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_byte_kernels() -> None:
    from deltafine.runtime.first_start import compile_kernels

    compile_kernels("int8")
