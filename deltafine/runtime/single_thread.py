"""What holds addresses of its own memory: it is not copied, and one thread is in it at a time."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Concatenate, NoReturn, ParamSpec, Protocol, SupportsIndex, TypeVar, cast

from deltafine.errors import DeltafineError


class _Locked(Protocol):
    _guard: threading.Lock


_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Owner = TypeVar("_Owner", bound=_Locked)


class NotCopied:
    """Refuses ``copy``, ``deepcopy`` and ``pickle``: kernels would go on in the memory of the original, or in none."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise DeltafineError(
            f"A {type(self).__name__} cannot be copied, pickled or sent to another process, since it holds addresses "
            "of its own memory: ask the runtime for another stream(), or make a DeltaRuntime in the other process."
        )


@contextlib.contextmanager
def entered(owner: _Locked) -> Iterator[None]:
    """Nobody else is in the object meanwhile.

    Raises:
        DeltafineError: another thread is.
    """
    if not owner._guard.acquire(blocking=False):
        raise DeltafineError(
            "This stream is in use by another thread: give each thread a stream of its own, with runtime.stream()."
        )
    try:
        yield
    finally:
        owner._guard.release()


def alone(
    method: Callable[Concatenate[_Owner, _Parameters], _Result],
) -> Callable[Concatenate[_Owner, _Parameters], _Result]:
    """Decorator of a method that no two threads may be in at once, nor in any other such method of the object."""

    @functools.wraps(method)
    def guarded(self: _Owner, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with entered(self):
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[_Owner, _Parameters], _Result]", guarded)
