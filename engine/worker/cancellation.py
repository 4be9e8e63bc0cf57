"""Cancelling what a worker runs, and nothing else.

A request comes in a message, which another thread may receive while the task runs. It is delivered as a signal,
whose handler Python runs in the main thread, between two steps of whatever runs there; only then is it decided
whether that is the task that was meant. A task that has ended meanwhile is past cancelling, and the one after it is
never hit. Inside the engine's own bookkeeping the signal waits a moment, as Ctrl-C does in a driver.

A task that waits in ``get`` may have another one running on top of it. It is told when that one is done.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from ..interrupts import hold_back

INTERRUPT = signal.SIGRTMIN + 3
"""Not one that programs use."""

EXIT_CODE = 79
"""Of a worker that ends because a task in it was cancelled by force."""


class Cancellation:
    """The requests of one worker, and the task that may be interrupted."""

    def __init__(self) -> None:
        self.requested: set[bytes] = set()
        self.running = b""
        """The task whose own code runs in the main thread right now."""
        self.beneath: list[bytes] = []
        """Tasks that wait in ``get`` beneath it."""
        self._main = threading.main_thread().ident or 0
        signal.signal(INTERRUPT, self._interrupt)

    def request(self, task: bytes, force: bool) -> None:
        """In any thread; the task has not begun, runs, or has ended."""
        self.requested.add(task)
        if task == self.running:
            if force:
                os._exit(EXIT_CODE)  # in one step with the question: no other thread runs in between
            signal.pthread_kill(self._main, INTERRUPT)
        elif force and task in self.beneath:
            os._exit(EXIT_CODE)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.running in self.requested and not hold_back(number, frame):
            raise KeyboardInterrupt

    def check(self, task: bytes | None) -> None:
        """Raises KeyboardInterrupt when the task, which is about to go on, was cancelled meanwhile."""
        if task in self.requested:
            raise KeyboardInterrupt

    def forget_ended(self) -> None:
        """Nothing runs: what was asked for and is not here has ended."""
        self.requested.clear()

