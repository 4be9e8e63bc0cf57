"""``await ref``: a value that arrives in the thread that receives ends a wait in an event loop.

To wake a loop from another thread costs a system call, and ten thousand values may arrive at once. So what has
arrived is collected, and the loop is woken once for all of it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

Finish = Callable[[], None]


class LoopBridge:
    """The way from other threads into one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._thread = threading.get_ident()
        self._arrived: deque[Finish] = deque()
        self._woken = False
        self._soon: Finish | None = None

    def run(self, finish: Finish) -> None:
        """Calls ``finish`` in the loop's thread: at once when that is this one."""
        if threading.get_ident() == self._thread:
            finish()
            return
        self._arrived.append(finish)
        loop = self._loop()
        if not self._woken and loop is not None and not loop.is_closed():
            self._woken = True
            loop.call_soon_threadsafe(self._finish_all)

    def soon(self, once: Finish) -> None:
        """Calls ``once`` at the end of the loop's turn, however often it is asked for; only in the loop's thread."""
        loop = self._loop()
        if self._soon is None and loop is not None:
            self._soon = once
            loop.call_soon(self._run_soon)

    def _run_soon(self) -> None:
        once, self._soon = self._soon, None
        assert once is not None
        once()

    def _finish_all(self) -> None:
        self._woken = False
        while self._arrived:
            self._arrived.popleft()()


class LoopBridges:
    """One for each event loop that awaits refs in this process."""

    def __init__(self) -> None:
        self._bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopBridge] = weakref.WeakKeyDictionary()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopBridge:
        bridge = self._bridges.get(loop)
        if bridge is None:
            bridge = self._bridges[loop] = LoopBridge(loop)
        return bridge


def settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Ends a future, unless whoever waited for it has been cancelled."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
