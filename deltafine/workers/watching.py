"""Noticing a worker that hangs without dying: its connections stay, and the others would wait for it for ever.

Every worker answers whoever connects to a port of its own with the number of steps that it has begun, and asks all
others. One whose process stands still accepts connections and says nothing. One that stands still between two steps
answers that it has not begun the step in which the others wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

SECONDS_BETWEEN = 5.0
SECONDS_FOR_ONE_ANSWER = 10.0
SECONDS_WITHOUT_ANSWER = 30.0
"""After which one that did answer counts as hanging."""
SECONDS_OF_A_LATE_STEP = 45.0
TIMES_ITS_LIKE = 10.0
"""A step is late after so many seconds, and so many times what the longest one before has taken."""
STEPS_TO_START = 2
"""Steps that are no measure of others: they are compiled."""
SECONDS_TO_END = 20.0
"""After which a process that was told that another hangs ends even in the middle of something."""
EXIT_CODE = 75
MOST_BYTES = 1000


class Watch:
    """Answers the others, and asks them.

    Attributes:
        port: at which it answers.
        reason: why the job cannot go on, to follow the name of a worker; empty while all is well.
        hangs: number of that worker.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self.reason, self.hangs = "", -1
        self._begun = 0
        self._in_step_since: float | None = None
        self._longest_step = 0.0
        self._own_work = self._waiting = 0
        self._told = threading.Event()

    def start(self, others: Mapping[int, tuple[str, int]], stop: Callable[[int], str]) -> None:
        """Begin to answer and to ask.

        Args:
            others: host and port of the others' watches, by their number.
            stop: ends what the workers do together because of the one that hangs, and gives the sentence about it.
        """
        threading.Thread(target=self._answer, name="deltafine-answer", daemon=True).start()
        threading.Thread(target=self._ask_all, args=(others, stop), name="deltafine-watch", daemon=True).start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block this worker waits for the others. Elsewhere it does not matter to it what they do."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Within the block all workers take a step together."""
        self._begun += 1
        began = self._in_step_since = time.monotonic()
        try:
            yield
        finally:
            self._in_step_since = None
            if self._begun > STEPS_TO_START:
                self._longest_step = max(self._longest_step, time.monotonic() - began)

    @contextlib.contextmanager
    def own_work(self) -> Iterator[None]:
        """Within the block this worker does what may take it long, such as writing a checkpoint."""
        self._own_work += 1
        try:
            yield
        finally:
            self._own_work -= 1

    def acknowledge(self) -> None:
        """What was going on has ended, as it was to."""
        self._told.set()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
                with connection:
                    connection.settimeout(SECONDS_FOR_ONE_ANSWER)
                    connection.sendall(json.dumps([self._begun, self._own_work > 0]).encode())
            except OSError:  # of the other end
                time.sleep(0.1)

    def _ask_all(self, others: Mapping[int, tuple[str, int]], stop: Callable[[int], str]) -> None:
        answered: dict[int, float] = {}
        while not self.reason:
            time.sleep(SECONDS_BETWEEN)
            for number, (host, port) in others.items():
                try:
                    begun, at_own_work = _ask(host, port)
                except TimeoutError:
                    silent = time.monotonic() - answered.get(number, time.monotonic())
                    if self._waiting and silent > SECONDS_WITHOUT_ANSWER:
                        self.reason = f"has not answered for {silent:.0f} s: it hangs"
                except (OSError, ValueError):  # it has ended, which TensorFlow notices, or cannot be reached this way
                    answered.pop(number, None)
                else:
                    answered[number] = time.monotonic()
                    late = 0.0 if at_own_work or begun >= self._begun else self._late()
                    if late:
                        self.reason = f"has not begun the step that the others have been in for {late:.0f} s: it hangs"
                if self.reason:
                    self.hangs = number
                    break
        said = stop(self.hangs)
        if not self._told.wait(SECONDS_TO_END) and self._waiting:
            os.write(2, f"Error: {said}\n".encode())
            os._exit(EXIT_CODE)

    def _late(self) -> float:
        """Seconds that this worker has been in a step of which none before has taken nearly as long; else 0."""
        since = self._in_step_since
        if since is None or self._begun <= STEPS_TO_START:
            return 0.0
        taken = time.monotonic() - since
        return taken if taken > max(SECONDS_OF_A_LATE_STEP, TIMES_ITS_LIKE * self._longest_step) else 0.0


def _ask(host: str, port: int) -> tuple[int, bool]:
    """Steps that a worker has begun, and whether it is at work of its own.

    Raises:
        TimeoutError: it does not answer.
        OSError, ValueError: nobody is there, or somebody else.
    """
    content = b""
    with socket.create_connection((host, port), timeout=SECONDS_FOR_ONE_ANSWER) as connection:
        while len(content) < MOST_BYTES and (more := connection.recv(MOST_BYTES)):
            content += more
    begun, at_own_work = json.loads(content)
    return int(begun), bool(at_own_work)
