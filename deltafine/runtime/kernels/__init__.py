"""The plan compiled with numba: one call for a whole network, all state in a few flat arrays."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

from deltafine.errors import DeltafineWarning
from deltafine.runtime.kernels.kernel_cache import NOWHERE, KernelCache

# The inner functions are called by each other only: no wrappers for Python, which would take most of the compiling.
kernel = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of an inner function."""
inlined = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
"""Decorator of a function of single numbers: part of the loop that calls it, which then becomes vector code."""


def entry(function: Callable[..., Any]) -> Any:
    """Decorator of a function that Python calls; the compiled code is kept between starts wherever there is room.

    numba keeps it by a function's name and its own file's age; the name stands for all files here.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    function.__qualname__ = f"{function.__name__}_{digest}"
    compiled = njit(nogil=True, error_model="numpy")(function)
    try:
        compiled._cache = KernelCache(function)  # as numba does for cache=True
    except (RuntimeError, OSError):  # none of numba's places can be written to
        warnings.warn(NOWHERE.format(""), DeltafineWarning, stacklevel=2)
    return compiled
