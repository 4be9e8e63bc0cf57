"""Callers that do not take the results of their calls: those are held back until they do (guarantee 5).

Results go straight to the callers, and what a caller does not take waits in this process, in a queue of ZeroMQ's
without bound. How much that is shows only there, and costs a call nothing: short frames for whoever reads its mail go
by the lane. Results of logged calls wait in the node instead, and are counted one by one. What is done about it is
decided as the node does it for tasks (``owners.py``). The calls of others run on.

Calls of one caller run in the order in which it made them, also those that were held back: later ones stand behind
them, until whoever runs calls puts all of them back at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from .. import messages as m
from ..owners import Owners
from ..runtime.endpoint import Endpoint


class Answered(NamedTuple):
    """In a queue of calls: those of this caller that were held back may run."""

    caller: str


class Callers:
    """See the module's essay."""

    def __init__(self, endpoint: Endpoint, release: Callable[[str], None]) -> None:
        """``release(caller)`` is to take its calls, as :meth:`released` has them."""
        self._endpoint = endpoint
        self._release = release
        self._owners: Owners[m.Spec] = Owners()
        self.stalled = self._owners.stalled
        self._dead: set[str] = set()
        """Of the stalled ones."""
        self._lock = threading.RLock()  # a finalizer's print may send inside

    def watch(self) -> None:
        """From now on."""
        self._endpoint.count_queued(self.count)

    def count(self, peer: str, size: int) -> None:
        """So many bytes more wait for a caller, or may."""
        if peer == m.NODE:
            return
        with self._lock:
            if self._owners.sent(peer, size) and self._owners.look(peer)[0]:
                self._endpoint.post(peer, m.Ping())

    def holds_back(self, spec: m.Spec) -> bool:
        """Whether the call is not to be run now: it waits here then."""
        if not self.stalled:
            return False
        with self._lock:
            held = self.stalled.get(spec.recipe.owner)
            if held is None:
                return False
            held.append(spec)
            return True

    def answered(self, caller: str) -> None:
        with self._lock:
            if caller not in self.stalled:
                self._owners.answered(caller)
                return
        self._release(caller)

    def ended(self, caller: str) -> None:
        """It is dead: what it called still runs, and what comes of that is sent to nobody."""
        with self._lock:
            if caller not in self.stalled:
                self._owners.ended(caller)
                return
            self._dead.add(caller)
        self._release(caller)

    def released(self, caller: str) -> list[m.Spec]:
        """The calls that were held back, from whoever runs them now."""
        with self._lock:
            calls = self._owners.answered(caller)
            if caller in self._dead:
                self._dead.remove(caller)
                self._owners.ended(caller)
            return calls
