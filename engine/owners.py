"""Owners that do not take their results: stopped, or deep in code that holds the interpreter's lock.

Results go straight from the workers to their owner, and what it does not take waits in the memory of the workers.
The node hears how much that can be: it adds up the bytes of outcomes per owner, asks the owner now and then whether
it still reads its mail (``Ping``), and subtracts what it had counted by then when the answer comes. An owner whose
count passes ``MAX_BYTES`` is *stalled*: its tasks are not handed out until it answers. The tasks of others are.

An answer says that the owner reads what comes, not that it has read it all. So the bound is one on what piles up
while it is away; a living owner works off the rest (guarantee 5).

An actor that runs calls does the same by itself, for its callers (``worker/callers.py``): the node hears of calls only
later. It counts what was left to ZeroMQ, which is what piles up.

Rejected: a credit per result, which would cost every result a message.
"""

from __future__ import annotations

from typing import Generic, TypeVar

ASK_BYTES = 4 << 20
MAX_BYTES = 64 << 20


Work = TypeVar("Work")
"""Tasks, or calls."""


class Owners(Generic[Work]):
    """See the module's essay. No I/O: says whom to ask and whose work to hold back."""

    def __init__(self) -> None:
        self._unheard: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        """What had been counted when the owner was asked."""
        self.stalled: dict[str, list[Work]] = {}
        """What is held back, by owner."""

    def sent(self, owner: str, size: int) -> bool:
        """Another outcome for ``owner``; whether it is time to look (:meth:`look`)."""
        total = self._unheard[owner] = self._unheard.get(owner, 0) + size
        return total > ASK_BYTES

    def look(self, owner: str) -> tuple[bool, bool]:
        """Whether to ask the owner now, and whether it is stalled from now on."""
        total = self._unheard[owner]
        ask = owner not in self._asked
        if ask:
            self._asked[owner] = total
        stalls = total > MAX_BYTES and owner not in self.stalled
        if stalls:
            self.stalled[owner] = []
        return ask, stalls

    def answered(self, owner: str) -> list[Work]:
        """Returns what may run now."""
        self._unheard[owner] = self._unheard.get(owner, 0) - self._asked.pop(owner, 0)
        return self.stalled.pop(owner, [])

    def ended(self, owner: str) -> list[Work]:
        """The owner is dead: nothing is sent to it any more. Returns what may run now."""
        self._unheard.pop(owner, None)
        self._asked.pop(owner, None)
        return self.stalled.pop(owner, [])
