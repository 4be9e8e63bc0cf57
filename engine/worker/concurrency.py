"""Actors that run several calls at a time: in threads, or ``async def`` methods in an event loop.

In either case the main thread is the one that receives, so a call never waits for the background thread to notice
it. *Threads*: they take calls in the order of arrival; one is started when there is a call and none is free. *Event
loop*: the loop is the main thread's, and watches the mailbox like any other file. A coroutine
costs an ``asyncio`` task; a method that is not ``async`` runs at once, between the others. Results leave together, at
the end of the loop's turn.

Rejected: a loop in a thread of its own, as a guest of the receiving thread: two switches of threads a call.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from .. import messages as m

if TYPE_CHECKING:
    from .actor import ActorHost

COROUTINES = 1000
"""How many calls an actor with ``async def`` methods runs at a time, unless it says otherwise (as in Ray)."""


class ConcurrentCalls(Protocol):
    """Who runs an actor's calls."""

    def accept(self, spec: m.Spec) -> None:
        """Takes a call that has arrived; in any thread."""

    def cancel(self, task: bytes) -> None:
        """Ends a call that waits or awaits; one that runs in a thread goes on. In any thread."""

    def more(self) -> bool:
        """Whether there will be more to report, and sent."""

    def run(self) -> None:
        """The main thread's work until the actor leaves and what has begun is finished."""


def concurrent_calls(host: ActorHost, actor: Any, max_concurrency: int) -> ConcurrentCalls | None:
    """For an actor that runs one call at a time: ``None``."""
    cls = type(actor)
    if any(inspect.iscoroutinefunction(getattr(cls, name)) for name in dir(cls) if not name.startswith("__")):
        return AsyncCalls(host, actor, max_concurrency or COROUTINES)
    return ThreadedCalls(host, max_concurrency) if max_concurrency > 1 else None


class ThreadedCalls:
    """Calls in threads.

    At most one thread is *sought* at a time: woken, and not running yet. It wakes the next one once it has taken a
    call. A thread whose calls are short keeps the interpreter's lock and runs one after the other while the one that
    was sought waits for the lock; to wake a thread for each call would cost more than the call.
    """

    def __init__(self, host: ActorHost, size: int) -> None:
        self._host = host
        self._size = size
        self._calls: deque[m.Spec] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._sought = False
        self._leaving = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()

    def accept(self, spec: m.Spec) -> None:
        self._calls.append(spec)
        self._seek()

    def cancel(self, task: bytes) -> None:
        """The thread that takes it from the queue sees that it was cancelled."""

    def more(self) -> bool:
        return bool(self._calls)

    def run(self) -> None:
        host = self._host
        host.endpoint.wait_until(lambda: host.leaving)
        self._leaving = True
        for _ in self._threads:
            self._wake.put(None)
        for thread in self._threads:
            thread.join()

    def _seek(self) -> None:
        """Sees to it that another thread looks for calls, if there are any and one can be had."""
        if self._sought or not self._calls:
            return
        with self._lock:
            if self._sought:
                return
            if self._idle:
                self._sought = True
                self._wake.put(None)
            elif len(self._threads) < self._size:
                self._sought = True
                name = f"call-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        calls = self._calls
        while True:
            self._sought = False
            while calls:
                try:
                    spec = calls.popleft()
                except IndexError:  # another thread was quicker
                    break
                self._seek()
                self._host.run_call(spec)
            with self._lock:
                if calls:
                    continue
                if self._leaving:
                    return
                self._idle += 1
            self._wake.get()
            with self._lock:
                self._idle -= 1


class AsyncCalls:
    """Calls in an event loop."""

    def __init__(self, host: ActorHost, actor: Any, limit: int) -> None:
        self._host = host
        self._actor = actor
        self._limit = limit
        self._loop = asyncio.new_event_loop()
        self._main = threading.get_ident()
        self._waiting: deque[m.Spec] = deque()
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._flushing = False

    def accept(self, spec: m.Spec) -> None:
        if threading.get_ident() == self._main:
            self._start(spec)
        else:  # a thread of the user's waits in get() and receives meanwhile
            self._loop.call_soon_threadsafe(self._start, spec)

    def more(self) -> bool:
        return self._flushing

    def cancel(self, task: bytes) -> None:
        self._loop.call_soon_threadsafe(self._cancel, task)

    def _cancel(self, task: bytes) -> None:
        running = self._running.get(task)
        if running is not None:
            running.cancel()

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        endpoint = self._host.endpoint
        with endpoint.led_by_loop() as fds:
            for fd in fds:
                self._loop.add_reader(fd, self._receive)
            self._loop.call_soon(self._receive)
            self._loop.run_forever()
            for fd in fds:
                self._loop.remove_reader(fd)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _receive(self) -> None:
        self._host.endpoint.serve_what_is_there()
        self._stop_if_done()

    def _start(self, spec: m.Spec) -> None:
        if self._host.callers.holds_back(spec):
            return
        if not inspect.iscoroutinefunction(getattr(self._actor, spec.recipe.method, None)):
            self._host.run_call(spec)
        elif len(self._running) < self._limit:
            self._running[spec.task] = self._loop.create_task(self._run(spec))
        else:
            self._waiting.append(spec)

    async def _run(self, spec: m.Spec) -> None:
        outcome = await self._host.run_coroutine(spec)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        self._host.report_call(spec, outcome)
        del self._running[spec.task]
        if self._waiting and not self._host.leaving:
            self._start(self._waiting.popleft())

    def _flush(self) -> None:
        self._flushing = False
        self._host.endpoint.flush()
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self._host.leaving and not self._running:
            self._loop.stop()
