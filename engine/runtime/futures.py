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

        def arrived() -> None:
            loaded = self._loaded(ref, entry, arrived)
            if loaded is None:
                return
            value, error = loaded
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        self._when_ready(ref, entry, arrived)
        self._process.endpoint.flush()
        return future

    def awaitable(self, ref: ObjectRef) -> asyncio.Future[Any]:
        """A future of the event loop that runs in this thread."""
        loop = asyncio.get_running_loop()
        bridge = self._bridges.of(loop)
        future: asyncio.Future[Any] = loop.create_future()
        (entry,) = self._process.entries_of((ref,))

        def finish() -> None:
            loaded = self._loaded(ref, entry, arrived)
            if loaded is not None:
                settle(future, *loaded)

        def arrived() -> None:
            bridge.run(finish)

        self._when_ready(ref, entry, arrived)
        if not future.done():
            bridge.soon(self._process.endpoint.flush)
        return future

    def _when_ready(self, ref: ObjectRef, entry: Entry, arrived: Callable[[], None]) -> None:
        """Calls ``arrived`` once there is a value, or will never be one."""
        self._process.ask_for((ref,), [entry])
        self._process.objects.when_ready(ref.binary(), arrived)
        if self._process.failure:
            self._process.objects.give_up()

    def _loaded(
        self, ref: ObjectRef, entry: Entry, again: Callable[[], None]
    ) -> tuple[Any, BaseException | None] | None:
        """The value or its error; None when it has to be looked for first, and then ``again`` will be called."""
        value = entry.value
        if value is None and self._process.failure:
            return None, EngineStateError(self._process.failure)
        try:
            return self._process.storage.load(ref.binary(), value), None
        except StaleAddress:
            self._process.objects.stale(ref.binary(), value)
            self._process.objects.when_ready(ref.binary(), again)
            return None
        except BaseException as error:
            return None, error
