"""A fixed set of actors that share a list of work: each gets the next piece when it has given its last result.

Pieces wait here, at the pool, and not in the actors' own queues: so a slow piece delays only the actor that has it,
and the next piece goes to whoever is free first. The pool has no thread. An actor's end is seen when somebody asks for
a result, and that is when the next piece is handed out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import api
from ..exceptions import ActorDiedError
from ..refs import ObjectRef
from ..remote import ActorHandle

Submit = Callable[[ActorHandle, Any], Any]
"""``lambda actor, value: actor.method.remote(value)``"""


class ActorPool:
    """Spreads calls over ``actors``.

        pool = ActorPool([Doubler.remote(), Doubler.remote()])
        list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3]))    # [2, 4, 6]

    One result after the other is taken with :meth:`get_next` (in the order of submission) or
    :meth:`get_next_unordered` (as they come).
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle = list(actors)
        self._busy: dict[ObjectRef, tuple[int, ActorHandle, Any]] = {}
        """By the ref that is waited for: the number of the piece, who works on it, and what its call returned."""
        self._refs: dict[int, ObjectRef] = {}
        """The refs of the pieces that are worked on, by number."""
        self._waiting: deque[tuple[Submit, Any]] = deque()
        self._submitted = 0
        self._next = 0

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Results of ``fn(actor, value)`` in the order of ``values``. Earlier pieces that nobody took are dropped."""
        self._submit_all(fn, values)
        return self._results(self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """The same in the order in which they are ready."""
        self._submit_all(fn, values)
        return self._results(self.get_next_unordered)

    def submit(self, fn: Submit, value: Any) -> None:
        """Calls ``fn(actor, value)``, which submits one call, as soon as an actor is free."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        returned = fn(actor, value)
        ref = returned[0] if isinstance(returned, list) else returned
        self._busy[ref] = (self._submitted, actor, returned)
        self._refs[self._submitted] = ref
        self._submitted += 1

    def has_next(self) -> bool:
        """Whether a result is left to be taken, now or later."""
        return bool(self._busy or self._waiting)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission; waits for it.

        Args:
            timeout: seconds; for ever by default.
            ignore_if_timedout: drops the piece that took too long, so that the following call is about the next one.

        Raises:
            StopIteration: everything that was submitted has been taken.
            TimeoutError: not ready in time.
            ValueError: the last piece of all was taken by :meth:`get_next_unordered` already.
            ActorDiedError: of the piece's actor, which leaves the pool; or no actor is left.
        """
        self._check_next()
        if self._next >= self._submitted:
            raise ValueError("get_next() is not possible here: get_next_unordered() has taken a later piece")
        return self._take([self._refs[self._next]], timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result that is ready, whichever it is; arguments and errors as for :meth:`get_next`."""
        self._check_next()
        return self._take(list(self._busy), timeout, ignore_if_timedout)

    def has_free(self) -> bool:
        """Whether an actor has nothing to do."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Takes an actor that has nothing to do out of the pool; None when all are busy."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Adds an actor. Raises ValueError when it is in the pool already."""
        if actor in self._idle or any(actor == busy for _, busy, _ in self._busy.values()):
            raise ValueError(f"{actor!r} is in this pool already")
        self._free(actor)

    def _submit_all(self, fn: Submit, values: Iterable[Any]) -> None:
        self._waiting.clear()
        for ref in list(self._busy):
            self._drop(ref)
        for value in values:
            self.submit(fn, value)

    def _results(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def _check_next(self) -> None:
        if not self.has_next():
            raise StopIteration("everything that was submitted has been taken")
        if not self._busy:
            raise ActorDiedError(f"{len(self._waiting)} pieces wait and no actor is left in the pool: push() another")

    def _take(self, refs: list[ObjectRef], timeout: float | None, ignore_if_timedout: bool) -> Any:
        ready, _ = api.wait(refs, num_returns=1, timeout=timeout)
        if not ready:
            if ignore_if_timedout:
                self._drop(refs[0])
            raise TimeoutError(f"no result within {timeout:g} s" + ("; the piece is dropped" * ignore_if_timedout))
        actor, returned = self._forget(ready[0])
        try:
            value = api.get(returned)
        except ActorDiedError:
            self._hand_out()
            raise
        except BaseException:
            self._free(actor)
            raise
        self._free(actor)
        return value

    def _drop(self, ref: ObjectRef) -> None:
        """Takes no interest in a result any more. Its actor still works on it, and does its next piece after that."""
        actor, _ = self._forget(ref)
        self._free(actor)

    def _forget(self, ref: ObjectRef) -> tuple[ActorHandle, Any]:
        number, actor, returned = self._busy.pop(ref)
        del self._refs[number]
        self._next = max(self._next, number + 1)
        return actor, returned

    def _free(self, actor: ActorHandle) -> None:
        self._idle.append(actor)
        self._hand_out()

    def _hand_out(self) -> None:
        if self._waiting and self._idle:
            self.submit(*self._waiting.popleft())
