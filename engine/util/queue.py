"""A first-in-first-out queue that tasks, actors and the program share: an actor keeps the items.

Whoever waits for an item or for room waits *in* the actor, in a coroutine: nobody asks again and again, and the answer
leaves at the moment when somebody else's call makes it possible. Copies of a ``Queue`` are handles of the same items.
The items live as long as the actor: until the last copy is gone, or :meth:`Queue.shutdown`.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from typing import Any

from .. import api
from ..exceptions import EngineStateError
from ..remote import ActorHandle, kill, remote


class Empty(queue.Empty):
    """Nothing is there to get, or nothing came in time."""


class Full(queue.Full):
    """There is no room, or none was made in time."""


class Queue:
    """Items in the order in which they were put. Refs are items as they are arguments: their values are stored.

    Args:
        maxsize: how many items there is room for; 0 for any number.
        actor_options: options of the actor that keeps them, e.g. ``{"name": "replies", "num_cpus": 0}``.
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be an int, got {maxsize!r}")
        self.maxsize = maxsize
        self.actor: ActorHandle | None = remote(_Keeper).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.qsize()

    def size(self) -> int:
        return self.qsize()

    def qsize(self) -> int:
        size: int = api.get(self._keeper().qsize.remote())
        return size

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        return 0 < self.maxsize <= self.qsize()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds an item; waits for room, for ``timeout`` seconds at most.

        Raises:
            Full: there was no room in time, or with ``block=False`` at once.
        """
        _answer(self._put(item, block, timeout))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """:meth:`put` for code in an event loop, which goes on meanwhile."""
        await _answer_async(self._put(item, block, timeout))

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Adds all items, or raises :class:`Full` and adds none."""
        if not isinstance(items, Iterable):
            raise TypeError(f"put_nowait_batch() takes an iterable of items, got {type(items).__name__}")
        _answer(self._keeper().put_nowait_batch.remote(list(items)))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the oldest item; waits for one, for ``timeout`` seconds at most.

        Raises:
            Empty: none came in time, or with ``block=False`` at once.
        """
        return _answer(self._get(block, timeout))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """:meth:`get` for code in an event loop, which goes on meanwhile."""
        return await _answer_async(self._get(block, timeout))

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Takes the ``num_items`` oldest items, or raises :class:`Empty` and takes none."""
        if isinstance(num_items, bool) or not isinstance(num_items, int):
            raise TypeError(f"num_items must be an int, got {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must be at least 0, got {num_items}")
        items: list[Any] = _answer(self._keeper().get_nowait_batch.remote(num_items))
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """Ends the actor, for all copies of this queue; what is in it is lost, and whoever waits gets ActorDiedError.

        Without ``force``, calls that were made before are begun first, for ``grace_period_s`` seconds at most.
        """
        keeper, self.actor = self.actor, None
        if keeper is None:
            return
        if not force:
            api.wait([keeper.qsize.remote()], timeout=grace_period_s)
        kill(keeper)

    def _keeper(self) -> ActorHandle:
        if self.actor is None:
            raise EngineStateError("this Queue has been shut down")
        return self.actor

    def _put(self, item: Any, block: bool, timeout: float | None) -> Any:
        if not block:
            return self._keeper().put_nowait.remote(item)
        return self._keeper().put.remote(item, _checked(timeout))

    def _get(self, block: bool, timeout: float | None) -> Any:
        if not block:
            return self._keeper().get_nowait.remote()
        return self._keeper().get.remote(_checked(timeout))


class _Keeper:
    """The actor behind a queue."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self._items.qsize()

    def put_nowait(self, item: Any) -> None:
        self.put_nowait_batch([item])

    def put_nowait_batch(self, items: list[Any]) -> None:
        size, room = self._items.qsize(), self._items.maxsize
        if 0 < room < size + len(items):
            raise Full(f"no room for {len(items)} more: the queue has {size} items of at most {room}")
        for item in items:
            self._items.put_nowait(item)

    def get_nowait(self) -> Any:
        return self.get_nowait_batch(1)[0]

    def get_nowait_batch(self, count: int) -> list[Any]:
        if count > self._items.qsize():
            raise Empty(f"{count} items are wanted and the queue has {self._items.qsize()}")
        return [self._items.get_nowait() for _ in range(count)]

    async def put(self, item: Any, timeout: float | None) -> None:
        if not self._items.full():  # not in wait_for, which would start a task, and with a timeout of 0 never run it
            self._items.put_nowait(item)
            return
        await _in_time(self._items.put(item), timeout, Full(f"no room within {timeout} s"))

    async def get(self, timeout: float | None) -> Any:
        if not self._items.empty():
            return self._items.get_nowait()
        return await _in_time(self._items.get(), timeout, Empty(f"no item within {timeout} s"))


async def _in_time(waiting: Coroutine[Any, Any, Any], timeout: float | None, late: Exception) -> Any:
    try:
        return await asyncio.wait_for(waiting, timeout)
    except asyncio.TimeoutError:
        raise late from None


def _answer(ref: Any) -> Any:
    try:
        return api.get(ref)
    except (Empty, Full) as error:
        raise _plain(error) from None


async def _answer_async(ref: Awaitable[Any]) -> Any:
    try:
        return await ref
    except (Empty, Full) as error:
        raise _plain(error) from None


def _plain(error: Exception) -> Exception:
    """What the keeper raised, without the keeper's traceback: to the caller it is an answer and no failure."""
    kind: type[Exception] = Empty if isinstance(error, Empty) else Full
    return kind(str(getattr(error, "cause", error)))


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None or a number of seconds ≥ 0, got {timeout!r}")
    return timeout
