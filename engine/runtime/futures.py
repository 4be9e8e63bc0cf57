"""Refs as futures: of a thread that waits elsewhere, or of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ..exceptions import EngineStateError
from ..refs import ObjectRef
from ..store.reader import StaleAddress
from .awaiting import LoopBridges, settle
from .objects import Entry

if TYPE_CHECKING:
    from .process import ProcessBackend


class Futures:
    """Two methods of :class:`rlflow.engine.backend.Backend`."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self._bridges = LoopBridges()

    def future(self, ref: ObjectRef) -> Future[Any]:
        future: Future[Any] = Future()
        (entry,) = self._process.entries_of((ref,))

        def finish(value: Any, error: BaseException | None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        self._when_ready(ref, entry, _Arrival(self._process, ref, entry, lambda load: load(), finish))
        self._process.endpoint.flush()
        return future

    def awaitable(self, ref: ObjectRef) -> asyncio.Future[Any]:
        """A future of the event loop that runs in this thread."""
        loop = asyncio.get_running_loop()
        bridge = self._bridges.of(loop)
        future: asyncio.Future[Any] = loop.create_future()
        (entry,) = self._process.entries_of((ref,))

        def finish(value: Any, error: BaseException | None) -> None:
            settle(future, value, error)

        self._when_ready(ref, entry, _Arrival(self._process, ref, entry, bridge.run, finish))
        if not future.done():
            bridge.soon(self._process.endpoint.flush)
        return future

    def _when_ready(self, ref: ObjectRef, entry: Entry, arrived: Callable[[], None]) -> None:
        """Calls ``arrived`` once there is a value, or will never be one."""
        self._process.ask_for((ref,), [entry])
        self._process.objects.when_ready(ref.binary(), arrived)
        if self._process.failure:
            self._process.objects.give_up()


class _Arrival:
    """Called when the value of an object is there. No closure, which would be a cycle and keep the ref alive."""

    __slots__ = ("_entry", "_finish", "_process", "_ref", "_run")

    def __init__(
        self, process: ProcessBackend, ref: ObjectRef, entry: Entry, run: Callable[[Callable[[], None]], None],
        finish: Callable[[Any, BaseException | None], None],
    ) -> None:
        """``run`` has the value loaded in the right thread; ``finish`` gets it, or its error."""
        self._process = process
        self._ref = ref
        self._entry = entry
        self._run = run
        self._finish = finish

    def __call__(self) -> None:
        self._run(self._load)

    def _load(self) -> None:
        process, value = self._process, self._entry.value
        if value is None and process.failure:
            self._finish(None, EngineStateError(process.failure))
            return
        try:
            loaded = process.storage.load(self._ref.binary(), value)
        except StaleAddress:  # it has to be looked for first
            process.objects.stale(self._ref.binary(), value)
            process.objects.when_ready(self._ref.binary(), self)
            return
        except BaseException as error:
            self._finish(None, error)
            return
        self._finish(loaded, None)
