"""Noticing a worker that hangs without dying: its connections stay, and the others would wait for it for ever.

Every worker answers whoever connects to a port of its own with the number of steps that it has begun and the number of
sums over all workers that it has entered, and asks all others. One whose process stands still accepts connections and
says nothing. One that stands still between two steps, or within the computation of one, answers that it has not begun
or entered what the others wait in. Outside of steps nobody knows how long work takes; one that stands still there
answers that it uses no processor time, reads nothing and writes nothing, and does not wait for others.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from deltafine.workers.idleness import Idleness

SECONDS_BETWEEN = 5.0
SECONDS_FOR_ONE_ANSWER = 10.0
SECONDS_WITHOUT_ANSWER = 30.0
"""After which one that did answer counts as hanging."""
SECONDS_OF_A_LATE_STEP = 45.0
TIMES_ITS_LIKE = 10.0
"""A worker waits in vain after so many seconds within a step, and so many times what the longest one has taken."""
TIMES_WITH_NOBODY_BEHIND = 3.0
"""How many times as long it may take where all workers are equally far."""
SECONDS_OF_NOTHING = 45.0
"""After which one that others wait for, and that does nothing, counts as hanging."""
TIMES_AT_OWN_WORK = 3.0
"""How many times as long it may take to force what was written to a disk."""
STEPS_TO_START = 2
"""Steps of a training that are no measure of others: they are compiled."""
SECONDS_TO_SPREAD = 10.0
"""For which one that has found out who hangs stays, so that the others hear it."""
SECONDS_TO_END = 20.0
"""After which a process that was told that another hangs ends even in the middle of something."""
EXIT_CODE = 75
MOST_BYTES = 1000


class Position(NamedTuple):
    """How far a worker is.

    Attributes:
        begun: steps that it has begun.
        entered: sums over all workers that it has entered within them.
        at_own_work: whether it does what may take it long.
        hangs, reason: as in ``Watch``, if it has found one that hangs.
        waiting: whether it waits for the others.
        idle: seconds for which it has done nothing.
    """

    begun: int
    entered: int
    at_own_work: bool
    hangs: int | None = None
    reason: str = ""
    waiting: bool = True
    idle: float = 0.0

    @property
    def place(self) -> tuple[int, int]:
        """The same for workers that are equally far, and less for one that is behind."""
        return self.begun, self.entered


class Depth:
    """A context manager that is true within its block, which may stand in itself.

    Attributes:
        left: when a block ended last, by ``time.monotonic``.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self.left = time.monotonic()

    def __bool__(self) -> bool:
        return self._blocks > 0

    def __enter__(self) -> None:
        self._blocks += 1

    def __exit__(self, *exception: object) -> None:
        self.left = time.monotonic()
        self._blocks -= 1


