"""Cancelling what a worker runs, and nothing else.

A request comes in a message, which another thread may receive while the task runs. It is delivered as a signal,
whose handler Python runs in the main thread, between two steps of whatever runs there; only then is it decided
whether that is the task that was meant. A task that has ended meanwhile is past cancelling, and the one after it is
never hit. Inside the engine's own bookkeeping the signal waits a moment, as Ctrl-C does in a driver.

A request may also come between the moment at which a task leaves the queue and the one at which its code begins: its
function is loaded then, and its arguments. It stays on record and is looked for when ``running`` has been set, so that
either the thread that receives it sees the task run or the task sees the request.

A task that waits in ``get`` may have another one running on top of it. It is told when that one is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

from ..interrupts import WAITING, hold_back, in_a_moment

INTERRUPT = signal.SIGRTMIN + 3
"""Not one that programs use."""

EXIT_CODE = 79
"""Of a worker that ends because a task in it was cancelled by force."""

_WORKER = os.path.dirname(__file__) + os.sep


class Request(NamedTuple):
    """How a task is to be cancelled."""

    force: bool
    recursive: bool


class Cancellation:
    """The requests of one worker, and the task that may be interrupted."""

    def __init__(self) -> None:
        self.requested: dict[bytes, Request] = {}
        self.running = b""
        """The task whose own code runs in the main thread right now."""
        self.prepared = b""
        """The task whose function and arguments are being loaded."""
        self.beneath: list[bytes] = []
        """Tasks that wait in ``get`` beneath it."""
        self._main = threading.main_thread().ident or 0
        signal.signal(INTERRUPT, self._interrupt)

    def request(self, task: bytes, how: Request) -> None:
        """In any thread; the task has not begun, runs, or has ended."""
        self.requested[task] = how
        if task == self.running:
            if how.force:
                os._exit(EXIT_CODE)  # in one step with the question: no other thread runs in between
            signal.pthread_kill(self._main, INTERRUPT)
        elif how.force and (task == self.prepared or task in self.beneath):
            os._exit(EXIT_CODE)

    def run(
        self, task: bytes, function: Callable[..., Any], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs the task's own code, which alone may be interrupted."""
        beneath = self.running
        self.running = task
        try:
            if self.requested:
                self.check(task)
            return function(*args, **kwargs) if kwargs else function(*args)
        finally:
            self.running = beneath

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.running not in self.requested:
            return
        if _between_tasks(frame):
            in_a_moment(number)
        elif not hold_back(number, frame):
            raise KeyboardInterrupt

    def check(self, task: bytes | None) -> None:
        """Raises KeyboardInterrupt when the task, which is about to go on, was cancelled meanwhile."""
        if task in self.requested:
            raise KeyboardInterrupt

    def ended(self, task: bytes) -> None:
        """It is past cancelling."""
        self.requested.pop(task, None)

    def forget_ended(self) -> None:
        """Nothing runs: what was asked for and is not here has ended."""
        self.requested.clear()


def _between_tasks(frame: FrameType | None) -> bool:
    """Whether this folder's code was interrupted, or what it called; not a task's own code, on top of ``run``.

    It starts a task that was nested in the one that is meant or reports it, or is about to leave that one.
    """
    innermost = frame
    while frame is not None:
        if frame.f_code in WAITING:
            return False
        if frame.f_code.co_filename.startswith(_WORKER):
            return frame.f_code is not Cancellation.run.__code__ or frame is innermost
        frame = frame.f_back
    return False
