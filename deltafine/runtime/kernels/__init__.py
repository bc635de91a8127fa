"""The plan compiled with numba: one call for a whole network, all state in a few flat arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

# The inner functions are called by each other only: no wrappers for Python, which would take most of the compiling.
kernel = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of an inner function."""


def entry(function: Callable[..., Any]) -> Any:
    """Decorator of a function that Python calls; the compiled code is kept between starts wherever there is room.

    numba keeps it by a function's name and its own file's age; the name stands for all files here.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    function.__qualname__ = f"{function.__name__}_{digest}"
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # nowhere to keep compiled code
        return njit(nogil=True, error_model="numpy")(function)
