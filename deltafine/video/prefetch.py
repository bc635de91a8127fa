"""Doing slow work ahead of its use: in threads, in order, never more than a few results at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """``map(work, items)`` on ``workers`` threads; at most 2 results per worker wait.

    The order does not depend on the number of threads. An error in ``work`` is raised at its place.
    """
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)
    pool = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="deltafine-video")
    try:
        for item in islice(rest, 2 * max(1, workers)):
            waiting.append(pool.submit(work, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(rest, 1):
                waiting.append(pool.submit(work, item))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def background(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, made in a thread of their own, at most 2 before they are asked for.

    The thread starts with the first item asked for, and ends with the items or when the iterator is closed.
    """
    slots: Queue[tuple[bool, Item | BaseException | None]] = Queue(maxsize=2)
    closed = Event()

    def offer(more: bool, value: Item | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                slots.put((more, value), timeout=0.1)
                return True
            except Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not offer(True, item):
                    return
            offer(False, None)
        except BaseException as error:  # handed over, and raised where the items are used
            offer(False, error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = Thread(target=produce, name="deltafine-video-ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, value = slots.get()
            if more:
                yield value  # type: ignore[misc]
            elif isinstance(value, BaseException):
                raise value
            else:
                return
    finally:
        closed.set()
        thread.join()
