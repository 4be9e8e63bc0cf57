"""``async def`` methods on the inline engine: each call runs to its end before the next one begins.

That is all that one thread can do without giving up that a call has happened when ``remote`` returns. A coroutine
that waits for something which only a later call could bring would wait for ever; it is told so instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class _Loop(asyncio.SelectorEventLoop):
    def is_idle(self) -> bool:
        """Nothing will ever happen in here by itself."""
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined] # there is no public way to ask
        return not ready and not scheduled


class InlineLoop:
    """The event loop of one actor."""

    def __init__(self) -> None:
        self._loop = _Loop()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end.

        Raises:
            RuntimeError: it waits for what only another call could bring.
        """
        outer = asyncio._get_running_loop()  # a notebook's, or that of the actor which makes this call
        asyncio._set_running_loop(None)
        try:
            task = self._loop.create_task(coroutine)
            while not task.done():
                self._loop.call_soon(self._loop.stop)
                self._loop.run_forever()
                if not task.done() and self._loop.is_idle():
                    task.cancel()
                    self._loop.call_soon(self._loop.stop)
                    self._loop.run_forever()
                    raise RuntimeError(
                        "this coroutine waits for something that only another call could bring, and the inline "
                        "engine runs one call at a time; use backend='local'"
                    )
            return task.result()
        finally:
            asyncio._set_running_loop(outer)

    def close(self) -> None:
        self._loop.close()


__all__ = ["InlineLoop"]
