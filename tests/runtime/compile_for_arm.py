"""Compiles the kernels for 64-bit ARM on another processor, into numba's cache; nothing of it is run here.

    NUMBA_CACHE_DIR=... NUMBA_CPU_NAME=... NUMBA_CPU_FEATURES=... python -m tests.runtime.compile_for_arm

What is kept there is loaded on ARM by the same Python and numba, with the same three variables, from the same files.
Under emulation, numba would take about ten times as long to compile.
"""

from __future__ import annotations

import platform
from typing import Any

import llvmlite.binding as llvm

TRIPLE = "aarch64-unknown-linux-gnu"


def compile_for_arm() -> None:
    """To be called before anything else of numba or deltafine is imported."""
    platform.machine = lambda: "aarch64"
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    of_arm = llvm.Target.from_triple(TRIPLE)
    llvm.get_process_triple = lambda: TRIPLE
    any_llvm: Any = llvm.Target
    any_llvm.from_default_triple = classmethod(lambda cls: of_arm)
    from deltafine.runtime.first_start import compile_kernels

    compile_kernels("int8")


if __name__ == "__main__":
    compile_for_arm()
