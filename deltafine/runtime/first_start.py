"""The first start on a machine: NumPy answers while the kernels are compiled."""

from __future__ import annotations

import threading
import warnings
from typing import Any

from deltafine.errors import DeltafineWarning

SAID = (
    "The kernels are compiled for this machine, once, which takes a minute or two: NumPy answers meanwhile, more "
    "slowly, and equal up to rounding."
)


def _kernels(precision: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """What Python calls, and the types that it calls it with; in int8, some of a plan may stay in float32."""
    from numba import types

    from deltafine.runtime.kernels.network import all_finite, count_macs, run_network

    integer: Any = types.int64
    line, table = integer[::1], integer[:, ::1]
    tables, flags = integer[:, :, ::1], types.uint8[::1]
    found = [
        (run_network, (tables, table, integer, integer, flags, line, line, types.boolean)),
        (all_finite, (types.float32[::1],)),
        (count_macs, (table, table, table)),
    ]
    if precision == "int8":
        from deltafine.runtime.kernels.byte_network import run_bytes

        found.append((run_bytes, (table, table, table, integer, integer, types.boolean, line, types.boolean)))
    return found


def kernels_are_kept(precision: str) -> bool:
    """Whether compiled kernels were kept for this processor; they are loaded then."""
    for function, signature in _kernels(precision):
        if signature not in function.overloads:
            compiled = function._cache.load_overload(signature, function.targetctx)
            if compiled is None:
                return False
            function.add_overload(compiled)
    return True


def compile_kernels(precision: str) -> None:
    """Compile the kernels for this machine, or load them where they were kept."""
    for function, signature in _kernels(precision):
        function.compile(signature)


class Compiling:
    """The kernels on their way. A program that ends before they are there waits for them, so that they are kept."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._over, self._begun = threading.Event(), threading.Lock()
        self._failure = ""
        warnings.warn(SAID, DeltafineWarning, stacklevel=4)

    @property
    def done(self) -> bool:
        """Whether there are kernels now."""
        return self._over.is_set() and not self._failure

    def begin(self) -> None:
        """Compile in a thread of its own, if that is not done yet."""
        if self._begun.acquire(blocking=False):
            # Not a daemon, whoever asks for it: else a program would end without the kernels.
            threading.Thread(target=self._compile, name="deltafine-compiler", daemon=False).start()

    def wait(self) -> bool:
        """Wait until it is over; returns whether there are kernels."""
        self.begin()
        self._over.wait()
        return self.done

    def _compile(self) -> None:
        try:
            compile_kernels(self._precision)
        except Exception as error:  # whatever it is, NumPy goes on
            self._failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            sentence = f"The kernels cannot be compiled, so NumPy goes on ({self._failure})."
            warnings.warn(sentence, DeltafineWarning, stacklevel=1)
        finally:
            self._over.set()
