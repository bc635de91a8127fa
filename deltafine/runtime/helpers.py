"""Threads that help the one that advances a stream, see ``deltafine.runtime.kernels.sharing``."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from deltafine.runtime.array_sizes import aligned
from deltafine.runtime.kernels.sharing import STOPPED, THREADS, WORDS, WORK

NO_TEAM = np.zeros(0, np.int64)
"""The words of a stream that is advanced by one thread."""
WORTH_WAKING = 100_000
"""Nanoseconds of work to be shared for which helpers are woken."""
SECONDS_TO_LEAVE = 1.0


class Help(Protocol):
    """What a helper does again and again: work until there was nothing to do for a while.

    Attributes:
        arrays: that it works in.
    """

    arrays: list[np.ndarray]

    def __call__(self) -> None: ...


MakeHelp = Callable[[np.ndarray], Help]
"""Makes that of the words of a team."""


class TeamSettings(NamedTuple):
    """What decides how work is shared, in the order of the words of a team.

    Attributes:
        threads: of the team.
        least: about how many nanoseconds an operation has to take to be shared.
        looks: how often a helper looks for an offer before it goes to sleep.
        short: outputs; for fewer, reading weights takes longer than multiplying, and each thread takes some of them.
        pieces: of each thread, so that none waits long for the last.
    """

    threads: int
    least: int = 8_000
    looks: int = 20_000
    short: int = 48
    pieces: int = 4


class _Team:
    """Some helpers, asleep until they are woken. They leave when nobody can wake them any more."""

    def __init__(self, count: int, make: MakeHelp) -> None:
        settings = TeamSettings(count + 1)
        self.process = os.getpid()
        self.words = aligned(np.zeros(WORDS, np.int64))
        self.words[THREADS : THREADS + len(settings)] = settings
        self.words[WORK] = WORTH_WAKING
        self.arrays = [self.words]
        self._asleep: list[threading.Lock] = []
        self._threads: list[threading.Thread] = []
        self.dismiss = weakref.finalize(self, _dismiss, self.words, self._asleep)
        for _ in range(count):
            help_ = make(self.words)
            asleep = threading.Lock()
            asleep.acquire()
            thread = threading.Thread(
                target=_serve, args=(self.words, asleep, help_), name="deltafine-helper", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no more threads for this process: whoever asks does all alone, as with a late one
                return
            self.arrays += help_.arrays
            self._asleep.append(asleep)
            self._threads.append(thread)

    def wake(self) -> None:
        """Wake the helpers, if there was enough for them to do the last time."""
        little = self.words[WORK] < WORTH_WAKING
        self.words[WORK] = 0
        if little:
            return
        for asleep in self._asleep:
            if asleep.locked():  # else it was woken, and does not know yet
                asleep.release()

    def leave(self) -> None:
        """Let all helpers end."""
        self.dismiss()
        for thread in self._threads:
            thread.join(SECONDS_TO_LEAVE)


def _dismiss(words: np.ndarray, asleep: Sequence[threading.Lock]) -> None:
    words[STOPPED] = 1
    for one in asleep:
        if one.locked():
            one.release()


def _serve(words: np.ndarray, asleep: threading.Lock, help_: Help) -> None:
    while True:
        asleep.acquire()
        if words[STOPPED]:
            return
        help_()


class Helpers:
    """Teams of helpers. Any thread may ask for one, which it has for itself meanwhile.

    Args:
        threads: of a team, with the one that asks for it.
        make: makes what a helper does.
    """

    def __init__(self, threads: int, make: MakeHelp) -> None:
        self._helpers, self._make = threads - 1, make
        self._free: list[_Team] = []
        self._teams: weakref.WeakSet[_Team] = weakref.WeakSet()

    @property
    def arrays(self) -> list[np.ndarray]:
        """What the helpers of all teams work in."""
        return [array for team in self._teams for array in team.arrays]

    def lent(self) -> _TeamLoan:
        """Wakes a team, whose words one gets for as long as one is in it; of one thread, there are none."""
        return _TeamLoan(self if self._helpers else None)

    def lend(self) -> _Team:
        """A team that is awake, to be given back."""
        team = None
        while self._free and team is None:
            try:
                team = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if team.process != os.getpid():  # this is a fork: its threads are those of the parent
                team = None
        if team is None:
            team = _Team(self._helpers, self._make)
            self._teams.add(team)
        team.wake()
        return team

    def take_back(self, team: _Team) -> None:
        """Others may have it."""
        self._free.append(team)

    def leave(self) -> None:
        """Let the helpers that nobody has end; others come when they are needed again."""
        while self._free:
            team = self._free.pop()
            if team.process == os.getpid():
                team.leave()


class _TeamLoan:
    __slots__ = ("_helpers", "_team")

    def __init__(self, helpers: Helpers | None) -> None:
        self._helpers = helpers

    def __enter__(self) -> np.ndarray:
        if self._helpers is None:
            return NO_TEAM
        self._team = self._helpers.lend()
        return self._team.words

    def __exit__(self, *exception: object) -> None:
        if self._helpers is not None:
            self._helpers.take_back(self._team)
