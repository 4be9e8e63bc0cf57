"""The log of one recoverable actor: which calls count, what they keep alive, what a checkpoint ends. No I/O.

The problem: an actor that is started again shall have the state that its callers have seen. Its calls are therefore
numbered in the order in which it ran them, and the node stores each one before its result is sent on. A restart
loads the last checkpoint and runs the calls after it again.

Invariant: the log has no holes, and a result is seen only if its call is in the log. Of a process that died some
frames may be lost and later ones arrive; a call behind a hole does not count, nobody sees its result, and its caller
sends it again. So what callers have seen is always what a replay makes.

A replay needs the objects that the calls had as arguments, what the actor got from other actors meanwhile (they
apply a call once and do not make its result again) and the actors that it created. The log holds them until a
checkpoint covers the call, and the refs inside the checkpoint until the next one.

Rejected: a number per caller, as in other systems. It orders the calls of one caller only, while a state depends on
how the calls of all callers interleaved; and a table by caller grows with the callers that ever were.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass


@dataclass
class Cut:
    """What a checkpoint changes."""

    held: list[bytes]
    """Objects to hold from now on, once each."""
    released: list[bytes]
    """Objects to let go, as often as they are named."""
    forgotten: list[bytes]
    """Calls that will not be replayed any more."""


class ActorLog:
    """See the module's essay. With ``replays`` off there are checkpoints only, and no call is logged."""

    def __init__(self, every: int, replays: bool = True) -> None:
        self.every = every
        """Calls between checkpoints; 0: there are none."""
        self.replays = replays
        self.last = 0
        """Number of the last call in the log; the first has 1."""
        self.checkpoint = 0
        """Number of the last call that the checkpoint covers."""
        self._started = False
        self._for_init: list[bytes] = []
        self._entries: deque[tuple[int, bytes, list[bytes]]] = deque()
        """What is not in the checkpoint: number and task id of each call, in order, and the objects that it needs."""
        self._for_checkpoint: list[bytes] = []

    def started(self) -> None:
        """Its ``__init__`` has ended for the first time."""
        self._started = True

    def resume(
        self, checkpoint: int, calls: list[tuple[int, bytes, list[bytes]]], held: Counter[bytes], started: bool
    ) -> None:
        """In a new log: what was recorded of an older one. ``held``: all that it held, as often as it did."""
        self.checkpoint = checkpoint
        self.last = calls[-1][0] if calls else checkpoint
        self._entries.extend(calls)
        for _, _, objects in calls:
            held.subtract(objects)
        self._for_init = list(held.elements())
        self._started = started

    def append(self, number: int, task: bytes, objects: list[bytes]) -> bool:
        """A call was run that needs ``objects``. False when it does not count, because one before it was lost."""
        if number != self.last + 1:
            return False
        self.last = number
        self._entries.append((number, task, objects))
        return True

    def keep(self, object_id: bytes) -> bool:
        """What runs now, a call or ``__init__``, needs this as well when it is run again; whether it is to be held."""
        if not self.replays:
            return False
        if self._started:
            self._entries.append((self.last + 1, b"", [object_id]))
        else:  # which may be run again at every restart
            self._for_init.append(object_id)
        return True

    def cut(self, number: int, refs: list[bytes]) -> Cut | None:
        """There is a checkpoint after call ``number`` with ``refs`` inside. None when it cannot be used."""
        if number <= self.checkpoint or (self.replays and number > self.last):
            return None
        self.checkpoint = number
        old = self._for_checkpoint
        self._for_checkpoint = list(refs)
        return self._drop(number, list(refs), old)

    def end(self) -> Cut:
        """The actor is dead: everything that it held is let go."""
        released = self._for_init + self._for_checkpoint
        self._for_init = []
        self._for_checkpoint = []
        return self._drop(self.last + 1, [], released)

    def _drop(self, number: int, held: list[bytes], released: list[bytes]) -> Cut:
        forgotten = []
        while self._entries and self._entries[0][0] <= number:
            _, task, objects = self._entries.popleft()
            released += objects
            if task:
                forgotten.append(task)
        return Cut(held, released, forgotten)