class Watch:
    """Answers the others, and asks them.

    Args:
        entered: tells how many sums over all workers this one has entered.

    Attributes:
        port: at which it answers.
        waiting: within it this worker waits for the others. Elsewhere it does not matter to it what they do.
        own_work: within it this worker does what may take it long, such as writing a checkpoint.
        reason: why the job cannot go on, to follow the name of a worker; empty while all is well.
        hangs: number of that worker; None where it could not be told.
    """

    def __init__(self, entered: Callable[[], int] = lambda: 0) -> None:
        self._listening = socket.create_server(("", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self.reason = ""
        self.hangs: int | None = None
        self.waiting, self.own_work = Depth(), Depth()
        self._entered = entered
        self._begun, self._first = 0, 1
        self._step = Depth()
        self._longest_step = 0.0
        self._seen: tuple[tuple[int, int], float] = (0, 0), time.monotonic()
        self._told = threading.Event()
        self._idleness = Idleness()
        self._others: Mapping[int, tuple[str, int]] = {}

    def start(self, others: Mapping[int, tuple[str, int]], stop: Callable[[int | None], str]) -> None:
        """Begin to answer and to ask.

        Args:
            others: host and port of the others' watches, by their number.
            stop: ends what the workers do together because of the one that hangs, and gives the sentence about it.
        """
        self._others = others
        threading.Thread(target=self._answer, name="deltafine-answer", daemon=True).start()
        threading.Thread(target=self._ask_all, args=(stop,), name="deltafine-watch", daemon=True).start()

    @contextlib.contextmanager
    def step(self, *, first: bool) -> Iterator[None]:
        """Within the block all workers take a step together, which may be the first of a training."""
        self._begun += 1
        if first:
            self._first = self._begun
        began = time.monotonic()
        try:
            with self._step:
                yield
        finally:
            if self._is_like_others:
                self._longest_step = max(self._longest_step, time.monotonic() - began)

    @property
    def _is_like_others(self) -> bool:
        return self._begun >= self._first + STEPS_TO_START

    def acknowledge(self) -> None:
        """What was going on has ended, as it was to."""
        self._told.set()

    def _progress(self) -> Position:
        return Position(
            self._begun,
            self._entered(),
            bool(self.own_work),
            self.hangs,
            self.reason,
            bool(self.waiting),
            min(self._idleness.seconds, time.monotonic() - self.waiting.left),  # who waits for others may do nothing
        )

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
                with connection:
                    connection.settimeout(SECONDS_FOR_ONE_ANSWER)
                    connection.sendall(json.dumps(self._progress()).encode())
            except OSError:  # of the other end
                time.sleep(0.1)

    def _ask_all(self, stop: Callable[[int | None], str]) -> None:
        others = self._others
        answered: dict[int, float] = {}
        while not self.reason:
            time.sleep(SECONDS_BETWEEN)
            self._idleness.look()
            own = self._progress()  # before the others are asked, who may go on meanwhile
            if own.place != self._seen[0]:
                self._seen = own.place, time.monotonic()
            told: dict[int, Position] = {}
            for number, (host, port) in others.items():
                try:
                    told[number] = _ask(host, port)
                except TimeoutError:
                    silent = time.monotonic() - answered.get(number, time.monotonic())
                    if self.waiting and silent > SECONDS_WITHOUT_ANSWER:
                        self._blame(number, f"has not answered for {silent:.0f} s: it hangs")
                        break
                except (OSError, ValueError):  # it has ended, which TensorFlow notices, or cannot be reached this way
                    answered.pop(number, None)
                else:
                    answered[number] = time.monotonic()
            else:
                self._compare(own, told)
        if len(others) > 1:
            time.sleep(SECONDS_TO_SPREAD)
        said = stop(self.hangs)
        if not self._told.wait(SECONDS_TO_END) and self.waiting:
            with contextlib.suppress(OSError):  # whoever read it may have left
                os.write(2, f"Error: {said}\n".encode())
            os._exit(EXIT_CODE)

    def look(self) -> None:
        """Find out whether one of the others hangs, now that TensorFlow says that one of them is gone."""
        for number, (host, port) in self._others.items():
            with contextlib.suppress(OSError, ValueError):
                try:
                    self._hear({number: _ask(host, port)})
                except TimeoutError:
                    if not self.reason:
                        self._blame(number, f"has not answered for {SECONDS_FOR_ONE_ANSWER:.0f} s: it hangs")

    def _hear(self, told: Mapping[int, Position]) -> None:
        """Believe others that have found one that hangs, unless it were this one."""
        for other in told.values():
            if other.reason and not self.reason and (other.hangs is None or other.hangs in self._others):
                self._blame(other.hangs, other.reason)

    def _compare(self, own: Position, told: Mapping[int, Position]) -> None:
        """Find out which of the others this worker waits for in vain: it has waited far longer than any step took, or
        that one does nothing."""
        self._hear(told)
        for number, other in told.items() if self.waiting and not self.reason else ():
            if not other.waiting and other.idle > SECONDS_OF_NOTHING * (TIMES_AT_OWN_WORK if other.at_own_work else 1):
                since = f"has computed, read and written nothing for {other.idle:.0f} s, while others wait for it"
                self._blame(number, f"{since}: it hangs")
                return
        waited = time.monotonic() - self._seen[1]
        due = max(SECONDS_OF_A_LATE_STEP, TIMES_ITS_LIKE * self._longest_step)
        in_step = self._step and self._is_like_others and own.place == self._progress().place
        if self.reason or not in_step or waited <= due:
            return
        for number, other in told.items():
            if other.place < own.place and not other.at_own_work:
                what = "begun" if other.begun < own.begun else "computed its share of"
                since = f"the step in which the others have waited for {waited:.0f} s"
                self._blame(number, f"has not {what} {since}: it hangs")
                return
        alike = len(told) == len(self._others) and all(one.place == own.place for one in told.values())
        if alike and waited > TIMES_WITH_NOBODY_BEHIND * due:
            self._blame(None, f"A step has not gone on for {waited:.0f} s, far longer than any before took")

    def _blame(self, number: int | None, reason: str) -> None:
        self.hangs = number
        self.reason = reason  # last, because others look whether there is one


def _ask(host: str, port: int) -> Position:
    """How far a worker is.

    Raises:
        TimeoutError: it does not answer.
        OSError, ValueError: nobody is there, or somebody else.
    """
    content = b""
    with socket.create_connection((host, port), timeout=SECONDS_FOR_ONE_ANSWER) as connection:
        while len(content) < MOST_BYTES and (more := connection.recv(MOST_BYTES)):
            content += more
    begun, entered, at_own_work, hangs, reason, waiting, idle = json.loads(content)
    found = None if hangs is None else int(hangs)
    return Position(int(begun), int(entered), bool(at_own_work), found, str(reason), bool(waiting), float(idle))
